"""Compile the ``.cu`` file that sits beside a layer, and launch its kernels by name.

Compilation happens at first launch, once for each dtype, through CuPy's NVRTC: importing a layer
needs no GPU, and there is no binary to match to a device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from caffe_lite.errors import DeviceError

THREADS = 512  # a block, as Caffe's CAFFE_CUDA_NUM_THREADS
C_TYPES = {"float32": "float", "float64": "double"}
PRELUDE = Path(__file__).with_name("prelude.cuh")


class Kernels:
    """Kernels of ``<layer>.cu``: ``Kernels(__file__)("roi_pool_forward", n, ..., dtype=self.dtype)``."""

    def __init__(self, layer_file: str) -> None:
        self.source = Path(layer_file).with_suffix(".cu")
        self._modules: dict[str, Any] = {}
        self._functions: dict[tuple[str, str, int], Any] = {}

    def text(self, ctype: str) -> str:
        """The whole translation unit for ``ctype`` "float" or "double"."""
        body = self.source.read_text(encoding="utf-8")
        return f'typedef {ctype} Dtype;\n{PRELUDE.read_text(encoding="utf-8")}\n#line 1 "{self.source.name}"\n{body}'

    def __call__(self, name: str, n: int, *args: Any, dtype: Any) -> None:
        """Launch kernel ``name`` over ``n`` elements; ``args`` follow ``n`` in its parameter list.

        Arrays are passed by address and must be C-contiguous; an int or bool becomes a C int, a
        float a ``Dtype``.
        """
        if n > 0:
            self.tiles(name, ((n + THREADS - 1) // THREADS, 1, 1), THREADS, n, *args, dtype=dtype)

    def tiles(self, name: str, grid: tuple[int, int, int], threads: int, *args: Any, dtype: Any) -> None:
        """Launch ``grid`` blocks of ``threads`` threads each, as a kernel with shared memory is written for."""
        if min(grid) <= 0:
            return
        dtype = np.dtype(dtype)
        self._function(name, C_TYPES[dtype.name])(grid, (threads,), tuple(c_argument(a, dtype) for a in args))

    def _function(self, name: str, ctype: str) -> Any:
        """The compiled kernel, loaded on the current GPU."""
        import cupy

        key = name, ctype, cupy.cuda.runtime.getDevice()
        if key not in self._functions:
            if ctype not in self._modules:
                self._modules[ctype] = cupy.RawModule(code=self.text(ctype), options=("--std=c++17",))
            try:
                self._functions[key] = self._modules[ctype].get_function(name)
            except cupy.cuda.compiler.CompileException as error:
                raise DeviceError(
                    f"{self.source.name} does not compile for GPU {key[2]}: {error}\nits compiler, NVRTC, may be older "
                    "than the GPU: install a newer CUDA toolkit, or a newer CuPy"
                ) from error
        return self._functions[key]


def c_argument(value: Any, dtype: np.dtype) -> Any:
    """``value`` with the width that the kernel's signature expects."""
    if isinstance(value, (bool, int, np.bool_, np.integer)):
        if not -(2**31) <= int(value) < 2**31:
            raise OverflowError(f"kernel argument {value} does not fit a C int")
        return np.int32(value)
    if isinstance(value, (float, np.floating)):
        return dtype.type(value)
    if not value.flags.c_contiguous:
        raise ValueError(f"kernel argument of shape {value.shape} is not C-contiguous")
    return value
