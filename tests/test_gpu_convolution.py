"""Convolution on a GPU, each way to compute it, against its definition; on the host where there is no GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from caffe_lite import gpu_choice, gpu_columns, gpu_tiles, gpu_winograd, prototxt, registry
from caffe_lite.blob import Blob
from caffe_lite.device import Device
from caffe_lite.gpu_choice import Way
from caffe_lite.im2col import Geometry
from caffe_lite.proto import caffe_pb2
from tests.convolution_reference import convolve, gradients

CASES = {  # name: (path, convolution_param, shape of the bottom)
    "3x3": ("implicit", "num_output: 13 kernel_size: 3 pad: 1", (2, 20, 9, 10)),
    "few channels": ("implicit", "num_output: 70 kernel_size: 3 pad: 1", (2, 3, 9, 17)),
    "5x5, groups": ("implicit", "num_output: 6 group: 2 kernel_size: 5 pad: 2", (2, 8, 11, 13)),
    "stride 2": ("implicit", "num_output: 5 kernel_size: 5 pad: 1 stride: 2", (3, 4, 12, 15)),
    "stride over kernel": ("implicit", "num_output: 4 kernel_size: 2 stride: 3", (2, 3, 11, 10)),
    "strides, dilation": (
        "implicit",
        "num_output: 4 kernel_size: 3 stride: 2 stride: 3 dilation: 2 pad: 3 pad: 1",
        (2, 3, 12, 14),
    ),
    "stride 2, dilation 2": ("implicit", "num_output: 4 kernel_size: 3 stride: 2 dilation: 2 pad: 2", (1, 2, 9, 10)),
    "1x1, stride": ("implicit", "num_output: 3 kernel_size: 1 stride: 2", (2, 4, 7, 8)),
    "one pixel": ("implicit", "num_output: 3 kernel_size: 3", (1, 2, 3, 3)),
    "many kernels": ("implicit", "num_output: 130 kernel_size: 2", (1, 5, 6, 7)),
    "1x1": ("gemm", "num_output: 5 kernel_size: 1", (3, 4, 6, 7)),
    "1x1, groups": ("gemm", "num_output: 6 group: 2 kernel_size: 1", (2, 4, 5, 3)),
    "asked for": ("im2col", "num_output: 6 group: 2 kernel_size: 3 engine: CAFFE", (2, 4, 7, 6)),
}
WINOGRAD = {  # name: (convolution_param, shape of the bottom)
    "pad 1": ("num_output: 33 kernel_size: 3 pad: 1", (2, 32, 15, 18)),
    "groups, no pad": ("num_output: 64 group: 2 kernel_size: 3", (1, 64, 22, 27)),
    "pad 2 and 3": ("num_output: 8 kernel_size: 3 pad: 2 pad: 3", (1, 20, 21, 22)),
    "smaller than a tile": ("num_output: 5 kernel_size: 3 pad: 1", (3, 4, 1, 3)),
    "one pixel out": ("num_output: 2 kernel_size: 3", (3, 2, 3, 3)),
}
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@pytest.fixture(params=[2, 4], ids=["F(2x2)", "F(4x4)"])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The side of the tiles, by which all layers of a test compute."""
    monkeypatch.setattr(gpu_choice, "choose", lambda *_: Way("winograd", "asked for", request.param))
    return request.param


def make(device: Device, text: str, shape: tuple[int, ...], dtype: str = "float32") -> tuple[Any, Blob, Blob]:
    """(layer, bottom, top) with normal numbers in bottom, weights and bias, scaled so that outputs are near 1."""
    param = caffe_pb2.LayerParameter()
    prototxt.parse(f'name: "x" type: "Convolution" bottom: "b" top: "t" convolution_param {{ {text} }}', param)
    layer = registry.layers.get("Convolution").create(param, 0, device, dtype, "")
    bottom, top = Blob(shape, dtype, device), Blob((), dtype, device)
    layer.set_up([bottom], [top])
    layer.param_propagate_down = [True, True]
    rng = np.random.default_rng(0)
    bottom.data[...] = device.xp.asarray(rng.normal(size=shape))
    weights = layer.blobs[0]
    weights.data[...] = device.xp.asarray(rng.normal(size=weights.shape) / np.sqrt(np.prod(weights.shape[1:])))
    layer.blobs[1].data[...] = device.xp.asarray(rng.normal(size=layer.blobs[1].shape))
    return layer, bottom, top


