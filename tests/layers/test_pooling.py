"""Pooling against windows taken one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase


def geometry(p, height, width):
    """((kernel, stride, pad, windows) of the rows, the same of the columns), from the definition."""
    kernel = (height, width) if p.global_pooling else (p.kernel_h or p.kernel_size, p.kernel_w or p.kernel_size)
    stride = (p.stride_h or p.stride, p.stride_w or p.stride)
    pad = (p.pad_h or p.pad, p.pad_w or p.pad)
    axes = []
    for size, k, s, q in zip((height, width), kernel, stride, pad, strict=True):
        windows = (math.floor if p.round_mode == p.FLOOR else math.ceil)((size + 2 * q - k) / s) + 1
        if any(pad) and (windows - 1) * s >= size + q:
            windows -= 1
        axes.append((k, s, q, windows))
    return axes


def windows(x, p):
    """((n, c, i, j), rows, columns, divisor) of each window; rows and columns as ranges inside the image."""
    (kh, sh, qh, oh), (kw, sw, qw, ow) = geometry(p, *x.shape[2:])
    for n, c, i, j in np.ndindex(*x.shape[:2], oh, ow):
        h, w = i * sh - qh, j * sw - qw
        rows, columns = range(max(h, 0), min(h + kh, x.shape[2])), range(max(w, 0), min(w + kw, x.shape[3]))
        yield (n, c, i, j), rows, columns, (min(h + kh, x.shape[2] + qh) - h) * (min(w + kw, x.shape[3] + qw) - w)


def shape(x, p):
    return (*x.shape[:2], *(axis[3] for axis in geometry(p, *x.shape[2:])))


def max_pool(x, p):
    """(maxima, masks): the first of the greatest values of each window, -FLT_MAX and -1 if there is none."""
    y = np.full(shape(x, p), -float(np.finfo(np.float32).max))
    mask = np.full(y.shape, -1.0)
    for at, rows, columns, _ in windows(x, p):
        for h in rows:
            for w in columns:
                if x[at[0], at[1], h, w] > y[at]:
                    y[at], mask[at] = x[at[0], at[1], h, w], h * x.shape[3] + w
    return y, mask


class PoolingCase(LayerCase):
    def bottoms(self, rng):
        ties = rng.integers(0, 2, (1, 2, 7, 9)).astype(float)
        broken = rng.normal(size=(1, 2, 7, 9))
        broken[0, 0] = np.nan
        broken[0, 1, ::2] = np.nan
        broken[0, 1, 1] = -np.inf
        return {
            "random": [rng.normal(size=(2, 3, 9, 11))],
            "one column": [rng.normal(size=(1, 2, 6, 3))],
            "ties": [ties],
            "nan and inf": [broken],
            "no images": [np.zeros((0, 2, 7, 9))],
        }

    no_gradient = ("ties", "nan and inf")


LAYERS = {  # the common sizes, and every rule of the output size
    "2x2": "kernel_size: 2 stride: 2",
    "3x3 overlapping": "kernel_size: 3 stride: 2",
    "stride 1": "kernel_size: 3",
    "pad": "kernel_size: 3 stride: 2 pad: 1",
    "pad drops a window": "kernel_size: 2 stride: 3 pad: 1",
    "floor": "kernel_size: 2 stride: 2 round_mode: FLOOR",
    "oblong": "kernel_h: 2 kernel_w: 3 stride_h: 3 stride_w: 1 pad_h: 0 pad_w: 2",
    "last window empty": "kernel_size: 1 stride: 5",
    "global": "global_pooling: true",
}


class TestMaxPooling(PoolingCase):
    layer = {name: f'type: "Pooling" pooling_param {{ pool: MAX {p} }}' for name, p in LAYERS.items()}
    exact = True
    golden = ["pool_max_3s2"]

    def expected(self, x):
        return max_pool(x, self.param.pooling_param)[0]

    def test_a_test_net_has_gradients_too(self, device):
        """TEST saves no mask on the CPU; backward finds the maxima again."""
        x = [np.random.default_rng(0).normal(size=(1, 2, 5, 5))]
        diffs = []
        for phase in (0, 1):
            layer, bottoms, tops = self.build(device, x, "pad")
            layer.phase = phase
            layer.forward(bottoms, tops)
            tops[0].diff[...] = device.xp.arange(tops[0].count).reshape(tops[0].shape)
            layer.backward(tops, [True], bottoms)
            diffs.append(device.to_host(bottoms[0].diff).copy())
        np.testing.assert_array_equal(*diffs)
        assert diffs[0].any()


class TestMaxPoolingWithMask(PoolingCase):
    layer = {name: f'type: "Pooling" pooling_param {{ pool: MAX {LAYERS[name]} }}' for name in ("2x2", "pad", "global")}
    tops = 2
    differentiable = [True, False]
    exact = True

    def expected(self, x):
        return max_pool(x, self.param.pooling_param)


class TestAveragePooling(PoolingCase):
    layer = {name: f'type: "Pooling" pooling_param {{ pool: AVE {p} }}' for name, p in LAYERS.items()}
    golden = ["pool_ave_3s2_pad1"]

    def bottoms(self, rng):
        cases = super().bottoms(rng)
        cases["nan and inf"][0][0, 1] = 1  # inf - inf: which NaN comes out where is not the point
        return cases

    def expected(self, x):
        y = np.zeros(shape(x, self.param.pooling_param))
        for at, rows, columns, divisor in windows(x, self.param.pooling_param):
            if rows and columns:
                y[at] = x[at[0], at[1], rows.start : rows.stop, columns.start : columns.stop].sum() / divisor
        return y


@pytest.mark.parametrize(
    "prototxt, message",
    [
        ("pool: STOCHASTIC kernel_size: 2 pad: 1", r"STOCHASTIC takes no padding, got pad \(1, 1\)"),
        ("pool: MAX", "needs kernel_size"),
        ("kernel_size: 2 kernel_h: 2", "not both"),
        ("kernel_h: 2", "needs kernel_size"),
        ("kernel_size: 2 pad_h: 1", "give both pad_h and pad_w"),
        ("kernel_size: 2 stride: 0", "stride must be > 0"),
        ("kernel_size: 0", "kernel must be > 0"),
        ("kernel_size: 2 pad: 2", "pad must be smaller"),
        ("global_pooling: true kernel_size: 2", "leave kernel_size"),
        ("global_pooling: true stride: 2", "needs pad 0 and stride 1"),
        ("kernel_size: 9 stride: 2", "does not fit 5 x 6"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(device, prototxt, message):
    case = LayerCase()
    case.layer = f'type: "Pooling" pooling_param {{ {prototxt} }}'
    with pytest.raises(NetError, match=message) as caught:
        case.build(device, [np.zeros((1, 1, 5, 6))])
    assert "layer 'layer' (Pooling)" in str(caught.value)


def test_only_four_axes(device):
    case = LayerCase()
    case.layer = 'type: "Pooling" pooling_param { kernel_size: 2 }'
    with pytest.raises(ShapeError, match=r"\(N, C, H, W\), got \(2, 3\)"):
        case.build(device, [np.zeros((2, 3))])


def test_an_average_has_no_mask(device):
    case = LayerCase()
    case.layer, case.tops = 'type: "Pooling" pooling_param { pool: AVE kernel_size: 2 }', 2
    with pytest.raises(NetError, match="only pool: MAX"):
        case.build(device, [np.zeros((1, 1, 4, 4))])
