"""Run the GPU half of a layer without a GPU: its .cu, compiled by g++, on NumPy arrays.

A grid-stride kernel gives the same result for any launch shape, so ``cuda_on_host.h`` lets g++
compile the very text that NVRTC would get, and :func:`launch` takes the place of
``caffe_lite.cuda.Kernels.__call__``. A layer on ``emulated_device()`` then runs its ``*_gpu``
methods. Kernels with shared memory, launched by ``Kernels.tiles`` with the blocks that they are
written for, run each block's threads as fibers that meet at ``__syncthreads()``, and those of a warp at
``__syncwarp()``, ``__match_any_sync()`` and the like. Each launch is checked harder than a GPU would:

* number, kind and dtype of the arguments against the parameter list in the .cu; the grid against CUDA's limits;
* arrays C-contiguous, and not read-only where the kernel writes;
* nothing written outside an array (a margin on both sides); reads outside it give NaN, or a huge int;
* all threads of a block reach the same barriers, and all of a warp the same warp intrinsics (whole warps only);
* shared memory is NaN (or -1) when a block begins, whatever the one before it left there;
* the same bits when the threads run in another order: none depends on what another one writes, but
  for what a barrier or a warp intrinsic separates.

What this cannot show: speed, how the GPU contracts a * b + c, and a ``__syncwarp()`` that is missing beside a vote or
a match: here memory is in order after those, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caffe_lite import cuda, gpu_gemm
from caffe_lite.device import Device
from tests import strict_device
from tests.rounding import rounded

HEADER = Path(__file__).with_suffix(".h")
BUILD = Path(__file__).resolve().parent.parent / "build" / "cuda_on_host"
FLAGS = ["-O1", "-ffp-contract=off", "-std=c++17", "-shared", "-fPIC", "-w"]
GEMM_ROWS = 32  # of a product, added at a time
MARGIN = 1024  # elements on each side of an array, filled with a value that shows
DTYPES = {
    "float": "float32",
    "double": "float64",
    "int": "int32",
    "unsigned int": "uint32",
    "unsigned": "uint32",
    "long long": "int64",
    "unsigned long long": "uint64",
    "short": "int16",
    "unsigned short": "uint16",
    "char": "int8",
    "signed char": "int8",
    "unsigned char": "uint8",
    "bool": "bool",
}
TYPES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: ``const Dtype* x`` is (x, float32, pointer, const)."""

    name: str
    dtype: str
    pointer: bool
    const: bool


def has_compiler() -> bool:
    return shutil.which("g++") is not None


class EmulatedDevice(Device):
    """A GPU whose arrays are NumPy's, with CuPy's manners (tests/strict_device.py)."""

    def __init__(self) -> None:
        super().__init__(strict_device.xp, is_gpu=True)

    def free_memory(self) -> int:
        return sys.maxsize


@contextlib.contextmanager
def emulated_device() -> Iterator[Device]:
    """A device whose layers take their GPU half; kernels run on the host while the context lasts."""
    originals = cuda.Kernels.__call__, cuda.Kernels.tiles, gpu_gemm._gemm
    cuda.Kernels.__call__, cuda.Kernels.tiles, gpu_gemm._gemm = launch, launch_tiles, gemm  # type: ignore[method-assign]
    try:
        yield EmulatedDevice()
    finally:
        cuda.Kernels.__call__, cuda.Kernels.tiles, gpu_gemm._gemm = originals  # type: ignore[method-assign]


def gemm(compute: str, a: Any, b: Any, out: Any, add: bool) -> None:
    """cuBLAS's part of gpu_gemm.multiply, with NumPy: factors rounded to ``compute``, products summed in float32.

    It is as choosy about operands. In float32 it needs no second array of the size of ``out``, as cuBLAS does not.
    """
    for array in (a, b, out):
        gpu_gemm.operand(array)
    a, b, out = strict_device.laid_open((a, b, out))
    a, b = rounded(a, compute), rounded(b, compute)
    if not add:
        np.matmul(a, b, out=out)
        return
    for first in range(0, out.shape[-2], GEMM_ROWS):
        rows = (..., slice(first, first + GEMM_ROWS), slice(None))
        out[rows] += a[rows] @ b


def launch(self: cuda.Kernels, name: str, n: int, *args: Any, dtype: Any) -> None:
    """Kernels.__call__ on the host, twice: one thread, then several in descending order."""
    if n > 0:
        _launch_twice(self, name, (n, *args), dtype, ((1, 1, 1), 1), ((2, 1, 1), 3))


