"""BlobProto, Caffe's array in a protobuf message, from and to NumPy.

Values travel as the bytes of the message's own encoding (little-endian, packed): element by element,
the 138 million parameters of VGG16 would take ten times as long.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from caffe_lite import wire
from caffe_lite.errors import WeightsError
from caffe_lite.proto import caffe_pb2

MAX_BYTES = (1 << 31) - 1  # of a message: protobuf's own limit
_LEGACY_AXES = ("num", "channels", "height", "width")


def has_legacy_shape(proto: Any) -> bool:
    """Is the shape of a BlobProto given by num, channels, height and width, as before 2015?"""
    return any(proto.HasField(axis) for axis in _LEGACY_AXES)


def blob_shape(proto: Any) -> tuple[int, ...]:
    """The shape that a BlobProto states; the legacy axes come first, as in Caffe."""
    if has_legacy_shape(proto):
        return tuple(getattr(proto, axis) for axis in _LEGACY_AXES)
    return tuple(proto.shape.dim)


def check_count(shape: tuple[int, ...], found: int, what: str = "") -> None:
    """Refuse values that are not as many as the shape says.

    Raises:
        WeightsError: the counts differ, or an axis is negative.
    """
    if min(shape, default=0) < 0:
        raise WeightsError(f"a blob's shape {shape} has a negative axis")
    count = math.prod(shape)
    if count != found:
        raise WeightsError(f"a blob of shape {shape} needs {count} values and has {what or f'{found} values'}")


def blob_to_array(proto: Any, diff: bool = False) -> np.ndarray:
    """The values of a BlobProto (its gradient if ``diff``), float64 if it has any of those, else float32.

    A read-only view. The shape is that of the legacy num, channels, height, width if one of them is
    given (as Caffe takes it), else of ``shape``, else ().

    Raises:
        WeightsError: no values, or not as many as the shape says.
    """
    name, dtype = ("diff", "<f4") if diff else ("data", "<f4")
    if getattr(proto, f"double_{name}"):
        name, dtype = f"double_{name}", "<f8"
    shape = blob_shape(proto)
    found = len(getattr(proto, name))
    check_count(shape, found, "no diff" if diff and not found else "")
    if not found:
        return np.zeros(shape, np.dtype(dtype).newbyteorder("="))
    number = proto.DESCRIPTOR.fields_by_name[name].number
    content = proto.SerializeToString()
    for field in wire.fields(wire.BytesContent(content)):
        if field.number == number and field.wire_type == 2:
            array = np.frombuffer(content, dtype, found, field.start).reshape(shape)
            return array.astype(array.dtype.newbyteorder("="), copy=False)
    raise AssertionError(f"{name} is not packed in caffe.proto")


def array_to_blob(array: np.ndarray, proto: Any, write_diff: np.ndarray | None = None) -> None:
    """Fill a BlobProto with shape and values, and with the gradient ``write_diff`` if given.

    float64 goes to double_data as in Caffe, everything else to data as float32.
    """
    proto.Clear()
    for start, values in encode(array, write_diff):
        proto.MergeFromString(b"".join((start, values)))


def encode(array: np.ndarray, write_diff: np.ndarray | None = None) -> list[tuple[bytes, Any]]:
    """The fields of a BlobProto as ``array_to_blob`` fills it: of each its start and a view of its values' bytes.

    Raises:
        WeightsError: more than protobuf can hold, or a gradient of another shape.
    """
    given = [("data", array)]
    if write_diff is not None:
        if write_diff.shape != array.shape:
            raise WeightsError(f"the diff has shape {write_diff.shape}, its blob {array.shape}")
        given.append(("diff", write_diff))
    known = caffe_pb2.BlobProto.DESCRIPTOR.fields_by_name
    shape = caffe_pb2.BlobShape(dim=array.shape).SerializeToString()
    fields: list[tuple[int, bytes, Any]] = [(known["shape"].number, wire.delimited(known["shape"].number, shape), b"")]
    for name, values in given:
        dtype, field = ("<f8", f"double_{name}") if values.dtype == np.float64 else ("<f4", name)
        raw = np.ascontiguousarray(values, dtype).reshape(-1)
        if raw.nbytes > MAX_BYTES:
            raise WeightsError(f"a blob of shape {array.shape} is larger than the 2 GiB that protobuf can hold")
        number = known[field].number
        fields.append((number, wire.tag(number, 2) + wire.varint(raw.nbytes), raw.view(np.uint8).data))
    return [(start, values) for _, start, values in sorted(fields, key=lambda part: part[0])]
