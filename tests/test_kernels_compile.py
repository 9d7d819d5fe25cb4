"""Every .cu of the layers and the engine compiles for real GPUs, in float and in double, and spills no registers.

By nvcc if it is on PATH, and by NVRTC if its pip package is installed. Neither needs a GPU.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import caffe_lite.layers
from caffe_lite.cuda import PRELUDE, Kernels

FOLDER = Path(next(iter(caffe_lite.layers.__path__)))
SOURCES = [*sorted(FOLDER.glob("*.cu")), *sorted(PRELUDE.parent.glob("*.cu"))]
ARCHITECTURES = ("sm_80", "sm_90")
CTYPES = ("float", "double")
NVCC = shutil.which("nvcc")
STANDARD = "--std=c++17"  # what caffe_lite.cuda asks for


def nvrtc() -> ctypes.CDLL | None:
    """The NVRTC library of a pip package."""
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


LIBRARY = nvrtc()


def check(failed: bool, report: str) -> None:
    assert not failed, report
    assert not re.search(r"(?<!\d)[1-9]\d* bytes spill (?:stores|loads)", report), f"registers are spilled:\n{report}"


@pytest.mark.skipif(not NVCC, reason="nvcc is not on PATH")
@pytest.mark.parametrize("source", SOURCES, ids=[s.stem for s in SOURCES])
def test_nvcc_compiles(source: Path, tmp_path: Path) -> None:
    for ctype in CTYPES:
        unit = tmp_path / f"{ctype}.cu"
        unit.write_text(Kernels(str(source)).text(ctype))
        running = []
        for arch in ARCHITECTURES:
            command = [
                str(NVCC),
                "-cubin",
                f"-arch={arch}",
                STANDARD,
                "-Xptxas",
                "-v",
                str(unit),
                "-o",
                f"{unit}.{arch}",
            ]
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        reports = [process.communicate()[0] for process in running]
        for arch, process, report in zip(ARCHITECTURES, running, reports, strict=True):
            check(process.returncode != 0, f"{ctype}, {arch}:\n{report}")


@pytest.mark.skipif(not LIBRARY, reason="the pip package of NVRTC (nvidia-cuda-nvrtc) is not installed")
@pytest.mark.parametrize("source", SOURCES, ids=[s.stem for s in SOURCES])
def test_nvrtc_compiles(source: Path) -> None:
    """As CuPy will: no headers at all."""
    assert LIBRARY is not None
    for ctype in CTYPES:
        text = Kernels(str(source)).text(ctype).encode()
        for arch in ARCHITECTURES:
            program = ctypes.c_void_p()
            assert LIBRARY.nvrtcCreateProgram(ctypes.byref(program), text, b"layer.cu", 0, None, None) == 0
            words = [f"--gpu-architecture={arch}".encode(), STANDARD.encode(), b"--ptxas-options=-v"]
            failed = LIBRARY.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words))
            size = ctypes.c_size_t()
            LIBRARY.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            LIBRARY.nvrtcGetProgramLog(program, log)
            LIBRARY.nvrtcDestroyProgram(ctypes.byref(program))
            check(failed != 0, f"{ctype}, {arch}:\n{log.value.decode()}")


def test_every_kernel_file_belongs_to_a_layer() -> None:
    for source in SOURCES:
        layer = source.with_suffix(".py")
        assert layer.exists() and "Kernels(__file__)" in layer.read_text(), f"{source.name} is used by no {layer.name}"
