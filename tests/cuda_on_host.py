"""Run the GPU half of a layer without a GPU: its .cu, compiled by g++, on NumPy arrays.

A grid-stride kernel gives the same result for any launch shape, so ``cuda_on_host.h`` lets g++
compile the very text that NVRTC would get, and :func:`launch` takes the place of
``caffe_lite.cuda.Kernels.__call__``. A layer on ``emulated_device()`` then runs its ``*_gpu``
methods. Kernels with shared memory, launched by ``Kernels.tiles`` with the blocks that they are
written for, run each block's threads as fibers that meet at ``__syncthreads()``. Each launch is
checked harder than a GPU would:

* number, kind and dtype of the arguments against the parameter list in the .cu;
* arrays C-contiguous, and not read-only where the kernel writes;
* nothing written outside an array (a margin on both sides); reads outside it give NaN, or a huge int;
* all threads of a block reach the same barriers;
* shared memory is NaN (or -1) when a block begins, whatever the one before it left there;
* the same bits when the threads run in another order: none depends on what another one writes, but
  for what a barrier separates.

What this cannot show: speed, and how the GPU contracts a * b + c.
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

from caffe_lite import cuda
from caffe_lite.device import Device

HEADER = Path(__file__).with_suffix(".h")
BUILD = Path(__file__).resolve().parent.parent / "build" / "cuda_on_host"
FLAGS = ["-O1", "-ffp-contract=off", "-std=c++17", "-shared", "-fPIC", "-w"]
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
    """A GPU whose arrays are NumPy's."""

    def __init__(self) -> None:
        super().__init__(np, is_gpu=True)

    def free_memory(self) -> int:
        return sys.maxsize


@contextlib.contextmanager
def emulated_device() -> Iterator[Device]:
    """A device whose layers take their GPU half; kernels run on the host while the context lasts."""
    originals = cuda.Kernels.__call__, cuda.Kernels.tiles
    cuda.Kernels.__call__, cuda.Kernels.tiles = launch, launch_tiles  # type: ignore[method-assign]
    try:
        yield EmulatedDevice()
    finally:
        cuda.Kernels.__call__, cuda.Kernels.tiles = originals  # type: ignore[method-assign]


def launch(self: cuda.Kernels, name: str, n: int, *args: Any, dtype: Any) -> None:
    """Kernels.__call__ on the host, twice: one thread, then several in descending order."""
    if n > 0:
        _launch_twice(self, name, (n, *args), dtype, ((1, 1, 1), 1), ((2, 1, 1), 3))


def launch_tiles(
    self: cuda.Kernels, name: str, grid: tuple[int, int, int], threads: int, *args: Any, dtype: Any
) -> None:
    """Kernels.tiles on the host, twice: threads and blocks in ascending, then in descending order."""
    if min(grid) > 0:
        _launch_twice(self, name, args, dtype, (grid, threads), (grid, threads))


def _launch_twice(self: cuda.Kernels, name: str, values: tuple[Any, ...], dtype: Any, *shapes: Any) -> None:
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

    library = build(text, ctype, self.source.stem)
    arrays = [v for v in values if isinstance(v, np.ndarray)]
    alone, crowd = Copies(arrays), Copies(arrays)
    for copies, (grid, threads), descending in (alone, shapes[0], False), (crowd, shapes[1], True):
        if run(library, name, zip(parameters, values, strict=True), copies, grid, threads, descending):
            raise AssertionError(f"{where}: some threads of a block end while others wait at __syncthreads()")
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
) -> int:
    """Run every thread of a launch; not 0 if a barrier was reached by a part of a block only."""
    scalars = {"int32": ctypes.c_int, "float32": ctypes.c_float, "float64": ctypes.c_double}
    packed = [
        ctypes.c_void_p(copies[value].ctypes.data) if parameter.pointer else scalars[parameter.dtype](value)
        for parameter, value in arguments
    ]
    return getattr(library, f"launch_{name}")(*grid, threads, int(descending), *packed)


def launchers(text: str, ctype: str) -> str:
    """C++ that calls each kernel of a .cu for every thread: ``launch_NAME``."""
    barriers = str("__syncthreads" in text).lower()
    made = []
    for name, parameters in signatures(text, ctype).items():
        declared = ", ".join(f"{TYPES[p.dtype]}{'*' * p.pointer} {p.name}" for p in parameters)
        passed = ", ".join(p.name for p in parameters)
        made.append(
            f'extern "C" int launch_{name}(int gx, int gy, int gz, int threads, int descending, {declared}) {{\n'
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
