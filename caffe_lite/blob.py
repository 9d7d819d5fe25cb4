"""Blob: an N-dimensional array and its gradient, the currency between layers.

``data`` and ``diff`` are arrays of the net's device, C-contiguous, and alias the blob. Memory grows
and never shrinks, so pointers stay put unless a larger shape is asked for; ``diff`` is allocated
when first used, which a TEST net never does.

On the CPU users hold the very same Blob. On a GPU they hold a :class:`HostBlob`, whose ``data`` is a
NumPy copy kept in step as pycaffe's synced memory does: read ``blob.data`` again after a forward to
see its result, write into it and the next forward sees what was written.
"""

from __future__ import annotations

import functools
import math
import operator
import os
import sys
from typing import Any

import numpy as np

from caffe_lite.device import CPU, Device
from caffe_lite.errors import DeviceError, ShapeError

MAX_AXES = 32
MAX_COUNT = (1 << 31) - 1  # elements of a blob, as in Caffe


@functools.cache
def _host_memory() -> int:
    """Bytes of memory that this machine has; without limit where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


class Storage:
    """Flat memory behind one or more blobs, with a host copy where the device is a GPU."""

    def __init__(self, device: Device, dtype: np.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self.flat: Any = None
        self._host: np.ndarray | None = None
        self.host_is_newer = False

    def reserve(self, count: int) -> None:
        """Make room for ``count`` elements; new memory is zero, what was there is lost if it grows."""
        if self.flat is None or self.flat.size < count:
            self.flat = None
            size = max(count, 1) * self.dtype.itemsize
            if not self.device.is_gpu and size > _host_memory():  # the system would say yes now, and kill us later
                raise ShapeError(f"a blob of {size} bytes is larger than this machine's memory, {_host_memory()} bytes")
            self.flat = self.device.xp.zeros(max(count, 1), dtype=self.dtype)
            self._host, self.host_is_newer = None, False

    def host(self) -> np.ndarray:
        """The memory as NumPy: itself on the CPU; on a GPU a copy, which the next use on the device uploads."""
        if not self.device.is_gpu:
            return self.flat
        if not self.host_is_newer:
            fresh = self.device.to_host(self.flat)
            if self._host is None:
                self._host = fresh
            else:
                self._host[...] = fresh  # the arrays that users hold stay the blob's
            self.host_is_newer = True
        assert self._host is not None
        return self._host

    def upload(self) -> None:
        """Send the host copy, into which a user may have written, to the device."""
        self.flat.set(self._host)
        self.host_is_newer = False


class Blob:
    """``data`` and ``diff`` of one shape."""

    def __init__(self, shape: tuple[int, ...] = (), dtype: Any = "float32", device: Device = CPU) -> None:
        self.device = device
        self.dtype = np.dtype(dtype)
        self._data = Storage(device, self.dtype)
        self._diff = Storage(device, self.dtype)
        self._views: dict[str, tuple[Any, Any]] = {}
        self.shape: tuple[int, ...] = ()
        self.count = 1
        self.reshape(shape)

    def __repr__(self) -> str:
        return f"Blob(shape={self.shape}, dtype={self.dtype}, device={self.device})"

    def reshape(self, *shape: Any) -> None:
        """``reshape(2, 3)`` or ``reshape((2, 3))``: memory is kept if it is large enough.

        Raises:
            ShapeError: a negative size, more than 32 axes, or more than 2^31 - 1 elements.
        """
        if len(shape) == 1 and not hasattr(shape[0], "__index__"):
            shape = tuple(shape[0])
        shape = tuple(operator.index(s) for s in shape)
        if shape == self.shape:
            return
        if len(shape) > MAX_AXES or any(s < 0 for s in shape):
            raise ShapeError(f"a blob has at most {MAX_AXES} axes of size >= 0, got shape {shape}")
        count = math.prod(shape)
        if count > MAX_COUNT:
            raise ShapeError(f"a blob has at most 2^31 - 1 elements, got shape {shape}")
        self.shape, self.count = shape, count
        self._views.clear()

    @property
    def data(self) -> Any:
        """Values, an array of ``shape`` on the blob's device."""
        return self._view("data", self._data)

    @property
    def diff(self) -> Any:
        """Gradient of the loss with respect to ``data``, the same shape."""
        return self._view("diff", self._diff)

    @property
    def diff_in_use(self) -> bool:
        """Has anybody asked for ``diff``? Until then it takes no memory and is zero."""
        return self._diff.flat is not None

    def _view(self, name: str, storage: Storage) -> Any:
        if storage.host_is_newer:
            storage.upload()
        cached = self._views.get(name)
        if cached is not None and cached[0] is storage.flat:
            return cached[1]
        storage.reserve(self.count)
        view = storage.flat[: self.count].reshape(self.shape)
        self._views[name] = (storage.flat, view)
        return view

    @property
    def storages(self) -> tuple[Storage, Storage]:
        """The memory behind ``data`` and ``diff``; blobs that share it have the same."""
        return self._data, self._diff

    @property
    def on_device(self) -> Blob:
        """This blob itself; of a HostBlob the blob behind it."""
        return self

    def host_array(self, name: str) -> np.ndarray:
        """``"data"`` or ``"diff"`` as NumPy (see :meth:`Storage.host`)."""
        storage = self._data if name == "data" else self._diff
        storage.reserve(self.count)
        return storage.host()[: self.count].reshape(self.shape)

    def keep_data_in(self, storage: Storage) -> None:
        """Let ``data`` live in ``storage``, which blobs needed at other times may use too; values are not moved."""
        self._data = storage

    def share_data(self, other: Blob) -> None:
        """Use the memory of ``other.data``; both must hold as many elements."""
        self._check_sharing(other)
        other._data.reserve(other.count)
        self._data = other._data

    def share_diff(self, other: Blob) -> None:
        """Use the memory of ``other.diff``; both must hold as many elements."""
        self._check_sharing(other)
        self._diff = other._diff

    def _check_sharing(self, other: Blob) -> None:
        if self.count != other.count:
            raise ShapeError(f"cannot share memory between shapes {self.shape} and {other.shape}: counts differ")

    def canonical_axis(self, axis: int) -> int:
        """``axis`` in ``[-n, n)`` as one in ``[0, n)``."""
        n = len(self.shape)
        if not -n <= axis < n:
            raise ShapeError(f"axis {axis} is outside [{-n}, {n}) of a blob of shape {self.shape}")
        return axis % n

    def count_of(self, start: int, end: int | None = None) -> int:
        """Product of ``shape[start:end]``; 1 for an empty range."""
        return math.prod(self.shape[start:end])

    def _legacy(self, axis: int) -> int:
        if len(self.shape) > 4:
            raise ShapeError(f"num, channels, height and width are for blobs of up to 4 axes, not {self.shape}")
        return self.shape[axis] if axis < len(self.shape) else 1

    @property
    def num(self) -> int:
        return self._legacy(0)

    @property
    def channels(self) -> int:
        return self._legacy(1)

    @property
    def height(self) -> int:
        return self._legacy(2)

    @property
    def width(self) -> int:
        return self._legacy(3)

    @property
    def _gpu_data_ptr(self) -> int:
        return self._gpu_pointer("data")

    @property
    def _gpu_diff_ptr(self) -> int:
        return self._gpu_pointer("diff")

    def _gpu_pointer(self, name: str) -> int:
        """The address of ``data`` or ``diff`` on the GPU, for pycaffe's users of PyCUDA and the like."""
        if not self.device.is_gpu:
            raise DeviceError(f"this blob lives on the CPU, its {name} has no address on a GPU")
        return int(getattr(self, name).data.ptr)


