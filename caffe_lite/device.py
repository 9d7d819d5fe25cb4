"""Where arrays live and which array module computes on them: the CPU, or one GPU.

``set_mode_cpu``, ``set_mode_gpu`` and ``set_device`` choose the device of the nets built from then
on, as in pycaffe. A net keeps the device that it was built on. The process has one stream of random
numbers, seeded by ``set_random_seed``; it lives on the host, and whatever draws on a GPU (Dropout)
takes a key from it, so that both devices see the same draws.

``set_compute`` says how a GPU multiplies matrices of float32 numbers:
    "float32"  as they are; the default
    "tf32"     factors rounded to 11 significant bits, products summed in float32
    "bf16"     factors rounded to 8 significant bits, products summed in float32
A convolution then errs by about 5e-4 (tf32) or 4e-3 (bf16) of its largest output, where float32 errs by 4e-6: the
table in docs/gpu.md, measured on the host with rounded factors and not on a device. A convolution that cuBLAS would
not do faster keeps float32, and so do matrices of float64 numbers and all that is no matrix product.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from caffe_lite.errors import DeviceError, did_you_mean

COMPUTE = ("float32", "tf32", "bf16")
INSUFFICIENT_DRIVER, NO_DEVICE = 35, 100  # cudaError_t
FITTING = "pip install 'caffe-lite[cuda12]' or 'caffe-lite[cuda13]', whichever CUDA the driver knows (see nvidia-smi)"


class Device:
    """The CPU (``is_gpu`` False, ``xp`` numpy) or a GPU (``is_gpu`` True, ``xp`` cupy).

    ``compute``: how it multiplies float32 matrices, one of ``COMPUTE``; nets see a change at their next forward.
    """

    def __init__(self, xp: Any = np, is_gpu: bool = False, index: int = 0) -> None:
        self.xp = xp
        self.is_gpu = is_gpu
        self.index = index
        self.compute = "float32"
        self._workspaces = threading.local()  # nets may run in several threads at once

    def __repr__(self) -> str:
        return f"gpu:{self.index}" if self.is_gpu else "cpu"

    @property
    def rng(self) -> np.random.Generator:
        """The process's random stream (the same object for every device)."""
        return _random.generator

    def workspace(self, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """Scratch array of ``shape``, shared by all in this thread who ask for ``name``; its contents are undefined.

        It grows and never shrinks, so that nothing is allocated in the steady state.
        """
        dtype = np.dtype(dtype)
        needed = math.prod(shape) * dtype.itemsize
        buffers = vars(self._workspaces)
        buffer = buffers.get(name)
        if buffer is None or buffer.nbytes < needed:
            buffer = buffers[name] = None  # free the old one before asking for the new
            buffer = buffers[name] = self.xp.empty(needed, dtype="uint8")
        return buffer[:needed].view(dtype).reshape(shape)

    def make_current(self) -> None:
        """Send what this thread computes from now on to this GPU: CUDA has one that is current for each thread."""
        if self.is_gpu:
            self.xp.cuda.Device(self.index).use()

    def synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        if self.is_gpu:
            self.xp.cuda.get_current_stream().synchronize()

    def free_memory(self) -> int:
        """Bytes that can still be allocated on this GPU: CUDA's, and those that CuPy's pool holds unused."""
        with self.xp.cuda.Device(self.index) as here:
            pool = self.xp.get_default_memory_pool()
            free = int(here.mem_info[0]) + int(pool.free_bytes())
            limit = int(pool.get_limit())  # CUPY_GPU_MEMORY_LIMIT; 0 is none
            return min(free, limit - int(pool.used_bytes())) if limit else free

    def to_host(self, array: Any) -> np.ndarray:
        """A device array as NumPy: a copy from a GPU, itself on the CPU."""
        return array.get() if self.is_gpu else array


class _Random:
    def __init__(self) -> None:
        self.generator = np.random.default_rng()


_random = _Random()
CPU = Device()
_current = CPU
_gpu_index = 0
_compute = "float32"


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


def set_compute(compute: str) -> None:
    """Multiply float32 matrices on GPUs in "float32", "tf32" or "bf16" from now on: see the module.

    Takes effect at once if a GPU is in use, on the nets that were built on it too.

    Raises:
        DeviceError: another word, or a GPU before compute capability 8.0, which has neither tf32 nor bf16.
    """
    global _compute
    if compute not in COMPUTE:
        choices = ", ".join(COMPUTE)
        raise DeviceError(f"compute must be one of {choices}, got {compute!r}{did_you_mean(compute, COMPUTE)}")
    if _current.is_gpu:
        _check_compute(compute, _current.index)
        _current.compute = compute
    _compute = compute


def gpu_count() -> int:
    """How many GPUs there are; at least one.

    Raises:
        DeviceError: CuPy is not installed, the driver is too old for it, or there is no CUDA device.
    """
    runtime = _cupy().cuda.runtime
    try:
        count = int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        raise DeviceError(
            f"GPU mode: {_no_device(runtime, error)}, or compute on the CPU (no --gpu; set_mode_cpu())"
        ) from error
    if count < 1:
        raise DeviceError("GPU mode: CUDA finds no device; compute on the CPU (no --gpu; set_mode_cpu())")
    return count


def _no_device(runtime: Any, error: Any) -> str:
    """Why CUDA counts no devices, and what to do about it."""
    status = getattr(error, "status", None)
    if status == INSUFFICIENT_DRIVER:
        built, driver = (_version(v) for v in (runtime.runtimeGetVersion(), runtime.driverGetVersion()))
        if driver == "0.0":
            return f"no NVIDIA driver is loaded ({error}); install one: nvidia-smi, which comes with it, lists the GPUs"
        return (
            f"CuPy was built for CUDA {built}, but this machine's driver knows CUDA {driver} at most ({error}); "
            f"install a newer NVIDIA driver, or the CuPy that fits: {FITTING}"
        )
    if status == NO_DEVICE:
        return (
            f"CUDA finds no device ({error}); see that nvidia-smi lists one and CUDA_VISIBLE_DEVICES does not hide it"
        )
    return f"CUDA finds no usable device ({error}); see what nvidia-smi says"


def _version(number: int) -> str:
    """12040 is CUDA 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"


def gpu_properties(index: int) -> dict[str, Any]:
    """What CUDA says of GPU ``index``: the fields of cudaDeviceProp by name; errors as of ``set_mode_gpu``."""
    _check_gpu(index)
    return dict(_cupy().cuda.runtime.getDeviceProperties(index))


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise DeviceError(
                f"GPU mode needs CuPy, which is not installed: {FITTING}, or compute on the CPU (no --gpu; "
                "set_mode_cpu())"
            ) from error
        why = f"CuPy is installed, but cannot be loaded ({_first_line(error)})"
        raise DeviceError(f"GPU mode: {why}; {FITTING}") from error
    return cupy


def _check_gpu(index: int) -> None:
    count = gpu_count()
    if not 0 <= index < count:
        raise DeviceError(f"GPU {index} does not exist: this machine has {count} (numbered from 0)")


def _check_compute(compute: str, index: int) -> None:
    found = gpu_properties(index)
    if compute != "float32" and found["major"] < 8:
        raise DeviceError(
            f"compute {compute!r} needs compute capability 8.0 or more, GPU {index} has {found['major']}."
            f"{found['minor']}: use set_compute('float32')"
        )


def _open_gpu(index: int) -> Device:
    _check_gpu(index)
    _check_compute(_compute, index)
    opened = Device(_cupy(), is_gpu=True, index=index)
    opened.compute = _compute
    _try_out(opened)
    return opened


def _try_out(gpu: Device) -> None:
    """Compile and run something, and open cuBLAS: what fails is said now, not by the first layer of a net.

    CuPy's wheels bring neither cuBLAS nor NVRTC, which compiles; they are looked for when first used.

    Raises:
        DeviceError: one of them is missing or unfit for this GPU, or nothing can be done on it.
    """
    try:
        gpu.make_current()
        gpu.xp.cuda.device.get_cublas_handle()
        float(gpu.xp.ones(()) + 1)
    except MemoryError as error:
        raise DeviceError(f"GPU {gpu.index} is out of memory ({error}): see in nvidia-smi who uses it") from error
    except Exception as error:  # whichever library it comes from
        raise DeviceError(
            f"GPU {gpu.index} is there, but CuPy cannot compute on it ({_first_line(error)}); CuPy needs CUDA's "
            f"cuBLAS, NVRTC and headers, which come with it by {FITTING}; see also in nvidia-smi whether another "
            "process has the GPU for itself"
        ) from error


def _first_line(error: BaseException) -> str:
    """What ``error`` says, without the lines of details that follow."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
