"""ROIPooling: max-pool every region of interest onto a pooled_h x pooled_w grid.

Girshick, Fast R-CNN (2015), section 2.1; behaves as caffe-fast-rcnn's ROIPoolingLayer.
N images, C channels, H x W feature map, R regions:
    bottom[0]  data  (N, C, H, W)
    bottom[1]  rois  (R, 5) or (R, 5, 1, 1)  rows (batch_index, x1, y1, x2, y2), image pixels, x2 and y2 inclusive
    top[0]           (R, C, pooled_h, pooled_w)
Corners are multiplied by spatial_scale and rounded half away from zero; a region is at least one cell
wide and high. Bin p of an axis covers the cells [floor(p size), ceil((p + 1) size)) from the region's
start, size = cells / pooled, clipped to the map. The first of equal maxima wins, in row-major order;
an empty bin gives 0 and no gradient. Everything up to the bin edges is float32, in float64 nets too:
other precisions give other bins.

The gradient goes to data only, rois are constants (their diff is 0). As in the original, a cell gets
gradient only if it lies in the rounded region, which excludes reversed regions (x2 < x1) and the
column past the end that a bin reads when (p + 1) size rounds up.

On the CPU an infinite or NaN coordinate or a batch index outside [0, N) raises DataError. On a GPU
looking at the values would stall the device: such a region pools to NaN and passes no gradient.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from caffe_lite.blob import Blob
from caffe_lite.cuda import Kernels
from caffe_lite.errors import DataError
from caffe_lite.layer import Array, Blobs, Flags, Layer
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)
WARP, THREADS, TILE = 32, 128, 11776  # lanes, threads of a block, bytes of a tile, as in roi_pooling.cu
BLOCK = 64  # channels that one thread pools at a time
LIMIT = 2.0**29  # coordinates are clamped to +-LIMIT cells, so that sums of them fit an int
LOWEST = -float(np.finfo(np.float32).max)  # -FLT_MAX, in float64 nets too, as in Caffe


@register_layer("ROIPooling")
class ROIPooling(Layer):
    exact_bottoms, exact_tops = 2, 1

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.roi_pooling_param
        positive = p.pooled_h > 0 and p.pooled_w > 0
        self.check(positive, f"pooled_h and pooled_w must be > 0, got {p.pooled_h} and {p.pooled_w}")
        self.check(math.isfinite(p.spatial_scale), f"spatial_scale must be a number, got {p.spatial_scale}")
        # h * W + w of each maximum, for backward; -1 if there is none or, on a GPU, none that gets gradient.
        self.argmax = Blob((), "int32", self.device)
        self.argmax_is_kept = False

    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        if bottom_index == 0:
            return None
        images, _, height, width = bottom[0].shape
        count = bottom[1].shape[0]
        scale = self.param.roi_pooling_param.spatial_scale or 1
        x, y = (np.sort(rng.uniform(0, size / scale, (count, 2))) for size in (width, height))
        corners = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)
        return np.column_stack([rng.integers(0, images, count), corners])

    def gradient_caveat(self, bottom: Blobs) -> str:
        p = self.param.roi_pooling_param
        cells = _cells(self.device.to_host(bottom[1].data).reshape(-1, 5), p.spatial_scale)
        for first, last, bins in (cells[:, 1], cells[:, 3], p.pooled_w), (cells[:, 2], cells[:, 4], p.pooled_h):
            size = np.maximum(last - first + 1, 1)
            reads = np.ceil(np.float32(bins) * (size.astype(np.float32) / np.float32(bins)))
            if (last < first).any() or (reads > size).any():
                return "cells outside a rounded region (a reversed one, or a bin that rounds up) pass no gradient"
        return ""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        data, rois = bottom
        self.check_shape(len(data.shape) == 4, f"data must have shape (N, C, H, W), got {data.shape}")
        self.check_shape(rois.shape[1:] in ((5,), (5, 1, 1)), f"rois must have shape (R, 5), got {rois.shape}")
        p = self.param.roi_pooling_param
        top[0].reshape(rois.shape[0], data.shape[1], p.pooled_h, p.pooled_w)
        self.argmax.reshape(top[0].shape)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        # A TEST net seldom runs backward, which otherwise finds the maxima again.
        self.argmax_is_kept = self.phase == 0
        super().forward(bottom, top)

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        self._check_rois(bottom[1].data, bottom[0].shape[0])
        self._pool_cpu(bottom, top[0].data)

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        self._pool_gpu(bottom, top[0].data)

    def _pool_cpu(self, bottom: Blobs, y: Array) -> None:
        data, rois = bottom
        last = self._channels_last(data)
        last[...] = data.data.transpose(0, 2, 3, 1)
        cells = _cells(rois.data.reshape(-1, 5), self.param.roi_pooling_param.spatial_scale)
        _forward(last, cells, self.argmax_is_kept, y, self.argmax.data)

    def _pool_gpu(self, bottom: Blobs, y: Array) -> None:
        data, rois = bottom
        n, c, h, w = data.shape
        p = self.param.roi_pooling_param
        last = self._channels_last(data)
        groups = -(-c // WARP)
        grid = -(-h * w // WARP), groups, n
        kernels.tiles("roi_pool_channels_last", grid, THREADS, c, h * w, data.data, last, dtype=self.dtype)
        sizes = n, c, h, w, p.pooled_h, p.pooled_w, p.spatial_scale, self.argmax_is_kept
        args = last, rois.data, *sizes, y, self.argmax.data
        kernels.tiles("roi_pool_forward", (rois.shape[0] * groups, 1, 1), THREADS, *args, dtype=self.dtype)

    def _channels_last(self, data: Blob) -> Array:
        """A workspace (N, H, W, C): with channels last a cell is a vector."""
        n, c, h, w = data.shape
        return self.device.workspace("roi_pooling", (n, h, w, c), self.dtype)

    def _check_rois(self, rois: np.ndarray, images: int) -> None:
        rois = rois.reshape(-1, 5)
        finite = np.isfinite(rois).all(axis=1)
        good = finite & (np.trunc(np.where(finite, rois[:, 0], -1)) >= 0) & (rois[:, 0] < images)
        if not good.all():
            row = int(np.argmin(good))
            values = ", ".join(f"{v:g}" for v in rois[row])
            raise DataError(
                self.explain(
                    f"row {row} of rois is ({values}): expected (batch_index, x1, y1, x2, y2), all finite, and "
                    f"a batch_index in [0, {images}), the number of images"
                )
            )

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[1]:
            bottom[1].diff[...] = 0
        if not propagate_down[0]:
            return
        if not self.argmax_is_kept:
            self.argmax_is_kept = True
            self._half("_pool")(bottom, self.device.workspace("roi_pooling top", top[0].shape, self.dtype))
        super().backward(top, propagate_down, bottom)

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        data, rois = bottom
        cells = _cells(rois.data.reshape(-1, 5), self.param.roi_pooling_param.spatial_scale)
        _backward(top[0].diff, self.argmax.data, cells, data.diff)

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        data, rois = bottom
        n, c, h, w = data.shape
        tiles = -(-h * w // (TILE // self.dtype.itemsize))
        sizes = rois.shape[0], n, c, h * w, math.prod(top[0].shape[2:])
        args = top[0].diff, self.argmax.data, rois.data, *sizes, data.diff
        kernels.tiles("roi_pool_backward", (tiles * c, n, 1), THREADS, *args, dtype=self.dtype)


def _cells(rois: np.ndarray, spatial_scale: float) -> np.ndarray:
    """(R, 5) int32 rows (batch_index, x1, y1, x2, y2) in cells of the feature map."""
    scaled = rois.astype(np.float32) * np.float32(spatial_scale)
    scaled = np.clip(scaled, -LIMIT, LIMIT)
    whole = np.trunc(scaled)
    cells = (whole + np.where(np.abs(scaled - whole) >= 0.5, np.sign(scaled), 0)).astype(np.int32)
    cells[:, 0] = rois[:, 0]
    return cells


@numba.njit(inline="always")
def _bin(p: int, pooled: int, start: int, end: int, limit: int) -> tuple[int, int]:
    """[first, last) cells of bin ``p``, clipped to [0, limit)."""
    size = np.float32(max(end - start + 1, 1)) / np.float32(pooled)
    first = int(np.floor(np.float32(p) * size)) + start
    last = int(np.ceil(np.float32(p + 1) * size)) + start
    return min(max(first, 0), limit), min(max(last, 0), limit)


@numba.njit(inline="always")
def _reached_by(p: int, pooled: int, start: int, end: int, cell: int) -> bool:
    """May ``cell`` get gradient from bin ``p``: is it in the region, and the bin among those over it?"""
    if cell < start or cell > end:
        return False
    size = np.float32(max(end - start + 1, 1)) / np.float32(pooled)
    first = np.floor(np.float32(cell - start) / size)
    last = np.ceil(np.float32(cell - start + 1) / size)
    return first <= p < last


@numba.njit(cache=True, parallel=True)
def _forward(data: np.ndarray, cells: np.ndarray, keep: bool, y: np.ndarray, argmax: np.ndarray) -> None:
    """data (N, H, W, C) -> y and, if ``keep``, argmax (R, C, pooled_h, pooled_w)."""
    height, width, channels = data.shape[1:]
    pooled_h, pooled_w = y.shape[2:]
    for r in numba.prange(cells.shape[0]):
        best, where = np.empty(BLOCK, data.dtype), np.empty(BLOCK, np.int32)
        image = data[cells[r, 0]]
        for c in range(0, channels, BLOCK):
            count = min(BLOCK, channels - c)
            for ph in range(pooled_h):
                h0, h1 = _bin(ph, pooled_h, cells[r, 2], cells[r, 4], height)
                for pw in range(pooled_w):
                    w0, w1 = _bin(pw, pooled_w, cells[r, 1], cells[r, 3], width)
                    best[:] = LOWEST if h0 < h1 and w0 < w1 else 0
                    where[:] = -1
                    for h in range(h0, h1):
                        for w in range(w0, w1):
                            if keep:
                                _max_with_index(image[h, w, c : c + count], h * width + w, best, where)
                            else:
                                _max(image[h, w, c : c + count], best)
                    for i in range(count):
                        y[r, c + i, ph, pw] = best[i]
                        if keep:
                            argmax[r, c + i, ph, pw] = where[i]


@numba.njit(cache=True)
def _max(cell: np.ndarray, best: np.ndarray) -> None:
    for i in range(cell.size):
        v = cell[i]
        best[i] = v if v > best[i] else best[i]


@numba.njit(cache=True)
def _max_with_index(cell: np.ndarray, index: int, best: np.ndarray, where: np.ndarray) -> None:
    for i in range(cell.size):
        v = cell[i]
        greater = v > best[i]
        best[i] = v if greater else best[i]
        where[i] = np.int32(index) if greater else where[i]


@numba.njit(cache=True, parallel=True)
def _backward(dy: np.ndarray, argmax: np.ndarray, cells: np.ndarray, dx: np.ndarray) -> None:
    """A thread has a channel of all images to itself and adds in the order of the regions."""
    height, width = dx.shape[2:]
    pooled_h, pooled_w = dy.shape[2:]
    for c in numba.prange(dx.shape[1]):
        dx[:, c] = 0
        for r in range(cells.shape[0]):
            x1, y1, x2, y2 = cells[r, 1], cells[r, 2], cells[r, 3], cells[r, 4]
            for ph in range(pooled_h):
                for pw in range(pooled_w):
                    index = argmax[r, c, ph, pw]
                    if index < 0:
                        continue
                    h, w = index // width, index % width
                    if _reached_by(ph, pooled_h, y1, y2, h) and _reached_by(pw, pooled_w, x1, x2, w):
                        dx[cells[r, 0], c, h, w] += dy[r, c, ph, pw]