FORWARDED = {
    "shape", "count", "num", "channels", "height", "width", "dtype",
    "canonical_axis", "count_of", "_gpu_data_ptr", "_gpu_diff_ptr",
}  # fmt: skip


class HostBlob:
    """What users and Python layers see of a blob on a GPU: the same interface, NumPy arrays."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob

    def __repr__(self) -> str:
        return repr(self._blob)

    @property
    def data(self) -> np.ndarray:
        return self._blob.host_array("data")

    @property
    def diff(self) -> np.ndarray:
        return self._blob.host_array("diff")

    @property
    def on_device(self) -> Blob:
        return self._blob

    def reshape(self, *shape: Any) -> None:
        self._blob.reshape(*shape)

    def __getattr__(self, name: str) -> Any:
        if name in FORWARDED:
            return getattr(self._blob, name)
        raise AttributeError(f"a blob has no attribute {name!r}")


class BlobVec(list):
    """The parameter blobs of a layer: a list that can make blobs of the layer's device and dtype.

    ``on_host``: they are seen as NumPy even on a GPU, as by a Python layer.
    """

    def __init__(self, dtype: Any = "float32", device: Device = CPU, on_host: bool = False) -> None:
        super().__init__()
        self.dtype = dtype
        self.device = device
        self.on_host = on_host

    def add_blob(self, *shape: Any) -> None:
        """Append a zero-filled blob of ``shape``."""
        blob = Blob((), self.dtype, self.device)
        blob.reshape(*shape)
        self.append(HostBlob(blob) if self.on_host and self.device.is_gpu else blob)