def launch_tiles(
    self: cuda.Kernels, name: str, grid: tuple[int, int, int], threads: int, *args: Any, dtype: Any
) -> None:
    """Kernels.tiles on the host, twice: threads and blocks in ascending, then in descending order."""
    fits = grid[0] < 2**31 and max(grid[1:]) < 2**16 and threads <= 1024
    assert fits, f"{name}: no GPU launches a grid of {grid} blocks of {threads} threads"
    if min(grid) > 0:
        _launch_twice(self, name, args, dtype, (grid, threads), (grid, threads))


def _launch_twice(self: cuda.Kernels, name: str, values: tuple[Any, ...], dtype: Any, *shapes: Any) -> None:
    values = strict_device.laid_open(values)
    dtype = np.dtype(dtype)
    ctype = cuda.C_TYPES[dtype.name]
    text = self.text(ctype)
    where = f"{self.source.name}: {name}"
    parameters = signatures(text, ctype).get(name)
    if parameters is None:
        raise AssertionError(f"{where}: no such kernel; there are {sorted(signatures(text, ctype))}")
    if len(values) != len(parameters):
        names = ", ".join(p.name for p in parameters)
        raise AssertionError(f"{where}: called with {len(values)} arguments, takes {len(parameters)}: {names}")
    for parameter, value in zip(parameters, values, strict=True):
        check_argument(where, parameter, value)
        cuda.c_argument(value, dtype)  # what Kernels.tiles does with it must work too

    library = build(text, ctype, self.source.stem)
    arrays = [v for v in values if isinstance(v, np.ndarray)]
    alone, crowd = Copies(arrays), Copies(arrays)
    for copies, (grid, threads), descending in (alone, shapes[0], False), (crowd, shapes[1], True):
        place = run(library, name, zip(parameters, values, strict=True), copies, grid, threads, descending)
        if place:
            raise AssertionError(f"{where}: some threads end or go elsewhere while others wait at {place}")
    for parameter, value in zip(parameters, values, strict=True):
        if parameter.pointer:
            what = f"{where}: {parameter.name}, an array of shape {value.shape}"
            if not alone.margins_are_intact(value):
                raise AssertionError(f"{what}: written outside its bounds")
            if alone[value].tobytes() != crowd[value].tobytes():
                raise AssertionError(f"{what}: the result depends on the order in which threads run")
            if not parameter.const:
                value[...] = alone[value]


def check_argument(where: str, parameter: Parameter, value: Any) -> None:
    """Would the GPU read ``value`` as the kernel's signature means it?"""
    where = f"{where}: argument {parameter.name}"
    if parameter.pointer:
        if not isinstance(value, np.ndarray):
            raise AssertionError(f"{where}: a pointer to {parameter.dtype}, got {value!r}")
        if value.dtype != parameter.dtype:
            raise AssertionError(f"{where}: a pointer to {parameter.dtype}, got an array of {value.dtype}")
        if not value.flags.c_contiguous:
            raise AssertionError(f"{where}: array of shape {value.shape} is not C-contiguous")
        if not (parameter.const or value.flags.writeable):
            raise AssertionError(f"{where}: the kernel may write, the array is read-only")
    elif isinstance(value, (bool, int, np.bool_, np.integer)):
        if parameter.dtype != "int32":
            raise AssertionError(f"{where}: an integer is sent as a C int, the kernel expects {parameter.dtype}")
    elif isinstance(value, (float, np.floating)):
        if not parameter.dtype.startswith("float"):
            raise AssertionError(f"{where}: a float is sent as a Dtype, the kernel expects {parameter.dtype}")
    else:
        raise AssertionError(f"{where}: the kernel expects one {parameter.dtype}, got {type(value).__name__}")


