"""Embed: a table of learned vectors, looked up by index; an InnerProduct on one-hot vectors without the zeros.

Behaves as Caffe's EmbedLayer. K = input_dim, N = num_output:
    bottom[0]  indices  values in [0, K), in any shape; fractions are cut off
    top[0]              (axes of bottom[0], N)  W[index] + b
    blobs[0]   W, (K, N)
    blobs[1]   b, (N,), unless bias_term: false
Gradients go to W and b, which are added to in the order of the indices. Indices have none.

Differs from Caffe: force_backward passes the indices by (Caffe aborts). An index out of range is a DataError on the
CPU; on a GPU, which is not asked for its verdict, it makes its vector NaN.
"""

from __future__ import annotations

import numpy as np

from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.layers.batch_reindex import add_rows, gather_rows
from caffe_lite.registry import register_layer


@register_layer("Embed")
class Embed(Layer):
    exact_bottoms, exact_tops = 1, 1

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.embed_param
        self.check(p.num_output > 0, f"num_output must be > 0, got {p.num_output}")
        self.check(p.input_dim > 0, f"input_dim must be > 0, got {p.input_dim}")
        self.add_param((p.input_dim, p.num_output), p.weight_filler)
        if p.bias_term:
            self.add_param((p.num_output,), p.bias_filler)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return False

    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        return rng.integers(0, self.param.embed_param.input_dim, bottom[0].shape)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(*bottom[0].shape, self.param.embed_param.num_output)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        bias = self.blobs[1].data if len(self.blobs) == 2 else None
        y = top[0].data.reshape(bottom[0].count, self.param.embed_param.num_output)
        gather_rows(self, self.blobs[0].data, bottom[0].data, y, bias)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        self.check(not propagate_down[0], "indices (bottom 0) have no gradient: write propagate_down: false")
        dy = top[0].diff.reshape(bottom[0].count, self.param.embed_param.num_output)
        if self.param_propagate_down[0]:
            add_rows(self, dy, bottom[0].data, self.blobs[0].diff)
        if len(self.blobs) == 2 and self.param_propagate_down[1]:
            db = self.blobs[1].diff
            db += dy.sum(axis=0)
