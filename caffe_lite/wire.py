"""Protobuf's wire format: the fields of an encoded message, found without decoding their values.

A field is ``number << 3 | wire type`` as a varint, then its value:

    0  varint        7 bits a byte, low ones first, the top bit set on all bytes but the last
    1  8 bytes       fixed64, double
    2  a length      as a varint, then as many bytes: strings, messages, packed numbers
    3  a group       fields up to the end mark (4) of the same number; proto2 only
    5  4 bytes       fixed32, float
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

MAX_DEPTH = 100  # of groups in groups, as in protobuf


class Content(Protocol):
    """Bytes in memory or in a file: ``len``, one of them, a slice of them."""

    def __len__(self) -> int: ...
    def byte(self, position: int) -> int: ...
    def piece(self, start: int, end: int) -> bytes: ...


class BytesContent:
    """Bytes in memory as Content."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __len__(self) -> int:
        return len(self._content)

    def byte(self, position: int) -> int:
        return self._content[position]

    def piece(self, start: int, end: int) -> bytes:
        return self._content[start:end]


class FileContent:
    """An open file as Content, of which one window is in memory."""

    WINDOW = 1 << 16

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._start = 0
        self._window = b""

    def __len__(self) -> int:
        return self._size

    def byte(self, position: int) -> int:
        index = position - self._start
        if not 0 <= index < len(self._window):
            self._window = self.piece(position, position + self.WINDOW)
            self._start, index = position, 0
            if not self._window:
                raise Truncated(position + 1)
        return self._window[index]

    def piece(self, start: int, end: int) -> bytes:
        """The bytes ``[start, end)``; fewer where the file ends."""
        offset = start - self._start
        if 0 <= offset and end <= self._start + len(self._window):
            return self._window[offset : end - self._start]
        self._stream.seek(start)
        return self._stream.read(min(end, self._size) - start)

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill ``target`` with the bytes from ``start`` on.

        Raises:
            Truncated: the file has become shorter.
        """
        self._stream.seek(start)
        if self._stream.readinto(target) != len(target):  # type: ignore[attr-defined]
            raise Truncated(start + len(target))


class WireError(ValueError):
    """Bytes that no protobuf message has."""


class Truncated(WireError):
    """A field that ends at byte ``needed``, after the end of what encloses it."""

    def __init__(self, needed: int):
        super().__init__(f"a field ends at byte {needed}, after the message that it is in")
        self.needed = needed


class Field(NamedTuple):
    """Places in the content: the tag is at ``begin``, the value is ``[start, end)``."""

    number: int
    wire_type: int
    begin: int
    start: int
    end: int


def varint(value: int) -> bytes:
    """``value``, at least 0, as a varint."""
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    result.append(value)
    return bytes(result)


def tag(number: int, wire_type: int) -> bytes:
    """What stands before the value of field ``number``."""
    return varint(number << 3 | wire_type)


def delimited(number: int, value: bytes) -> bytes:
    """Field ``number`` with the bytes ``value``: a string, a message or packed numbers."""
    return tag(number, 2) + varint(len(value)) + value


def fields(content: Content, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """The outermost fields of the message encoded in ``[start, end)``.

    Raises:
        Truncated: the last field is longer than the message.
        WireError: no field can begin where one should.
    """
    end = len(content) if end is None else end
    position = start
    while position < end:
        begin = position
        number, wire_type, position = _read_tag(content, position, end)
        value, position = _skip(content, number, wire_type, position, end)
        yield Field(number, wire_type, begin, value, position)


def unpacked_run(content: Content, field: Field, end: int) -> int:
    """How many elements of the unpacked array of numbers that ``field`` begins follow each other, itself included."""
    step = field.end - field.begin
    mark = np.frombuffer(content.piece(field.begin, field.start), np.uint8)
    count, look_at = 0, 1 << 6  # bytes, ever more: most runs are either of one element or of very many
    while field.begin + (count + 1) * step <= end:
        at = field.begin + count * step
        look_at = min(look_at * 4, 1 << 20)
        size = min(end - at, look_at) // step
        elements = np.frombuffer(content.piece(at, at + size * step), np.uint8).reshape(-1, step)
        differs = np.flatnonzero((elements[:, : len(mark)] != mark).any(axis=1))
        if differs.size:
            return count + int(differs[0])
        count += len(elements)
    return count


def _read_tag(content: Content, position: int, end: int) -> tuple[int, int, int]:
    value, position = _read_varint(content, position, end)
    if not 8 <= value < 1 << 32:
        raise WireError(f"field number {value >> 3}")
    return value >> 3, value & 7, position


def _read_varint(content: Content, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise Truncated(position + 1)
        byte = content.byte(position)
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise WireError("a varint of more than ten bytes")


def _skip(content: Content, number: int, wire_type: int, position: int, end: int) -> tuple[int, int]:
    """(start, end) of the value at ``position``."""
    start = position
    if wire_type == 0:
        _, position = _read_varint(content, position, end)
    elif wire_type in (1, 5):
        position += 8 if wire_type == 1 else 4
    elif wire_type == 2:
        size, start = _read_varint(content, position, end)
        position = start + size
    elif wire_type == 3:
        position = _skip_group(content, number, position, end)
    else:
        raise WireError(f"wire type {wire_type}")
    if position > end:
        raise Truncated(position)
    return start, position


def _skip_group(content: Content, number: int, position: int, end: int) -> int:
    """The position after the end mark of the group ``number`` whose fields begin at ``position``."""
    open_groups = [number]
    while open_groups:
        inner, wire_type, position = _read_tag(content, position, end)
        if wire_type == 3:
            open_groups.append(inner)
            if len(open_groups) > MAX_DEPTH:
                raise WireError(f"groups nested more than {MAX_DEPTH} deep")
        elif wire_type == 4:
            if open_groups.pop() != inner:
                raise WireError(f"the end of group {inner}, which is not open")
        else:
            _, position = _skip(content, inner, wire_type, position, end)
    return position
