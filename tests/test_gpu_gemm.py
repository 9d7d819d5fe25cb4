"""Matrix products on a GPU: what cuBLAS is told, and the rounding that stands in for it where there is none."""

from __future__ import annotations

import ctypes
import math
import sys
import types
from typing import Any

import numpy as np
import pytest

from caffe_lite import gpu_gemm
from caffe_lite.device import Device
from tests.rounding import DROPPED, rounded
from tests.strict_device import DeviceArray

C_TYPES = {0: np.float32, 1: np.float64}  # cudaDataType: CUDA_R_32F, CUDA_R_64F


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


class Cublas(types.ModuleType):
    """cublasGemmStridedBatchedEx by its definition, C = alpha op(A) op(B) + beta C in columns, on the host's memory."""

    def __init__(self) -> None:
        super().__init__("cublas")
        self.compute_types: list[int] = []

    def gemmStridedBatchedEx(  # noqa: N802, PLR0913
        self, handle: int, transa: int, transb: int, m: int, n: int, k: int,
        alpha: int, a: int, a_type: int, lda: int, stride_a: int,
        b: int, b_type: int, ldb: int, stride_b: int,
        beta: int, c: int, c_type: int, ldc: int, stride_c: int, batch: int, compute_type: int, algorithm: int,
    ) -> None:  # fmt: skip
        assert handle == 7 and a_type == b_type == c_type and algorithm == -1
        self.compute_types.append(compute_type)
        dtype = C_TYPES[a_type]
        scale, keep = numbers(alpha, dtype, 1)[0], numbers(beta, dtype, 1)[0]
        for i in range(batch):
            left = columns(a, dtype, i * stride_a, lda, *((k, m) if transa else (m, k)))
            right = columns(b, dtype, i * stride_b, ldb, *((n, k) if transb else (k, n)))
            result = columns(c, dtype, i * stride_c, ldc, m, n)
            product = scale * ((left.T if transa else left) @ (right.T if transb else right))
            result[...] = product + keep * result if keep else product


def numbers(address: int, dtype: Any, count: int) -> np.ndarray:
    size = np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * (count * size)).from_address(address), dtype)


def columns(address: int, dtype: Any, offset: int, leading: int, rows: int, width: int) -> np.ndarray:
    """The (rows, width) matrix whose columns begin ``leading`` numbers apart; a view."""
    assert leading >= rows
    flat = numbers(address + offset * np.dtype(dtype).itemsize, dtype, (width - 1) * leading + rows)
    return np.lib.stride_tricks.as_strided(
        flat, (rows, width), (flat.itemsize, leading * flat.itemsize), writeable=True
    )


@pytest.fixture
def cublas(monkeypatch: pytest.MonkeyPatch) -> Cublas:
    """A CuPy whose cuBLAS is that of this file."""
    cupy, cuda, library = types.ModuleType("cupy"), types.ModuleType("cupy.cuda"), Cublas()
    cupy.cuda, cuda.cublas = cuda, library  # type: ignore[attr-defined]
    cuda.device = types.SimpleNamespace(get_cublas_handle=lambda: 7)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupy.cuda", cuda)
    return library


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["one", "batch", "turned", "parts", "shared"])
def test_cublas_multiplies(cublas: Cublas, kind: str, dtype: str, add: bool) -> None:
    """out = a b, or out += a b; with NaN in out where it is overwritten."""
    rng = np.random.default_rng(3)
    a, b, out = (rng.normal(size=shape).astype(dtype) for shape in ((3, 4, 5), (3, 5, 6), (3, 4, 6)))
    if kind == "one":
        a, b, out = a[0], b[0], out[0]
    elif kind == "turned":
        a, b = (np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1) for x in (a, b))
    elif kind == "parts":
        a, b, out = a[:, 1:3, 1:], b[:, 1:, 2:5], out[:, 2:, 1:4]
    elif kind == "shared":
        a = a[0]
    expected = a.astype(np.float64) @ b + (out if add else 0)
    if not add:
        out[...] = np.nan
    device = Device(np)
    for compute in ("float32", "tf32", "bf16"):
        device.compute = compute
        target = out if compute == "float32" else out.copy()
        gpu_gemm.multiply(device, *map(DeviceArray, (a, b, target)), add=add)  # type: ignore[arg-type]
        if compute == "float32":
            np.testing.assert_allclose(target, expected, rtol=0, atol=1e-5 if dtype == "float32" else 1e-13)
    # CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_COMPUTE_32F_FAST_16BF; CUBLAS_COMPUTE_64F
    assert cublas.compute_types == ([68, 77, 75] if dtype == "float32" else [70] * 3)


# ---- rounding, where the host multiplies


@pytest.mark.parametrize("compute", DROPPED)
def test_rounded_is_to_nearest_even(compute: str) -> None:
    """By the definition: 24, 11 or 8 significant bits, of two equally near numbers the even one."""
    rng = np.random.default_rng(0)
    exponents = rng.integers(-60, 60, 4000)
    x = np.ldexp(rng.integers(-(1 << 12), 1 << 12, 4000), exponents).astype(np.float32)  # many ties
    x = np.concatenate([x, rng.normal(size=4000).astype(np.float32), np.float32([0, 1, 2**20 - 1])])
    fraction, exponent = np.frexp(x.astype(np.float64))
    significant = 24 - DROPPED[compute]
    expected = np.ldexp(np.rint(np.ldexp(fraction, significant)), exponent - significant)
    np.testing.assert_array_equal(rounded(x, compute), expected)


@pytest.mark.parametrize("compute", DROPPED)
def test_rounded_leaves_infinities_nan_and_float64(compute: str) -> None:
    odd = np.array([np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(rounded(odd, compute), odd)
    third = np.array([1 / 3])
    assert rounded(third, compute)[0] == 1 / 3


@pytest.mark.parametrize(("compute", "significant"), [("float32", 24), ("tf32", 11), ("bf16", 8)])
def test_products_on_the_host_are_rounded(emulated: Device, compute: str, significant: int) -> None:
    """1 + 2^-s, the last bit of s + 1, is lost with s significant bits; float64 is exact."""
    emulated.compute = compute
    for bits in range(2, 24):
        x = emulated.xp.asarray(np.full((1, 1), 1 + 2.0 ** -(bits - 1), np.float32))
        out, ones = emulated.xp.zeros((1, 1), "float32"), emulated.xp.ones((1, 1), "float32")
        gpu_gemm.multiply(emulated, x, ones, out)
        gpu_gemm.multiply(emulated, ones, x, out, add=True)
        kept = 2.0 ** -(bits - 1) if bits <= significant else 0
        assert math.isclose(float(out[0, 0]), 2 + 2 * kept, rel_tol=2.0**-23)
        double = emulated.xp.zeros((1, 1))
        gpu_gemm.multiply(emulated, x.astype("float64"), ones.astype("float64"), double)
        assert float(double[0, 0]) == 1 + 2.0 ** -(bits - 1)