class Copies:
    """Private copies of arrays, a margin around each; arrays that overlap still do."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.spans: list[tuple[int, int, np.ndarray]] = []  # [first, last) address, copy with margins
        for first, last, dtype in sorted((a.ctypes.data, a.ctypes.data + a.nbytes, a.dtype.name) for a in arrays):
            if self.spans and first < self.spans[-1][1]:
                first = self.spans[-1][0]
                last = max(last, self.spans.pop()[1])
            if last > first:
                self.spans.append((first, last, self._copy(first, last, np.dtype(dtype))))

    @staticmethod
    def _copy(first: int, last: int, dtype: np.dtype) -> np.ndarray:
        outside: Any = np.nan if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max
        margin = np.full(MARGIN // dtype.itemsize, outside, dtype).view(np.uint8)
        body = np.empty(last - first, np.uint8)
        ctypes.memmove(body.ctypes.data, first, last - first)
        return np.concatenate([margin, body, margin])

    def _find(self, array: np.ndarray) -> tuple[np.ndarray, int]:
        address = array.ctypes.data
        first, _, copy = next(span for span in self.spans if span[0] <= address < span[1])
        return copy, MARGIN + address - first

    def __getitem__(self, array: np.ndarray) -> np.ndarray:
        """The copy of ``array``."""
        if not array.size:
            return array
        copy, start = self._find(array)
        return copy[start : start + array.nbytes].view(array.dtype).reshape(array.shape)

    def margins_are_intact(self, array: np.ndarray) -> bool:
        if not array.size:
            return True
        copy = self._find(array)[0]
        fresh = self._copy(0, 0, array.dtype)
        return copy[:MARGIN].tobytes() + copy[-MARGIN:].tobytes() == fresh.tobytes()


def run(
    library: Any, name: str, arguments: Any, copies: Copies, grid: tuple[int, int, int], threads: int, descending: bool
) -> str:
    """Run every thread of a launch; "", or the call at which some waited in vain for the rest of a block or warp."""
    scalars = {"int32": ctypes.c_int, "float32": ctypes.c_float, "float64": ctypes.c_double}
    packed = [
        ctypes.c_void_p(copies[value].ctypes.data) if parameter.pointer else scalars[parameter.dtype](value)
        for parameter, value in arguments
    ]
    function = getattr(library, f"launch_{name}")
    function.restype = ctypes.c_char_p
    return (function(*grid, threads, int(descending), *packed) or b"").decode()


def launchers(text: str, ctype: str) -> str:
    """C++ that calls each kernel of a .cu for every thread: ``launch_NAME``."""
    barriers = str("__sync" in text or "_sync(" in text).lower()
    made = []
    for name, parameters in signatures(text, ctype).items():
        declared = ", ".join(f"{TYPES[p.dtype]}{'*' * p.pointer} {p.name}" for p in parameters)
        passed = ", ".join(p.name for p in parameters)
        made.append(
            f'extern "C" const char* launch_{name}(int gx, int gy, int gz, int threads, int descending, {declared}) {{\n'
            f"  return cuda_on_host::launch(Dim{{gx, gy, gz}}, threads, {barriers}, descending, "
            f"[&] {{ {name}({passed}); }});\n}}\n"
        )
    return "".join(made)


@functools.cache
def signatures(text: str, ctype: str) -> dict[str, list[Parameter]]:
    """The parameters of every ``extern "C" __global__`` kernel of a .cu text, by name."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    found = {}
    head = r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?'
    for match in re.finditer(head + r"(\w+)\s*\(([^)]*)\)", text):
        found[match[1]] = [_parameter(p, ctype) for p in match[2].split(",")]
    return found


def _parameter(text: str, ctype: str) -> Parameter:
    match = re.fullmatch(r"(const )?([\w ]+?) ?(\*?) ?(?:__restrict__ )?(\w+)", " ".join(text.split()))
    if match is None:
        raise AssertionError(f"kernel parameter {text.strip()!r} is not of the form [const] TYPE[*] NAME")
    base = match[2].replace("Dtype", ctype)
    if base not in DTYPES:
        raise AssertionError(f"kernel parameter {text.strip()!r}: type {base!r} has no NumPy twin")
    return Parameter(match[4], DTYPES[base], bool(match[3]), bool(match[1]))


@functools.cache
def build(text: str, ctype: str, stem: str) -> ctypes.CDLL:
    """The shared library of a .cu text; kept on disk by content, safe with several test processes."""
    source = HEADER.read_text(encoding="utf-8") + text + "\n" + launchers(text, ctype)
    key = hashlib.sha256((" ".join(FLAGS) + source).encode()).hexdigest()[:16]
    built = BUILD / f"{stem}-{key}.so"
    if not built.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        fresh = built.with_name(f"{built.name}.{os.getpid()}")
        command = ["g++", *FLAGS, "-x", "c++", "-", "-o", str(fresh)]
        result = subprocess.run(command, input=source, capture_output=True, text=True)
        if result.returncode:
            raise AssertionError(f"{stem}.cu does not compile on the host:\n{result.stderr}")
        fresh.replace(built)
    return ctypes.CDLL(str(built))
