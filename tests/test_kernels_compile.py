"""Every .cu of the layers and the engine compiles for real GPUs, in float and in double, and spills no registers.

By NVRTC if its pip package is installed and by nvcc if it is on PATH; neither needs a GPU. ``pytest -s`` shows
the report of each file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel_report import COMPILERS, SOURCES, CompileError, Usage, compile_source, nvrtc_targets, table, usages

AT_HAND = [name for name, (targets, _) in COMPILERS.items() if targets()] or [
    pytest.param("", marks=pytest.mark.skip(reason="neither nvcc nor NVRTC (nvidia-cuda-nvrtc-cu12) is installed"))
]
SPILLING = r"""
extern "C" __global__ void __launch_bounds__(1024, 2) crowded(int n, const float* x, float* y) {
  float held[128];
  #pragma unroll
  for (int i = 0; i < 128; ++i) held[i] = x[i * n];
  __syncthreads();
  #pragma unroll
  for (int i = 0; i < 128; ++i) y[i * n] = held[127 - i] * held[i];
}
"""


@pytest.mark.parametrize("compiler", AT_HAND)
@pytest.mark.parametrize("source", SOURCES, ids=[s.stem for s in SOURCES])
def test_compiles_without_spills(source: Path, compiler: str) -> None:
    targets, by = COMPILERS[compiler]
    found = compile_source(source, by)
    print(f"\n{source.name} by {compiler}\n{table(found)}")
    kernels = {usage.kernel for usage in found}
    assert kernels and len(found) == 2 * len(targets()) * len(kernels)  # each in float and in double
    assert not [usage for usage in found if usage.spills]


@pytest.mark.parametrize("compiler", AT_HAND)
def test_a_spill_is_seen(compiler: str) -> None:
    """A kernel that wants more registers than its launch bounds leave it."""
    targets, by = COMPILERS[compiler]
    found = by(SPILLING, "float")
    assert [usage.arch for usage in found] == targets()
    assert all(usage.spills > 0 and usage.registers <= 32 for usage in found)


@pytest.mark.parametrize("compiler", AT_HAND)
def test_an_error_is_seen(compiler: str) -> None:
    with pytest.raises(CompileError, match="undefined"):
        COMPILERS[compiler][1]('extern "C" __global__ void f(float* x) { x[0] = nothing; }', "float")


@pytest.mark.skipif(not nvrtc_targets(), reason="the pip package of NVRTC (nvidia-cuda-nvrtc-cu12) is not installed")
def test_nvrtc_knows_the_oldest_target() -> None:
    """CUDA 13 has dropped it: the package has to be that of CUDA 12."""
    assert nvrtc_targets()[0] == "sm_70"


def test_what_ptxas_says_is_read() -> None:
    log = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_70'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 22 registers, 400 bytes cmem[0]
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for second
    96 bytes stack frame, 100 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 96 bytes cumulative stack size, 4096 bytes smem
"""
    first, second = Usage("first", "float", "sm_70", 22, 0, 0), Usage("second", "float", "sm_90", 255, 120, 4096)
    assert usages(log, "float") == [first, second]
    assert table([second]).splitlines()[-1].split() == ["second", "float", "sm_90", "255", "120", "4096"]


def test_every_kernel_file_belongs_to_a_layer() -> None:
    for source in SOURCES:
        layer = source.with_suffix(".py")
        assert layer.exists() and "Kernels(__file__)" in layer.read_text(), f"{source.name} is used by no {layer.name}"
