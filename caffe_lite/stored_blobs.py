"""Protobuf files whose bulk is the values of blobs, opened without them.

:class:`BlobReader` goes through an encoded message, takes note of where the values are and gives the
rest to be decoded; a :class:`StoredBlob` then reads its values, a few MB at a time or all at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from caffe_lite import blob_proto, wire
from caffe_lite.binary_file import check_message, open_content
from caffe_lite.errors import WeightsError
from caffe_lite.proto import caffe_pb2

LAYERS = ("LayerParameter", "V1LayerParameter", "V0LayerParameter")
MAX_STRUCTURE = 8 << 20  # bytes of a file besides its values; the largest published nets have less than 1 MB
_PIECE = 1 << 22  # bytes read at a time: they are still in cache when they are copied on
_SPAN_COST = 128  # of a blob, or of one piece of its values, towards MAX_STRUCTURE
_BLOB_FIELDS = caffe_pb2.BlobProto.DESCRIPTOR.fields_by_name
_VALUES = {
    _BLOB_FIELDS[name].number: np.dtype("<f8" if name.startswith("double") else "<f4")
    for name in ("data", "diff", "double_data", "double_diff")
}


class _Span(NamedTuple):
    """Values of one field that stand together in the file."""

    number: int  # of the field
    begin: int
    end: int
    start: int  # of the first value
    size: int  # how many
    step: int  # bytes from value to value; more than a value has where each has its own tag


class StoredBlob:
    """A parameter blob whose values, and its gradient's, are at ``spans`` of the file that ``content`` reads."""

    def __init__(self, content: wire.FileContent) -> None:
        self._content = content
        self.spans: list[_Span] = []
        self.shape: tuple[int, ...] = ()
        self.has_legacy_shape = False

    def check(self) -> None:
        """Compare the number of values with the shape.

        Raises:
            WeightsError: they differ.
        """
        blob_proto.check_count(self.shape, sum(span.size for span in self._data()))

    def read_into(self, flat: Any) -> None:
        """Fill ``flat``, a NumPy or CuPy array (count,), with the values, a few MB at a time."""
        position = 0
        for span in self._data():
            for values in self._pieces(span):
                part = flat[position : position + len(values)]
                if hasattr(part, "set"):  # CuPy
                    part.set(np.ascontiguousarray(values, dtype=flat.dtype))
                else:
                    part[...] = values
                position += len(values)

    def restore(self, proto: Any) -> None:
        """Put values and gradient into the BlobProto from which they were left out."""
        for span in self.spans:
            proto.MergeFromString(self._content.piece(span.begin, span.end))

    def _data(self) -> list[_Span]:
        """The spans with the values: float64 if there are any, as in Caffe."""
        for name in ("double_data", "data"):
            spans = [span for span in self.spans if span.number == _BLOB_FIELDS[name].number and span.size]
            if spans:
                return spans
        return []

    def _pieces(self, span: _Span) -> Iterator[np.ndarray]:
        dtype = _VALUES[span.number]
        at_a_time = _PIECE // span.step
        buffer = bytearray(min(span.size, at_a_time) * span.step)
        for first in range(0, span.size, at_a_time):
            count = min(at_a_time, span.size - first)
            gap = span.step - dtype.itemsize  # of the last value's tag, which is not its own
            raw = memoryview(buffer)[: count * span.step - gap]
            self._content.read_into(span.start + first * span.step, raw)
            yield np.ndarray((count,), dtype, raw, strides=(span.step,))


