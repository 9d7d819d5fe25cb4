"""Convolution on a GPU, each way to compute it, against its definition; on the host where there is no GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from caffe_lite import gpu_columns, gpu_gemm, gpu_tiles, gpu_winograd, prototxt, registry
from caffe_lite.blob import Blob
from caffe_lite.device import Device
from caffe_lite.im2col import Geometry
from caffe_lite.proto import caffe_pb2
from tests.convolution_reference import convolve, gradients

CASES = {  # name: (path, convolution_param, shape of the bottom)
    "3x3": ("winograd", "num_output: 33 kernel_size: 3 pad: 1", (2, 32, 15, 18)),
    "3x3, groups, no pad": ("winograd", "num_output: 64 group: 2 kernel_size: 3", (1, 64, 22, 27)),
    "3x3, pads": ("winograd", "num_output: 32 kernel_size: 3 pad: 2 pad: 3", (1, 40, 21, 22)),
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
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_all_products(gpu: Device, name: str, dtype: str) -> None:
    path, text, shape = CASES[name]
    layer, bottom, top = make(gpu, text, shape, dtype)
    dy = run(layer, bottom, top)
    assert layer.path == path, layer.reason
    y, dx, dw = defined(layer, gpu.to_host(bottom.data).astype(np.float64), dy)
    close(top.data, np.maximum(y, 0), layer)
    close(bottom.diff, dx, layer)
    close(layer.blobs[0].diff, dw + 1, layer)
    close(layer.blobs[1].diff, dy.sum(axis=(0, 2, 3)) + 1, layer)


@pytest.mark.parametrize("name", ["3x3, groups, no pad", "asked for"])
def test_large_inputs_go_in_pieces(gpu: Device, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tiles or columns at a time as the scratch memory holds."""
    monkeypatch.setattr(gpu_winograd, "LIMIT", 36 * 64 * 10)
    monkeypatch.setattr(gpu_columns, "LIMIT", 18 * 8)
    layer, bottom, top = make(gpu, *CASES[name][1:], "float64")
    dy = run(layer, bottom, top)
    y, dx, dw = defined(layer, gpu.to_host(bottom.data), dy)
    close(top.data, np.maximum(y, 0), layer)
    close(bottom.diff, dx, layer)
    close(layer.blobs[0].diff, dw + 1, layer)


def test_slices_of_the_weight_gradient(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_tiles, "SHORTEST", 40)
    layer, bottom, top = make(gpu, *CASES["stride 2"][1:], "float64")
    dy = run(layer, bottom, top)
    close(layer.blobs[0].diff, defined(layer, gpu.to_host(bottom.data), dy)[2] + 1, layer)


@pytest.mark.parametrize("name", ["3x3", "5x5, groups", "1x1"])
def test_two_runs_give_the_same_bits(gpu: Device, name: str) -> None:
    results = []
    for _ in range(2):
        layer, bottom, top = make(gpu, *CASES[name][1:])
        run(layer, bottom, top)
        results.append([gpu.to_host(a).tobytes() for a in (top.data, bottom.diff, layer.blobs[0].diff)])
    assert results[0] == results[1]


def test_a_layer_follows_the_precision_of_its_device(gpu: Device) -> None:
    """In tf32 and bf16 cuBLAS multiplies: the kernels of our own keep float32. float64 is never rounded."""
    layer, bottom, top = make(gpu, *CASES["5x5, groups"][1:])
    before = gpu.compute
    gpu.compute = "tf32"
    try:
        layer.reshape([bottom], [top])
        assert (layer.path, layer.reason.split(",")[0]) == ("im2col", "compute: tf32")
        assert make(gpu, *CASES["5x5, groups"][1:], "float64")[0].path == "implicit"
    finally:
        gpu.compute = before
    layer.reshape([bottom], [top])
    assert layer.path == "implicit"


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


# ---- the products


def column_major(matrix: gpu_gemm.Matrix, array: np.ndarray, rows: int, columns: int, item: int) -> np.ndarray:
    """What cuBLAS reads: number (i, j) of a matrix lies at i + j leading, swapped where it is transposed."""
    memory = np.lib.stride_tricks.as_strided(array, (1 << 20,), (array.itemsize,))
    swap = matrix.operation == gpu_gemm.OP_T
    at = [[item * matrix.stride + (j + i * matrix.leading if swap else i + j * matrix.leading) for j in range(columns)]
          for i in range(rows)]  # fmt: skip
    return memory[np.array(at)]


@pytest.mark.parametrize(
    "make_operand",
    [
        lambda m: m[2],
        lambda m: m[2].T,
        lambda m: m[2, :, 3:7],
        lambda m: m[2, 1:3].T,
        lambda m: m,
        lambda m: m.transpose(0, 2, 1),
        lambda m: m[:, 1:4],
        lambda m: m[:, :, 4:9].transpose(0, 2, 1),
        lambda m: m[1, :1],
        lambda m: m[1, :, :1],
        lambda m: m[1, :1].T,
        lambda m: m[1, :, :1].T,
    ],
    ids=range(12),
)
def test_an_operand_is_described_to_cublas(make_operand: Any) -> None:
    """cuBLAS sees the transpose of each array, in columns."""
    array = make_operand(np.arange(5 * 6 * 11, dtype=np.float32).reshape(5, 6, 11))
    matrix = gpu_gemm.operand(array)
    rows, columns = array.shape[-2:]
    assert matrix.leading >= (columns if matrix.operation == gpu_gemm.OP_N else rows)
    for item in range(array.shape[0] if array.ndim == 3 else 1):
        one = array[item] if array.ndim == 3 else array
        np.testing.assert_array_equal(column_major(matrix, array, columns, rows, item), one.T)


def test_an_operand_with_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match="no matrix to cuBLAS"):
        gpu_gemm.operand(np.zeros((6, 10), np.float32)[::2, ::2])
