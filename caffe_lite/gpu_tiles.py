"""Convolution in two dimensions on a GPU as an implicit product: any kernel, stride, padding, dilation and group.

The matrix of patches (see ``caffe_lite.gpu_columns``) is never laid out: a block of threads fetches the tile that it
multiplies into shared memory. A table says for each row of the matrix, a channel and a tap, where its numbers lie.

The gradient to the data is a convolution of dy, too: with stride s the pixels of dx fall into s x s phases (those of
one phase lie s apart), and each phase meets only some of the taps, always the same ones. One launch a phase, so
that no product is with a zero between the strides.

The gradient to the weights sums over all positions; slices of them are summed side by side, then the slices in
order. The number of slices depends on the shapes alone, so the same numbers come out of every device and run.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from caffe_lite.cuda import Kernels
from caffe_lite.device import Device
from caffe_lite.im2col import Geometry, Sizes

kernels = Kernels(__file__)
THREADS = 128
TILE_K, TILE_P, TILE_R = 64, 128, 64  # as in gpu_tiles.cu
BLOCKS = 1024  # that a gradient to the weights is cut into, about
SHORTEST = 512  # positions of a slice, at least


class Plan(NamedTuple):
    """struct Plan of gpu_tiles.cu, number by number."""

    kernels: int
    rows: int
    x_image: int
    x_first: int
    height: int
    width: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    grid_h: int
    grid_w: int
    y_image: int
    y_first: int
    y_plane: int
    y_width: int
    y_step_h: int
    y_step_w: int
    y_start_h: int
    y_start_w: int


class Phase(NamedTuple):
    """Pixels of x that lie a stride apart, from ``start`` on: how many, and the taps that they meet."""

    start: Sizes
    grid: Sizes
    taps: np.ndarray  # numbers of the taps
    shifts: np.ndarray  # (taps, 2) position of y minus number of the pixel in the phase


class GpuTiles:
    """The products for one geometry of ``channels`` channels and ``outputs`` kernels (of one group)."""

    def __init__(self, geometry: Geometry, channels: int, outputs: int, device: Device, dtype: Any) -> None:
        self.geometry, self.channels, self.outputs = geometry, channels, outputs
        self.device, self.xp, self.dtype = device, device.xp, np.dtype(dtype)
        self._plans: dict[Plan, Any] = {}

    def forward(self, x: Any, c0: int, w: Any, bias: Any, y: Any, k0: int, clip: bool) -> None:
        """Write channels [k0, k0 + K) of y: w * x + bias (None: none), clipped at 0 if ``clip``."""
        add = None if bias is None else bias[k0 : k0 + self.outputs]
        self._launch(self._forward_plan(x, c0, y, k0), self._table, w, x, add, clip, y)

    def data_gradient(self, dy: Any, k0: int, w: Any, dx: Any, c0: int) -> None:
        """Overwrite channels [c0, c0 + C) of dx."""
        g = self.geometry
        whole = w.reshape(self.outputs, self.channels, g.taps)
        for phase, table, taps in self._phases:
            shape = self.channels, self.outputs, len(phase.taps)
            turned = self.device.workspace("convolution_weights", shape, self.dtype)
            turned[...] = whole[:, :, taps].transpose(1, 0, 2)
            plan = Plan._make((
                self.channels, self.outputs * len(phase.taps), math.prod(dy.shape[1:]), k0 * math.prod(g.out), *g.out,
                1, 1, 0, 0, *phase.grid, math.prod(dx.shape[1:]), c0 * math.prod(g.size), math.prod(g.size), g.size[1],
                *g.stride, *phase.start,
            ))  # fmt: skip
            self._launch(plan, table, turned, dy, None, False, dx)

    def weight_gradient(self, x: Any, c0: int, dy: Any, k0: int, dw: Any) -> None:
        """Add to dw (K, C * taps)."""
        plan = self._forward_plan(x, c0, dy, k0)
        positions = x.shape[0] * math.prod(self.geometry.out)
        across, down = -(-plan.rows // TILE_R), -(-plan.kernels // TILE_K)
        slices = max(1, min(BLOCKS // (across * down), positions // SHORTEST))
        length = -(-positions // slices)
        slices = -(-positions // length)
        part = self.device.workspace("convolution_slices", (slices, *dw.shape), self.dtype)
        args = positions, length, self._on_device(plan), self._table, x, dy, part
        kernels.tiles("conv_weight_tiles", (across, down, slices), THREADS, *args, dtype=self.dtype)
        kernels("conv_weight_sum", dw.size, part, slices, dw, dtype=self.dtype)

    def _launch(self, plan: Plan, table: Any, w: Any, x: Any, bias: Any, clip: bool, y: Any) -> None:
        positions = x.shape[0] * plan.grid_h * plan.grid_w
        grid = -(-positions // TILE_P), -(-plan.kernels // TILE_K), 1
        add = w if bias is None else bias  # some array: it is not read
        args = positions, self._on_device(plan), table, w, x, add, bias is not None, clip, y
        kernels.tiles("conv_tiles", grid, THREADS, *args, dtype=self.dtype)

    def _forward_plan(self, x: Any, c0: int, y: Any, k0: int) -> Plan:
        g = self.geometry
        return Plan._make((
            self.outputs, self.channels * g.taps, math.prod(x.shape[1:]), c0 * math.prod(g.size), *g.size, *g.stride,
            *g.pad, *g.out, math.prod(y.shape[1:]), k0 * math.prod(g.out), math.prod(g.out), g.out[1], 1, 1, 0, 0,
        ))  # fmt: skip

    def _on_device(self, plan: Plan) -> Any:
        if plan not in self._plans:
            self._plans[plan] = self.xp.asarray(np.array(plan, np.int32))
        return self._plans[plan]

    @cached_property
    def _table(self) -> Any:
        """Rows of the patches of x."""
        g = self.geometry
        shifts = np.indices(g.kernel).reshape(2, -1).T * g.dilation
        return self.xp.asarray(table_of(self.channels, g.size, shifts))

    @cached_property
    def _phases(self) -> list[tuple[Phase, Any, Any]]:
        """Each phase, the rows of its patches of dy, and its taps."""
        found = phases(self.geometry)
        tables = [self.xp.asarray(table_of(self.outputs, self.geometry.out, p.shifts)) for p in found]
        return [(p, t, self.xp.asarray(p.taps)) for p, t in zip(found, tables, strict=True)]


def table_of(channels: int, size: Sizes, shifts: np.ndarray) -> np.ndarray:
    """(channels * taps, 3) int32: distance from the corner of the patch in memory, down, and across."""
    inside = shifts[:, 0] * size[1] + shifts[:, 1]
    offsets = np.arange(channels)[:, None] * math.prod(size) + inside
    rows = np.broadcast_to(shifts, (channels, *shifts.shape))
    return np.ascontiguousarray(np.concatenate([offsets[..., None], rows], axis=2).reshape(-1, 3), np.int32)


def phases(geometry: Geometry) -> list[Phase]:
    """The phases of x that have a pixel, top left to bottom right."""
    g = geometry
    found = []
    for start in np.ndindex(*g.stride):
        grid = tuple(-(-(n - a) // s) for n, a, s in zip(g.size, start, g.stride, strict=True))
        if min(grid) <= 0:
            continue
        # Pixel start + stride i meets tap t of position i + (start + pad - dilation t) / stride, if that is whole.
        moved = np.array(start) + g.pad - np.indices(g.kernel).reshape(2, -1).T * g.dilation
        taps = np.flatnonzero((moved % g.stride == 0).all(axis=1))
        found.append(Phase(start, grid, taps, moved[taps] // g.stride))
    return found
