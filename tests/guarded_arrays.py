"""Arrays that end, or begin, where memory does: a kernel that reads or writes beyond them dies at once.

The kernels of the CPU load and store whole vectors by computed offsets and check no bounds. Here each array lies flush
against a page that may not be touched. Run as a program, it runs every such kernel over random shapes and prints the
number of calls; a fault ends the process by a signal, with the last shape printed.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any

import numpy as np

from caffe_lite import direct, direct_gradient, folding, gemm, small_windows, winograd, winograd_gradient
from caffe_lite.device import Device
from caffe_lite.im2col import Geometry

PAGE = mmap.PAGESIZE
PROT_NONE = 0
libc = ctypes.CDLL(None, use_errno=True)
_kept: list[Any] = []  # the memory of arrays in use


def guarded(shape: Any, dtype: Any = np.float32, at_the_end: bool = True) -> np.ndarray:
    """An array of zeros whose last (or first) byte is the last (or first) of memory."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    pages = -(-max(size, 1) // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (address, address + (pages + 1) * PAGE):
        if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(PAGE), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    start = PAGE + (pages * PAGE - size if at_the_end else 0)
    _kept.append(memory)
    return np.frombuffer(memory, np.uint8, size, start).view(dtype).reshape(shape)


class GuardedDevice(Device):
    """A CPU whose workspaces are guarded, too."""

    def __init__(self, at_the_end: bool) -> None:
        super().__init__()
        self.at_the_end = at_the_end

    def workspace(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return guarded(shape, dtype, self.at_the_end)


def products(rng: np.random.Generator, device: GuardedDevice, new: Any) -> None:
    m, k, n = (int(v) for v in rng.integers(1, [70, 300, 90]))
    a = new((k, m)).T if rng.random() < 0.5 else new((m, k))
    b = new((n, k)).T if rng.random() < 0.5 else new((k, n))
    gemm.multiply(device, a, b, new((m, n)))
    gemm.affine(device, a, b, new((n,)), new((m, n)), True)


def convolutions(rng: np.random.Generator, device: GuardedDevice, new: Any) -> None:
    n, c, k, groups = (int(v) for v in rng.integers(1, [4, 20, 20, 3]))
    kernel, stride, pad, dilation = (tuple(int(v) for v in rng.integers(low, high, 2)) for low, high in
                                     [(1, 6), (1, 5), (0, 4), (1, 3)])  # fmt: skip
    if rng.random() < 0.4:
        kernel, stride, dilation = (3, 3), (1, 1), (1, 1)
    reach = [d * (size - 1) + 1 - 2 * p for d, size, p in zip(dilation, kernel, pad, strict=True)]
    size = tuple(int(max(1, r) + rng.integers(0, 40)) for r in reach)
    g = Geometry(size, kernel, stride, pad, dilation)
    print(n, c, k, groups, g, flush=True)
    x, w, y = new((n, c * groups, *size)), new((k * groups, c, *kernel)), new((n, k * groups, *g.out))
    dw, first = new(w.shape), groups - 1
    part, rows = w[first * k :], dw[first * k :].reshape(k, -1)
    packed = direct.pack_weights(part.reshape(k, -1), device)
    direct.convolve(x, first * c, c, packed, None, y, first * k, k, kernel, stride, pad, dilation, device)
    direct_gradient.weight_gradient(x, first * c, y, first * k, rows, kernel, stride, pad, dilation, device)
    folding.data_gradient(y, first * k, part, x, first * c, g, device)
    if (kernel, stride, dilation) == ((3, 3), (1, 1), (1, 1)):
        u = winograd.transform_weights(w, first * k, k, device)
        winograd.convolve(x, first * c, c, u, None, y, first * k, k, pad, device)
        winograd.data_gradient(y, first * k, k, w, x, first * c, pad, device)
        winograd_gradient.weight_gradient(x, first * c, y, first * k, k, dw, pad, device)


def windows(rng: np.random.Generator, device: GuardedDevice, new: Any) -> None:
    kernel, stride = rng.integers(1, small_windows.LARGEST + 1, 2), rng.integers(1, 3, 2)
    pad = [int(rng.integers(0, k)) for k in kernel]
    size = [int(k + rng.integers(0, 45)) for k in kernel]
    out = [(s + 2 * p - k) // t + 1 for s, p, k, t in zip(size, pad, kernel, stride, strict=True)]
    shape = tuple(int(v) for v in rng.integers(1, 4, 2))
    print(shape, size, kernel, stride, pad, flush=True)
    y = new((*shape, *out))
    small_windows.forward(new((*shape, *size)), -1e30, True, y, new(y.shape, np.int32), *kernel, *stride, *pad)


def main(count: int, seed: int) -> None:
    gemm.SMALL, gemm.FEWEST = 0, 1  # nothing to BLAS
    rng = np.random.default_rng(seed)
    for call in range(count):
        at_the_end, dtype = call % 2 == 0, np.float64 if call % 10 == 9 else np.float32

        def new(shape: Any, dtype: Any = dtype, at_the_end: bool = at_the_end) -> np.ndarray:
            return guarded(shape, dtype, at_the_end)

        for run in (products, convolutions, windows):
            run(rng, GuardedDevice(at_the_end), new)
        _kept.clear()
    print(f"{count} calls")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
