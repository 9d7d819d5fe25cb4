"""Tile: repeats a blob ``tiles`` times along one axis.

Behaves as Caffe's TileLayer:
    bottom[0]  (..., n, ...)          n along ``axis`` (1)
    top[0]     (..., tiles * n, ...)  the whole of n values, then again, ...
The gradient is the sum over the copies.
"""

from __future__ import annotations

from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("Tile")
class Tile(Layer):
    exact_bottoms, exact_tops = 1, 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        p, shape = self.param.tile_param, bottom[0].shape
        self.check(p.tiles > 0, f"tiles must be given and > 0, got {p.tiles if p.HasField('tiles') else 'none'}")
        axis = self.canonical_axis(bottom[0], p.axis)
        self.dims = bottom[0].count_of(0, axis), p.tiles, bottom[0].count_of(axis)
        top[0].reshape(*shape[:axis], p.tiles * shape[axis], *shape[axis + 1 :])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        outer, _, inner = self.dims
        top[0].data.reshape(self.dims)[...] = bottom[0].data.reshape(outer, 1, inner)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        if propagate_down[0]:
            outer, _, inner = self.dims
            top[0].diff.reshape(self.dims).sum(axis=1, out=bottom[0].diff.reshape(outer, inner))