class BlobReader:
    """Leaves out the values of blobs, and the parameters of layers that do not decode.

    What is kept is limited to MAX_STRUCTURE: decoded, an empty layer of three bytes takes hundreds.

    Raises:
        WeightsError: more than that.
        WireError: the encoding makes no sense.
    """

    def __init__(self, content: wire.FileContent, path: str, kind: str) -> None:
        self.content = content
        self.path = path
        self.kind = kind
        self.structure = 0
        self.blobs: list[StoredBlob] = []
        self.notes: list[str] = []

    def message(self, start: int, end: int, descriptor: Any) -> bytes:
        """The encoding of the message in ``[start, end)`` without those."""
        result = bytearray()
        for field in wire.fields(self.content, start, end):
            known = descriptor.fields_by_number.get(field.number)
            inner = known.message_type if known is not None and field.wire_type == 2 else None
            if inner is not None and inner.name == "BlobProto":
                result += wire.delimited(field.number, self.blob(field))
                continue
            if inner is not None and inner.name in LAYERS:
                self.count(field.start - field.begin)
                result += wire.delimited(field.number, self.message(field.start, field.end, inner))
                continue
            kept = self.keep(field)
            if inner is None or descriptor.name not in LAYERS or _decodes(kept[field.start - field.begin :], inner):
                result += kept
            else:
                self.notes.append(f"byte {field.begin}: {known.name} of a layer cannot be decoded; left out")
        return bytes(result)

    def keep(self, field: wire.Field) -> bytes:
        self.count(field.end - field.begin)
        return self.content.piece(field.begin, field.end)

    def count(self, size: int) -> None:
        self.structure += size
        if self.structure > MAX_STRUCTURE:
            raise WeightsError(
                f"{self.path}: damaged, or not {self.kind}: more than {MAX_STRUCTURE >> 20} MiB of it are not the "
                "values of blobs"
            )

    def blob(self, outer: wire.Field) -> bytes:
        blob = StoredBlob(self.content)
        self.blobs.append(blob)
        self.count(_SPAN_COST)
        result = bytearray()
        position = outer.start
        while position < outer.end:
            field = next(wire.fields(self.content, position, outer.end))
            span = self.span(field, outer.end)
            if span is None:
                result += self.keep(field)
                position = field.end
            else:
                blob.spans.append(span)
                self.count(_SPAN_COST)
                position = span.end
        return bytes(result)

    def span(self, field: wire.Field, end: int) -> _Span | None:
        """The values that ``field`` is, or begins; None if it is something else."""
        dtype = _VALUES.get(field.number)
        if dtype is None:
            return None
        if field.wire_type == 2:
            count, rest = divmod(field.end - field.start, dtype.itemsize)
            if rest:
                raise wire.WireError(f"packed values of {field.end - field.start} bytes")
            return _Span(field.number, field.begin, field.end, field.start, count, dtype.itemsize)
        if field.wire_type != {4: 5, 8: 1}[dtype.itemsize]:
            return None
        count, step = wire.unpacked_run(self.content, field, end), field.end - field.begin
        return _Span(field.number, field.begin, field.begin + count * step, field.start, count, step)


def _decodes(content: bytes, descriptor: Any) -> bool:
    """Is ``content`` a whole message of that kind?"""
    message = getattr(caffe_pb2, descriptor.name)()
    try:
        message.ParseFromString(content)
    except DecodeError:
        return False
    return bool(message.IsInitialized())


def read_message(path: str | os.PathLike[str], message: Any, kind: str) -> Any:
    """``message``, an empty SolverState or BlobProto, filled from a file that should be ``kind``.

    Raises:
        WeightsError: the file is missing, damaged, larger than 2 GiB, or holds another message.
    """
    path = os.fspath(path)
    with open_content(path, message.DESCRIPTOR, kind) as content:
        reader = BlobReader(content, path, kind)
        whole = wire.Field(0, 2, 0, 0, len(content))
        is_blob = isinstance(message, caffe_pb2.BlobProto)
        message.ParseFromString(reader.blob(whole) if is_blob else reader.message(0, len(content), message.DESCRIPTOR))
        for proto, blob in zip([message] if is_blob else message.history, reader.blobs, strict=True):
            blob.restore(proto)
        check_message(message, path, kind)
    return message