def defined(layer: Any, x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(y before the ReLU, dx, dw) from the definition, group by group."""
    _, stride, pad, dilation = layer.sizes
    groups = layer.group
    w, bias = (layer.device.to_host(blob.data).astype(np.float64) for blob in layer.blobs)
    sides = zip(np.split(x, groups, 1), np.split(w, groups), np.split(dy, groups, 1), strict=True)
    parts = [(convolve(a, b, stride, pad, dilation), *gradients(a, b, c, stride, pad, dilation)) for a, b, c in sides]
    y, dx, dw = zip(*parts, strict=True)
    return np.concatenate(y, 1) + bias[:, None, None], np.concatenate(dx, 1), np.concatenate(dw)


def close(actual: Any, expected: np.ndarray, layer: Any) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    limit = TOLERANCE[layer.dtype.name] * scale
    np.testing.assert_allclose(layer.device.to_host(actual), expected, rtol=0, atol=limit)


def run(layer: Any, bottom: Blob, top: Blob) -> np.ndarray:
    """Forward with a fused ReLU, then backward; the gradient that was passed back."""
    layer.fused_relu = True
    layer.reshape([bottom], [top])
    top.data[...] = bottom.diff[...] = np.nan  # both are overwritten
    layer.forward([bottom], [top])
    dy = np.random.default_rng(1).normal(size=top.shape)
    top.diff[...] = layer.xp.asarray(dy)
    layer.blobs[0].diff[...] = layer.blobs[1].diff[...] = 1  # which is added to
    layer.backward([top], [True], [bottom])
    return layer.device.to_host(top.diff).astype(np.float64)


def check(layer: Any, bottom: Blob, top: Blob) -> None:
    """Each product is what its definition says."""
    dy = run(layer, bottom, top)
    y, dx, dw = defined(layer, layer.device.to_host(bottom.data).astype(np.float64), dy)
    close(top.data, np.maximum(y, 0), layer)
    close(bottom.diff, dx, layer)
    close(layer.blobs[0].diff, dw + 1, layer)
    close(layer.blobs[1].diff, dy.sum(axis=(0, 2, 3)) + 1, layer)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_all_products(gpu: Device, name: str, dtype: str) -> None:
    path, text, shape = CASES[name]
    layer, bottom, top = make(gpu, text, shape, dtype)
    check(layer, bottom, top)
    assert layer.path == path, layer.reason


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", WINOGRAD)
def test_winograd(gpu: Device, tile: int, name: str, dtype: str) -> None:
    layer, bottom, top = make(gpu, *WINOGRAD[name], dtype)
    check(layer, bottom, top)
    assert (layer.path, layer.products.tile) == ("winograd", tile)


def test_large_inputs_go_in_pieces(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many columns at a time as the scratch memory holds."""
    monkeypatch.setattr(gpu_columns, "LIMIT", 18 * 8)
    check(*make(gpu, *CASES["asked for"][1:], "float64"))


def test_large_inputs_go_in_pieces_of_tiles(gpu: Device, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_winograd, "LIMIT", 36 * 64 * 10)
    check(*make(gpu, *WINOGRAD["groups, no pad"], "float64"))


def test_slices_of_the_weight_gradient(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_tiles, "SHORTEST", 40)
    check(*make(gpu, *CASES["stride 2"][1:], "float64"))


def bits(gpu: Device, text: str, shape: tuple[int, ...]) -> list[bytes]:
    layer, bottom, top = make(gpu, text, shape)
    run(layer, bottom, top)
    return [gpu.to_host(a).tobytes() for a in (top.data, bottom.diff, layer.blobs[0].diff)]


@pytest.mark.parametrize("name", ["3x3", "5x5, groups", "1x1"])
def test_two_runs_give_the_same_bits(gpu: Device, name: str) -> None:
    case = CASES[name][1:]
    assert bits(gpu, *case) == bits(gpu, *case)


def test_two_runs_by_winograd_give_the_same_bits(gpu: Device, tile: int) -> None:
    assert bits(gpu, *WINOGRAD["pad 1"]) == bits(gpu, *WINOGRAD["pad 1"])


def test_nan_stays_near_its_pixel(gpu: Device, tile: int) -> None:
    """NaN spreads over the tiles that see the pixel, no further; the ReLU keeps it."""
    layer, bottom, top = make(gpu, *WINOGRAD["pad 1"])
    layer.fused_relu = True
    bottom.data[1, 0, 9, 9] = np.nan
    layer.forward([bottom], [top])
    lost = np.isnan(gpu.to_host(top.data))
    assert lost[1, :, 8:11, 8:11].all() and not lost[0].any()
    lost[1, :, 8 - tile : 11 + tile, 8 - tile : 11 + tile] = False
    assert not lost.any()


def test_a_layer_follows_the_precision_of_its_device(gpu: Device) -> None:
    """F(4x4, 3x3) gives way to F(2x2, 3x3) in tf32, at the next reshape; float64 is never rounded."""
    case = "num_output: 128 kernel_size: 3 pad: 1", (2, 128, 28, 28)
    layer, bottom, top = make(gpu, *case)
    assert layer.products.tile == 4
    before = gpu.compute
    gpu.compute = "tf32"
    try:
        layer.reshape([bottom], [top])
        assert layer.products.tile == 2 and layer.reason.startswith("compute: tf32, 392 tiles of 2 x 2 pixels")
        assert make(gpu, *case, "float64")[0].products.tile == 4
    finally:
        gpu.compute = before
    layer.reshape([bottom], [top])
    assert layer.products.tile == 4 and layer.reason.startswith("98 tiles of 4 x 4 pixels")


def test_phases_meet_each_pair_of_pixel_and_tap_once() -> None:
    """Of a convolution in one phase, and in many: the pairs (pixel of x, position of y) of each tap."""
    geometry = Geometry((9, 10), (3, 4), (2, 3), (1, 2), (2, 1))
    expected = {
        (h * 2 - 1 + 2 * a, w * 3 - 2 + b, h, w, 4 * a + b)
        for h, w, a, b in np.ndindex(*geometry.out, *geometry.kernel)
    }
    expected = {e for e in expected if 0 <= e[0] < 9 and 0 <= e[1] < 10}
    found = []
    for phase in gpu_tiles.phases(geometry):
        for i, j in np.ndindex(*phase.grid):
            for tap, (down, across) in zip(phase.taps, phase.shifts, strict=True):
                h, w = i + down, j + across
                if 0 <= h < geometry.out[0] and 0 <= w < geometry.out[1]:
                    found.append((phase.start[0] + 2 * i, phase.start[1] + 3 * j, h, w, int(tap)))
    assert len(found) == len(set(found)) and set(found) == expected
