"""Caffe's binary files: trained nets, solver states and mean images, read and written.

    .caffemodel    NetParameter   layers by name, each with its parameter blobs (see caffemodel)
    .solverstate   SolverState    iteration, history blobs, the .caffemodel it belongs to
    .binaryproto   BlobProto      one array
    .npy           NumPy          one array, as the mean files of pycaffe's examples are

All but the last are protobuf messages, which end at 2 GiB.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from caffe_lite.binary_file import to_bytes as to_bytes
from caffe_lite.binary_file import write_bytes as write_bytes
from caffe_lite.binary_file import write_message
from caffe_lite.blob_proto import array_to_blob as array_to_blob
from caffe_lite.blob_proto import blob_shape as blob_shape
from caffe_lite.blob_proto import blob_to_array as blob_to_array
from caffe_lite.caffemodel import read_net as read_net
from caffe_lite.caffemodel import write_net as write_net
from caffe_lite.errors import WeightsError
from caffe_lite.proto import caffe_pb2
from caffe_lite.stored_blobs import read_message

_NPY_SIGNATURE = b"\x93NUMPY"


def read_state(path: str | os.PathLike[str]) -> Any:
    """The SolverState in a .solverstate.

    Raises:
        WeightsError: the file is missing, truncated, larger than 2 GiB, or no solver state.
    """
    return read_message(path, caffe_pb2.SolverState(), "a .solverstate")


def write_state(path: str | os.PathLike[str], state: Any) -> None:
    """Write a SolverState as .solverstate; errors as ``write_net``."""
    write_message(path, state)


def read_mean(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in a .binaryproto or .npy (told by its content), in the shape that the file gives.

    A mean image has the shape (1, C, H, W) in a .binaryproto; a .npy may also hold (C, H, W) or (C,).

    Raises:
        WeightsError: the file is missing, truncated, or neither a BlobProto nor an array of numbers.
    """
    path = os.fspath(path)
    if _is_npy(path):
        return _read_npy(path)
    proto = read_message(path, caffe_pb2.BlobProto(), "a .binaryproto")
    try:
        return blob_to_array(proto).copy()
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def write_mean(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an array as .binaryproto; (C, H, W) becomes (1, C, H, W), as Caffe expects of a mean image."""
    proto = caffe_pb2.BlobProto()
    array_to_blob(array[np.newaxis] if array.ndim == 3 else array, proto)
    write_message(path, proto)


def _is_npy(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(len(_NPY_SIGNATURE)) == _NPY_SIGNATURE
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_npy(path: str) -> np.ndarray:
    try:
        # Mapped, so that the header's claim is held against the file's size before anything is allocated.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header makes NumPy raise nearly anything, tokenize.TokenError say
        raise WeightsError(f"{path}: damaged, or not a .npy of numbers: {error}") from error
    if array.dtype.kind not in "fiu":
        raise WeightsError(f"{path}: a mean is made of numbers, this .npy holds {array.dtype}")
    return np.array(array, dtype=np.float64 if array.dtype == np.float64 else np.float32)
