"""Where arrays live and which array module computes on them: the CPU, or one GPU.

``set_mode_cpu``, ``set_mode_gpu`` and ``set_device`` choose the device of the nets built from then
on, as in pycaffe. A net keeps the device that it was built on. The process has one stream of random
numbers, seeded by ``set_random_seed``; it lives on the host, and whatever draws on a GPU (Dropout)
takes a key from it, so that both devices see the same draws.

``set_compute`` says how a GPU multiplies matrices of float32 numbers:
    "float32"  as they are; the default
    "tf32"     factors rounded to 11 significant bits, products summed in float32
    "bf16"     factors rounded to 8 significant bits, products summed in float32
What that does to a net's outputs was not yet measured. Matrices of float64 numbers, and all that is no matrix
product, are not touched.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from caffe_lite.errors import DeviceError


class Device:
    """The CPU (``is_gpu`` False, ``xp`` numpy) or a GPU (``is_gpu`` True, ``xp`` cupy).

    ``compute``: how it multiplies float32 matrices, one of ``COMPUTE``; nets see a change at their next forward.
    """

    def __init__(self, xp: Any = np, is_gpu: bool = False, index: int = 0) -> None:
        self.xp = xp
        self.is_gpu = is_gpu
        self.index = index
        self.compute = "float32"
        self._workspaces: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"gpu:{self.index}" if self.is_gpu else "cpu"

    @property
    def rng(self) -> np.random.Generator:
        """The process's random stream (the same object for every device)."""
        return _random.generator

    def workspace(self, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """Scratch array of ``shape``, shared by all who ask for ``name``; its contents are undefined.

        It grows and never shrinks, so that nothing is allocated in the steady state.
        """
        dtype = np.dtype(dtype)
        needed = math.prod(shape) * dtype.itemsize
        buffer = self._workspaces.get(name)
        if buffer is None or buffer.nbytes < needed:
            buffer = self._workspaces[name] = None  # free the old one before asking for the new
            buffer = self._workspaces[name] = self.xp.empty(needed, dtype="uint8")
        return buffer[:needed].view(dtype).reshape(shape)

    def to_host(self, array: Any) -> np.ndarray:
        """A device array as NumPy: a copy from a GPU, itself on the CPU."""
        if not self.is_gpu:
            return array
        return array.get() if hasattr(array, "get") else np.array(array)


class _Random:
    def __init__(self) -> None:
        self.generator = np.random.default_rng()


_random = _Random()
CPU = Device()
_current = CPU
_gpu_index = 0


def current() -> Device:
    """The device on which the next net is built."""
    return _current


def use(device: Device) -> None:
    """Build nets on ``device`` from now on."""
    global _current
    _current = device


def set_random_seed(seed: int) -> None:
    """Start the process's random stream anew from ``seed`` (fillers, dropout)."""
    _random.generator = np.random.default_rng(seed)


def random_state() -> dict[str, Any]:
    """The place of the process's random stream, fit for JSON."""
    return dict(_random.generator.bit_generator.state)


def set_random_state(state: dict[str, Any]) -> None:
    """Go back to a ``random_state()``; ValueError if it is none."""
    _random.generator.bit_generator.state = state


def set_mode_cpu() -> None:
    """Build nets on the CPU from now on."""
    use(CPU)


def set_mode_gpu() -> None:
    """Build nets on the GPU chosen by ``set_device`` (0 if none was) from now on.

    Raises:
        DeviceError: CuPy is not installed, there is no CUDA device, or not so many.
    """
    use(_open_gpu(_gpu_index))


def set_device(index: int) -> None:
    """Choose GPU ``index`` for ``set_mode_gpu``; takes effect at once if a GPU is in use."""
    global _gpu_index
    if index < 0:
        raise DeviceError(f"set_device({index}): a device number is >= 0; use set_mode_cpu() for the CPU")
    _gpu_index = index
    if _current.is_gpu:
        set_mode_gpu()


def gpu_count() -> int:
    """How many GPUs there are; at least one.

    Raises:
        DeviceError: CuPy is not installed, or there is no CUDA device.
    """
    cupy = _cupy()
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(f"GPU mode: CUDA finds no usable device ({error}); call set_mode_cpu()") from error


def gpu_properties(index: int) -> dict[str, Any]:
    """What CUDA says of GPU ``index``: the fields of cudaDeviceProp by name; errors as of ``set_mode_gpu``."""
    _check_gpu(index)
    return dict(_cupy().cuda.runtime.getDeviceProperties(index))


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            "GPU mode needs CuPy, which is not installed: pip install 'caffe-lite[cuda12]' or 'caffe-lite[cuda13]' "
            "to match the driver that nvidia-smi names, or call set_mode_cpu()"
        ) from error
    return cupy


def _check_gpu(index: int) -> None:
    count = gpu_count()
    if not 0 <= index < count:
        raise DeviceError(f"GPU {index} does not exist: this machine has {count} (numbered from 0)")


def _open_gpu(index: int) -> Device:
    _check_gpu(index)
    cupy = _cupy()
    cupy.cuda.Device(index).use()
    return Device(cupy, is_gpu=True, index=index)
