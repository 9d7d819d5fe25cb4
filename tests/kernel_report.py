"""What every kernel takes of a GPU: registers, spills and shared memory, by architecture, without a GPU.

    python tests/kernel_report.py            # prints the table; exit status 1 if a kernel spills
    python tests/kernel_report.py roi_pooling gpu_tiles

Compiled by NVRTC, where its pip package is installed (nvidia-cuda-nvrtc-cu12 knows all three targets), and by
nvcc, where it is on PATH, for those of the targets that it knows (nvcc 13 has dropped sm_70).
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import caffe_lite.layers  # noqa: E402
from caffe_lite.cuda import PRELUDE, Kernels  # noqa: E402

FOLDER = Path(next(iter(caffe_lite.layers.__path__)))
SOURCES = [*sorted(FOLDER.glob("*.cu")), *sorted(PRELUDE.parent.glob("*.cu"))]
TARGETS = ("sm_70", "sm_80", "sm_90")
CTYPES = ("float", "double")
STANDARD = "--std=c++17"  # what caffe_lite.cuda asks for


class CompileError(Exception):
    """What the compiler said of a .cu that it refuses."""


@dataclass(frozen=True)
class Usage:
    """What one kernel takes: registers a thread, bytes of spills a thread, bytes of static shared memory a block."""

    kernel: str
    ctype: str
    arch: str
    registers: int
    spills: int
    shared: int


def usages(log: str, ctype: str) -> list[Usage]:
    """What ``ptxas -v`` says of each kernel."""
    found = []
    for part in log.split("Compiling entry function ")[1:]:
        name = re.match(r"'(\w+)' for '(\w+)'", part)
        registers = re.search(r"Used (\d+) registers", part)
        if name is None or registers is None:
            raise CompileError(f"ptxas says nothing of registers:\n{log}")
        spills = sum(int(number) for number in re.findall(r"(\d+) bytes spill (?:stores|loads)", part))
        shared = re.search(r"(\d+) bytes smem", part)
        found.append(Usage(name[1], ctype, name[2], int(registers[1]), spills, int(shared[1]) if shared else 0))
    return found


# ---- NVRTC


@functools.cache
def nvrtc() -> ctypes.CDLL | None:
    """The NVRTC library of a pip package, if one is installed."""
    for name in ("nvidia.cuda_nvrtc", "nvidia.cu13", "nvidia.cu12"):
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            continue
        for place in found.submodule_search_locations or () if found else ():
            for library in sorted(Path(place).rglob("*nvrtc*")):
                if re.fullmatch(r"libnvrtc\.so[.\d]*|nvrtc64_.*\.dll", library.name) and "alt" not in library.name:
                    return ctypes.CDLL(str(library))
    return None


def nvrtc_targets() -> list[str]:
    """Those of ``TARGETS`` that NVRTC knows; none without it."""
    library = nvrtc()
    if library is None:
        return []
    count = ctypes.c_int()
    library.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    known = (ctypes.c_int * count.value)()
    library.nvrtcGetSupportedArchs(known)
    return [target for target in TARGETS if int(target[3:]) in known]


def by_nvrtc(text: str, ctype: str) -> list[Usage]:
    """Compile as CuPy will: no headers at all."""
    return [usage for target in nvrtc_targets() for usage in usages(_nvrtc_log(text, target), ctype)]


def _nvrtc_log(text: str, target: str) -> str:
    library = nvrtc()
    assert library is not None
    program = ctypes.c_void_p()
    assert library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"layer.cu", 0, None, None) == 0
    words = [f"--gpu-architecture={target}".encode(), STANDARD.encode(), b"--ptxas-options=-v"]
    failed = library.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words))
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise CompileError(f"{target}:\n{log.value.decode()}")
    return log.value.decode()


# ---- nvcc


@functools.cache
def nvcc_targets() -> list[str]:
    """Those of ``TARGETS`` that nvcc knows; none where it is not on PATH."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return []
    known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout.split()
    return [target for target in TARGETS if target in known]


def by_nvcc(text: str, ctype: str) -> list[Usage]:
    """Compile for all targets that nvcc knows at once."""
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder, "layer.cu")
        unit.write_text(text)
        targets = [f"-gencode=arch=compute_{target[3:]},code={target}" for target in nvcc_targets()]
        command = ["nvcc", "-fatbin", *targets, STANDARD, "-Xptxas", "-v", str(unit), "-o", f"{unit}.fatbin"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise CompileError(done.stdout)
    return usages(done.stdout, ctype)


Compiler = Callable[[str, str], list[Usage]]
COMPILERS: dict[str, tuple[Callable[[], list[str]], Compiler]] = {
    "nvrtc": (nvrtc_targets, by_nvrtc),
    "nvcc": (nvcc_targets, by_nvcc),
}


# ---- the table


def compile_source(source: Path, compiler: Compiler) -> list[Usage]:
    """Every kernel of a .cu, in float and in double, on each target that ``compiler`` knows."""
    return [usage for ctype in CTYPES for usage in compiler(Kernels(str(source)).text(ctype), ctype)]


def table(found: list[Usage]) -> str:
    """A line for each kernel, type and architecture."""
    names = ("kernel", "type", "arch", "registers", "spilled bytes", "shared bytes")
    cells = [(u.kernel, u.ctype, u.arch, str(u.registers), str(u.spills), str(u.shared)) for u in found]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    lines = [
        "  ".join(c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in (names, *cells)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def main() -> int:
    """Print the table of each compiler at hand."""
    wanted = sys.argv[1:]
    sources = [source for source in SOURCES if not wanted or source.stem in wanted]
    spilled, used = False, False
    for name, (targets, compiler) in COMPILERS.items():
        if not targets():
            print(f"{name}: not at hand, or it knows none of {', '.join(TARGETS)}")
            continue
        found = [usage for source in sources for usage in compile_source(source, compiler)]
        print(f"{name}: {', '.join(targets())}\n\n{table(found)}\n")
        spilled |= any(usage.spills for usage in found)
        used = True
    return int(spilled or not used)


if __name__ == "__main__":
    sys.exit(main())
