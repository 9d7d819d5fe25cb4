"""The emulation catches what it promises to: mistakes that a GPU makes visible on some days only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe_lite import gpu_tiles
from caffe_lite.cuda import Kernels
from caffe_lite.device import Device
from tests import cuda_on_host
from tests.test_gpu_convolution import make, run

pytestmark = pytest.mark.skipif(not cuda_on_host.has_compiler(), reason="cuda-on-host needs g++")

THREADS = 8
REVERSE = """
extern "C" __global__ void reverse(int n, const Dtype* x, Dtype* y) {{
  __shared__ Dtype held[8];
  const int i = blockIdx.x * 8 + threadIdx.x;
  held[threadIdx.x] = x[i];
  {barrier}
  y[i] = held[7 - threadIdx.x];
}}
"""
LEFT_OVER = """
extern "C" __global__ void left_over(int n, const Dtype* x, Dtype* y) {
  __shared__ Dtype held[8];
  __shared__ int count[8];
  const int first = blockIdx.x == 0 || blockIdx.x == gridDim.x - 1;
  if (first) { held[threadIdx.x] = x[threadIdx.x]; count[threadIdx.x] = 1; }
  __syncthreads();
  y[blockIdx.x * 8 + threadIdx.x] = held[threadIdx.x] + (count[threadIdx.x] > 0);
}
"""


def kernels(folder: Path, text: str) -> Kernels:
    (folder / "toy.cu").write_text(text)
    return Kernels(str(folder / "toy.py"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_barrier_separates(tmp_path: Path, dtype: str) -> None:
    x = np.arange(3 * THREADS, dtype=dtype)
    y = np.zeros_like(x)
    toy = kernels(tmp_path, REVERSE.format(barrier="__syncthreads();"))
    with cuda_on_host.emulated_device():
        toy.tiles("reverse", (3, 1, 1), THREADS, x.size, x, y, dtype=dtype)
    np.testing.assert_array_equal(y.reshape(3, -1), x.reshape(3, -1)[:, ::-1])


@pytest.mark.parametrize("barrier", ["", "/* __syncthreads(); */"])
def test_a_missing_barrier_is_caught(tmp_path: Path, barrier: str) -> None:
    """A thread reads what another one has not written yet: which, depends on the order in which they run."""
    x = np.arange(3 * THREADS, dtype="float32")
    toy = kernels(tmp_path, REVERSE.format(barrier=barrier))
    with cuda_on_host.emulated_device(), pytest.raises(AssertionError, match="y.*depends on the order"):
        toy.tiles("reverse", (3, 1, 1), THREADS, x.size, x, np.zeros_like(x), dtype="float32")


def test_one_of_the_two_barriers_of_a_loop_is_missed(tmp_path: Path) -> None:
    """The second one, before shared memory is written again."""
    text = """
    extern "C" __global__ void shift(int n, const Dtype* x, Dtype* y) {{
      __shared__ Dtype held[8];
      for (int k = 0; k < 3; ++k) {{
        held[threadIdx.x] = x[k * 8 + threadIdx.x];
        __syncthreads();
        y[k * 8 + threadIdx.x] = held[(threadIdx.x + 1) % 8];
        {barrier}
      }}
    }}
    """
    x = np.arange(3 * THREADS, dtype="float32")
    for barrier, fails in (("__syncthreads();", False), ("", True)):
        y = np.zeros_like(x)
        toy = kernels(tmp_path, text.format(barrier=barrier))
        with cuda_on_host.emulated_device():
            if fails:
                with pytest.raises(AssertionError, match="depends on the order"):
                    toy.tiles("shift", (1, 1, 1), THREADS, x.size, x, y, dtype="float32")
                continue
            toy.tiles("shift", (1, 1, 1), THREADS, x.size, x, y, dtype="float32")
        np.testing.assert_array_equal(y.reshape(3, -1), np.roll(x.reshape(3, -1), -1, axis=1))


def test_a_barrier_that_some_threads_miss_is_caught(tmp_path: Path) -> None:
    text = REVERSE.format(barrier="if (threadIdx.x < 4) __syncthreads();")
    x = np.arange(THREADS, dtype="float32")
    toy = kernels(tmp_path, text)
    with cuda_on_host.emulated_device(), pytest.raises(AssertionError, match="others wait at __syncthreads"):
        toy.tiles("reverse", (1, 1, 1), THREADS, x.size, x, np.zeros_like(x), dtype="float32")


@pytest.mark.parametrize(("grid", "threads"), [((1, 65536, 1), 8), ((1, 1, 65536), 8), ((1, 1, 1), 1025)])
def test_a_grid_that_no_gpu_launches_is_caught(tmp_path: Path, grid: tuple[int, int, int], threads: int) -> None:
    x = np.zeros(8, dtype="float32")
    toy = kernels(tmp_path, REVERSE.format(barrier="__syncthreads();"))
    with cuda_on_host.emulated_device(), pytest.raises(AssertionError, match="reverse: no GPU launches a grid of"):
        toy.tiles("reverse", grid, threads, x.size, x, x, dtype="float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shared_memory_is_poisoned_between_blocks(tmp_path: Path, dtype: str) -> None:
    """The first and the last block fill it, in either order of blocks; the one between them finds nothing of theirs."""
    x = np.arange(1, THREADS + 1, dtype=dtype)
    y = np.zeros(3 * THREADS, dtype=dtype)
    toy = kernels(tmp_path, LEFT_OVER)
    with cuda_on_host.emulated_device():
        toy.tiles("left_over", (3, 1, 1), THREADS, x.size, x, y, dtype=dtype)
    first, between, last = y.reshape(3, -1)
    assert np.isnan(between).all()
    np.testing.assert_array_equal(first, x + 1)
    np.testing.assert_array_equal(last, x + 1)


def test_shared_integers_are_poisoned_too(tmp_path: Path) -> None:
    text = LEFT_OVER.replace("held[threadIdx.x] + (count", "count[threadIdx.x] + 0 * (count")
    y = np.zeros(3 * THREADS, dtype="float32")
    toy = kernels(tmp_path, text)
    with cuda_on_host.emulated_device():
        toy.tiles("left_over", (3, 1, 1), THREADS, THREADS, y[:THREADS].copy(), y, dtype="float32")
    np.testing.assert_array_equal(y.reshape(3, -1), np.array([[1], [-1], [1]]) * np.ones((1, THREADS)))


WARPS = """
extern "C" __global__ void talk(const int* x, int* y) {
  const int t = threadIdx.x, lane = t % 32;
  int* const mine = y + 4 * t;
  mine[0] = __ballot_sync(0xffffffffu, x[t] > 1);
  mine[1] = __match_any_sync(0xffffffffu, x[t]);
  for (int k = 0; __any_sync(0xffffffffu, x[t] > k); ++k) mine[2] = k;  // warps go round as often as their largest x
  mine[3] = __popc(mine[1] & ((1u << lane) - 1));
}
"""
TURNS = """
extern "C" __global__ void turns(const Dtype* x, Dtype* y) {{
  __shared__ Dtype held[96];
  held[threadIdx.x] = x[threadIdx.x];
  {exchange}
  y[threadIdx.x] = held[threadIdx.x ^ 31];
}}
"""


def test_the_lanes_of_a_warp_see_each_other(tmp_path: Path) -> None:
    x = np.random.default_rng(1).integers(0, 9, 96, dtype="int32")
    x[32:64] //= 3
    y = np.zeros((96, 4), "int32")
    with cuda_on_host.emulated_device():
        kernels(tmp_path, WARPS).tiles("talk", (1, 1, 1), 96, x, y, dtype="float32")
    for t, (ballot, match, rounds, rank) in enumerate(y):
        lanes = x[t // 32 * 32 :][:32]
        assert [ballot >> i & 1 for i in range(32)] == (lanes > 1).tolist()
        assert [match >> i & 1 for i in range(32)] == (lanes == x[t]).tolist()
        assert rounds == lanes.max() - 1
        assert rank == (lanes[: t % 32] == x[t]).sum()


def test_a_warp_is_a_barrier_of_its_own(tmp_path: Path) -> None:
    """Each warp may pass as many as it likes; without one, lanes read what others have not written yet."""
    x, y = np.arange(96, dtype="float32"), np.zeros(96, "float32")
    with cuda_on_host.emulated_device():
        several = "for (int k = 0; k <= threadIdx.x / 32; ++k) __syncwarp();"
        kernels(tmp_path, TURNS.format(exchange=several)).tiles("turns", (1, 1, 1), 96, x, y, dtype="float32")
        np.testing.assert_array_equal(y, x.reshape(3, 32)[:, ::-1].ravel())
        with pytest.raises(AssertionError, match="depends on the order"):
            toy = kernels(tmp_path, TURNS.format(exchange="/* __syncwarp(); */"))
            toy.tiles("turns", (1, 1, 1), 96, x, y, dtype="float32")


@pytest.mark.parametrize(
    ("exchange", "threads", "place"),
    [
        ("if (threadIdx.x != 40) __syncwarp();", 96, r"__syncwarp\(\)"),
        ("if (threadIdx.x % 2) __syncwarp(); else __any_sync(0xffffffffu, 1);", 96, "__(any_sync|syncwarp)"),
        ("if (threadIdx.x < 64) __syncthreads(); else __syncwarp();", 96, "__syncthreads"),
        ("__syncwarp(0xffffu);", 96, "a warp intrinsic for a part of a warp"),
        ("__syncwarp();", 95, "a warp intrinsic for a part of a warp"),
    ],
)
def test_warps_that_part_ways_are_caught(tmp_path: Path, exchange: str, threads: int, place: str) -> None:
    x, y = np.zeros(96, "float32"), np.zeros(96, "float32")
    toy = kernels(tmp_path, TURNS.format(exchange=exchange))
    with cuda_on_host.emulated_device(), pytest.raises(AssertionError, match=f"while others wait at {place}"):
        toy.tiles("turns", (1, 1, 1), threads, x, y, dtype="float32")


BARRIERS = Kernels(gpu_tiles.__file__).text("float").count("__syncthreads();")


@pytest.mark.parametrize("index", range(BARRIERS))
def test_every_barrier_of_the_convolution_kernels_is_needed(
    emulated: Device, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    """Without any one of them the emulation refuses the result."""
    text = Kernels.text

    def without(self: Kernels, ctype: str) -> str:
        parts = text(self, ctype).split("__syncthreads();")
        if self.source.stem != "gpu_tiles":
            return text(self, ctype)
        return "__syncthreads();".join(parts[: index + 1]) + ";" + "__syncthreads();".join(parts[index + 1 :])

    monkeypatch.setattr(Kernels, "text", without)
    with pytest.raises(AssertionError, match=r"gpu_tiles.cu: conv_.*(depends on the order|wait at __syncthreads)"):
        run(*make(emulated, "num_output: 70 kernel_size: 5 pad: 2 stride: 2", (2, 8, 11, 13)))
