"""Caffe's binary files: trained nets, solver states and mean images, read and written.

    .caffemodel    NetParameter   layers by name, each with its parameter blobs
    .solverstate   SolverState    iteration, history blobs, the .caffemodel it belongs to
    .binaryproto   BlobProto      one array

All are protobuf messages, which end at 2 GiB. Values travel between a message and NumPy as the
bytes of the message's own encoding (little-endian, packed): element by element, the 138 million
parameters of VGG16 would take ten times as long.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from caffe_lite.atomic import atomic_write
from caffe_lite.errors import CaffeError, WeightsError
from caffe_lite.proto import caffe_pb2
from caffe_lite.upgrade import upgrade_net

MAX_BYTES = (1 << 31) - 1  # protobuf's own limit
_LEGACY_AXES = ("num", "channels", "height", "width")
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


# ---- files


def read_net(path: str | os.PathLike[str]) -> Any:
    """The NetParameter in a .caffemodel, brought to the schema of today.

    Raises:
        WeightsError: the file is missing, truncated, larger than 2 GiB, or no trained net.
    """
    net = _read(path, caffe_pb2.NetParameter(), "a .caffemodel")
    try:
        upgrade_net(net)
    except CaffeError as error:
        raise WeightsError(f"{os.fspath(path)}: {error}") from error
    return net


def write_net(path: str | os.PathLike[str], net: Any) -> None:
    """Write a NetParameter as .caffemodel; the file is replaced whole or not at all.

    Raises:
        WeightsError: the net is larger than 2 GiB, or the file cannot be written.
    """
    _write(path, net)


def read_state(path: str | os.PathLike[str]) -> Any:
    """The SolverState in a .solverstate.

    Raises:
        WeightsError: the file is missing, truncated, larger than 2 GiB, or no solver state.
    """
    return _read(path, caffe_pb2.SolverState(), "a .solverstate")


def write_state(path: str | os.PathLike[str], state: Any) -> None:
    """Write a SolverState as .solverstate; errors as ``write_net``."""
    _write(path, state)


def read_mean(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in a .binaryproto, in the shape that the file gives: (1, C, H, W) for a mean image.

    Raises:
        WeightsError: the file is missing, truncated or not a BlobProto.
    """
    proto = _read(path, caffe_pb2.BlobProto(), "a .binaryproto")
    try:
        return blob_to_array(proto).copy()
    except WeightsError as error:
        raise WeightsError(f"{os.fspath(path)}: {error}") from error


