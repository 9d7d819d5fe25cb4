"""Files that hold one protobuf message: opened with every check that is cheap, damage explained, written whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf.message import DecodeError, EncodeError

from caffe_lite import wire
from caffe_lite.atomic import atomic_write
from caffe_lite.blob_proto import MAX_BYTES
from caffe_lite.errors import WeightsError
from caffe_lite.wire import FileContent

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@contextmanager
def open_content(path: str | os.PathLike[str], descriptor: Any, kind: str) -> Iterator[FileContent]:
    """The bytes of a file that should hold the message ``descriptor``, called ``kind`` in errors.

    Raises:
        WeightsError: missing, empty or larger than 2 GiB; or wire.WireError or DecodeError inside the ``with``.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_BYTES:
                raise WeightsError(f"{path}: {size} bytes; {kind} has less than 2 GiB, the limit of protobuf")
            if not size:
                raise WeightsError(f"{path}: the file is empty, expected {kind}")
            content = FileContent(stream, size)
            try:
                yield content
            except (wire.WireError, DecodeError) as error:
                raise WeightsError(f"{path}: {_diagnosis(content, descriptor, kind)}") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error


def check_message(message: Any, path: str, kind: str) -> None:
    """Refuse a decoded message that says nothing, or whose strings are no text.

    Raises:
        WeightsError: see above.
    """
    if not message.ListFields():
        raise WeightsError(f"{path}: not {kind}: none of its fields is one of {message.DESCRIPTOR.name}")
    for where, raw in _undecoded_strings(message):
        raise WeightsError(f"{path}: damaged: {where} is not UTF-8 text: {raw[:40]!r}")


def write_message(path: str | os.PathLike[str], message: Any) -> None:
    """Write a message to a file, which is replaced whole or not at all.

    Raises:
        WeightsError: the message is larger than 2 GiB, or the file cannot be written.
    """
    write_bytes(path, to_bytes(path, message))


def to_bytes(path: str | os.PathLike[str], message: Any) -> bytes:
    """The content of a file ``path`` that holds ``message``.

    Raises:
        WeightsError: the message is larger than 2 GiB, or lacks a required field.
    """
    check_size(path, message.ByteSize())
    try:
        return message.SerializeToString()
    except EncodeError as error:
        raise WeightsError(f"{os.fspath(path)}: not written: {error}") from error


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file, which is replaced whole or not at all.

    Raises:
        WeightsError: the file cannot be written.
    """
    with replacing(path) as stream:
        stream.write(content)


def check_size(path: str | os.PathLike[str], size: int) -> None:
    """Refuse to write a message of ``size`` bytes if nobody could read it."""
    if not 0 <= size <= MAX_BYTES:
        raise WeightsError(
            f"{os.fspath(path)}: not written: {size} bytes are more than the 2 GiB that protobuf can hold"
        )


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Any]:
    """A stream whose content replaces the file ``path`` at the end.

    Raises:
        WeightsError: the file cannot be written.
    """
    try:
        with atomic_write(path, "wb") as stream:
            yield stream
    except OSError as error:
        raise WeightsError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}") from error


def _undecoded_strings(message: Any, path: str = "") -> Iterator[tuple[str, bytes]]:
    """(field, bytes) of each string that protobuf could not decode, and so gives as bytes."""
    for field, value in message.ListFields():
        name = f"{path}{field.name}"
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        single = isinstance(value, (str, bytes)) or hasattr(value, "ListFields")
        for i, part in enumerate([value] if single else value):
            where = name if single else f"{name}[{i}]"
            if isinstance(part, bytes):
                yield where, part
            elif not isinstance(part, str):
                yield from _undecoded_strings(part, f"{where}.")


def _diagnosis(content: FileContent, descriptor: Any, kind: str) -> str:
    """Why ``content`` could not be decoded, in words."""
    head = content.piece(0, 48)
    if head.startswith(_HDF5_SIGNATURE):
        return f"an HDF5 file, expected {kind} of protobuf"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return f"a text file (it begins {head[:32].decode()!r}), expected {kind}"
    end = 0
    try:
        for field in wire.fields(content):
            end = field.end
            if field.number not in descriptor.fields_by_number:
                return f"damaged, or not {kind}: unknown field {field.number} before byte {end}"
    except wire.Truncated as cut:
        if end:
            return (
                f"truncated: the part that begins at byte {end} should end at byte {cut.needed}, "
                f"the file has {len(content)}; copy or download it again"
            )
        return f"truncated, or not {kind}"
    except wire.WireError:
        return f"damaged, or not {kind}: no field can begin at byte {end}"
    return f"damaged, or not {kind}: a field inside it cannot be decoded"