def write_mean(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an array as .binaryproto; (C, H, W) becomes (1, C, H, W), as Caffe expects of a mean image."""
    proto = caffe_pb2.BlobProto()
    array_to_blob(array[np.newaxis] if array.ndim == 3 else array, proto)
    _write(path, proto)


def _read(path: str | os.PathLike[str], message: Any, kind: str) -> Any:
    path = os.fspath(path)
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES:
            raise WeightsError(f"{path}: {size} bytes; {kind} has less than 2 GiB, the limit of protobuf")
        with open(path, "rb") as stream:
            content = stream.read()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not content:
        raise WeightsError(f"{path}: the file is empty, expected {kind}")
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise WeightsError(f"{path}: {_diagnosis(content, message.DESCRIPTOR, kind)}") from error
    if not message.ListFields():
        raise WeightsError(f"{path}: not {kind}: none of its fields is one of {message.DESCRIPTOR.name}")
    return message


def _write(path: str | os.PathLike[str], message: Any) -> None:
    path = os.fspath(path)
    size = message.ByteSize()
    if not 0 <= size <= MAX_BYTES:
        raise WeightsError(f"{path}: not written: {size} bytes are more than the 2 GiB that protobuf can hold")
    try:
        with atomic_write(path, "wb") as stream:
            stream.write(message.SerializeToString())
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written: {error.strerror or error}") from error


def _diagnosis(content: bytes, descriptor: Any, kind: str) -> str:
    """Why protobuf could not decode ``content``, in words."""
    if content.startswith(_HDF5_SIGNATURE):
        return f"an HDF5 file, which is not read yet; expected {kind}"
    head = content[:48]
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return f"a text file (it begins {head[:32].decode()!r}), expected {kind}"
    end = 0
    try:
        for number, wire_type, _, end in _fields(content):
            if number not in descriptor.fields_by_number or wire_type in (3, 4):
                return f"damaged, or not {kind}: unknown field {number} before byte {end}"
    except _Truncated as cut:
        if end:
            return (
                f"truncated: the part that begins at byte {end} should end at byte {cut.needed}, "
                f"the file has {len(content)}; copy or download it again"
            )
        return f"truncated, or not {kind}"
    except ValueError:
        return f"damaged, or not {kind}: no field can begin at byte {end}"
    return f"damaged, or not {kind}: a field inside it cannot be decoded"


# ---- arrays


def blob_to_array(proto: Any, diff: bool = False) -> np.ndarray:
    """The values of a BlobProto (its gradient if ``diff``), float32 or float64; a read-only view.

    The shape is that of the legacy num, channels, height, width if one of them is given (as Caffe
    takes it), else of ``shape``, else ().

    Raises:
        WeightsError: no values, or not as many as the shape says.
    """
    name, dtype = ("diff", "<f4") if diff else ("data", "<f4")
    if not getattr(proto, name) and getattr(proto, f"double_{name}"):
        name, dtype = f"double_{name}", "<f8"
    shape = blob_shape(proto)
    count, found = math.prod(shape), len(getattr(proto, name))
    if min(shape, default=0) < 0:
        raise WeightsError(f"a blob's shape {shape} has a negative axis")
    if count != found:
        what = "no diff" if diff and not found else f"{found} values"
        raise WeightsError(f"a blob of shape {shape} needs {count} values and has {what}")
    if not count:
        return np.zeros(shape, np.dtype(dtype).newbyteorder("="))
    number = proto.DESCRIPTOR.fields_by_name[name].number
    content = proto.SerializeToString()
    for field, wire_type, start, end in _fields(content):
        if field == number and wire_type == 2:
            array = np.frombuffer(content, dtype, count, start).reshape(shape)
            assert end - start == array.nbytes
            return array.astype(array.dtype.newbyteorder("="), copy=False)
    raise AssertionError(f"{name} is not packed in caffe.proto")


def array_to_blob(array: np.ndarray, proto: Any, write_diff: np.ndarray | None = None) -> None:
    """Fill a BlobProto with shape and values, and with the gradient ``write_diff`` if given.

    float64 goes to double_data as in Caffe, everything else to data as float32.
    """
    proto.Clear()
    proto.shape.dim.extend(array.shape)
    _put(array, proto, "data")
    if write_diff is not None:
        if write_diff.shape != array.shape:
            raise WeightsError(f"the diff has shape {write_diff.shape}, its blob {array.shape}")
        _put(write_diff, proto, "diff")


def blob_shape(proto: Any) -> tuple[int, ...]:
    """The shape that a BlobProto states; the legacy axes come first, as in Caffe."""
    if any(proto.HasField(axis) for axis in _LEGACY_AXES):
        return tuple(getattr(proto, axis) for axis in _LEGACY_AXES)
    return tuple(proto.shape.dim)


def _put(array: np.ndarray, proto: Any, name: str) -> None:
    dtype, name = ("<f8", f"double_{name}") if array.dtype == np.float64 else ("<f4", name)
    values = np.ascontiguousarray(array, dtype)
    if values.nbytes > MAX_BYTES:
        raise WeightsError(f"a blob of shape {array.shape} is larger than the 2 GiB that protobuf can hold")
    tag = proto.DESCRIPTOR.fields_by_name[name].number << 3 | 2
    proto.MergeFromString(b"".join((_varint(tag), _varint(values.nbytes), values.reshape(-1).data)))


# ---- protobuf's wire format: (field number << 3 | wire type) as a varint, then the value


class _Truncated(ValueError):
    def __init__(self, needed: int):
        super().__init__(needed)
        self.needed = needed


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    result.append(value)
    return bytes(result)


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            raise _Truncated(position + 1)
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a varint of more than ten bytes")


def _fields(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(number, wire type, start, end) of the value of each outermost field of an encoded message."""
    position = 0
    while position < len(content):
        tag, position = _read_varint(content, position)
        start, wire_type = position, tag & 7
        if wire_type == 0:
            _, end = _read_varint(content, position)
        elif wire_type == 2:
            size, start = _read_varint(content, position)
            end = start + size
        elif wire_type in (1, 5):
            end = start + (8 if wire_type == 1 else 4)
        else:
            raise ValueError(f"wire type {wire_type}")
        if end > len(content):
            raise _Truncated(end)
        if tag < 8:
            raise ValueError("field number 0")
        yield tag >> 3, wire_type, start, end
        position = end
