"""Matrix products on a GPU: cuBLAS, one call for a whole batch, in the precision that the device is set to.

Arrays are row-major; a matrix may be the transpose of one, or a part of the rows or columns of one. An array
without a batch axis takes part in every product of the batch. ``device.compute`` says how float32 numbers are
multiplied (see ``caffe_lite.device``); float64 ones are always exact products.

cuBLAS counts in columns: out^T = b^T a^T is computed, so ``b`` comes first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from caffe_lite.device import Device

OP_N, OP_T = 0, 1  # cublasOperation_t
REAL = {"float32": 0, "float64": 1}  # cudaDataType: CUDA_R_32F, CUDA_R_64F
# cublasComputeType_t: CUBLAS_COMPUTE_32F, _32F_FAST_TF32, _32F_FAST_16BF
COMPUTE = {"float32": 68, "tf32": 77, "bf16": 75}
COMPUTE_64F = 70
DEFAULT_ALGORITHM = -1
_FACTORS = {name: np.array([0, 1], name) for name in REAL}
FACTORS = {  # name of a dtype: addresses of 0 and 1 on the host, where cuBLAS reads its alpha and beta
    name: (both.ctypes.data, both.ctypes.data + both.itemsize) for name, both in _FACTORS.items()
}


class Matrix(NamedTuple):
    """How cuBLAS sees an operand: transposed or not, numbers from column to column, from one of a batch to the next."""

    operation: int
    leading: int
    stride: int


def multiply(device: Device, a: Any, b: Any, out: Any, add: bool = False) -> None:
    """out = a b, or out += a b; a ([N,] M, K), b ([N,] K, L), out ([N,] M, L).

    Raises:
        ValueError: an operand that is neither row-major nor the transpose of a row-major one.
    """
    if not out.size:
        return
    if not a.shape[-1]:
        if not add:
            out[...] = 0
        return
    _gemm(device.compute, a, b, out, add)


def operand(array: Any) -> Matrix:
    """The row-major ``array`` as cuBLAS's column-major matrix array^T."""
    rows, columns = array.shape[-2:]
    down, across = (stride // array.itemsize for stride in array.strides[-2:])
    stride = array.strides[0] // array.itemsize if array.ndim == 3 else 0
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return Matrix(OP_N, max(down, columns) if rows > 1 else columns, stride)
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return Matrix(OP_T, max(across, rows) if columns > 1 else rows, stride)
    raise ValueError(f"an operand of shape {array.shape} and strides {array.strides} is no matrix to cuBLAS")


def _gemm(compute: str, a: Any, b: Any, out: Any, add: bool) -> None:
    from cupy.cuda import cublas, device

    first, second, result = operand(b), operand(a), operand(out)
    if result.operation != OP_N:
        raise ValueError(f"out of shape {out.shape} and strides {out.strides} is not row-major")
    kind = REAL[out.dtype.name]
    zero, one = FACTORS[out.dtype.name]
    cublas.gemmStridedBatchedEx(
        device.get_cublas_handle(), first.operation, second.operation, b.shape[-1], a.shape[-2], a.shape[-1],
        one, b.data.ptr, kind, first.leading, first.stride,
        a.data.ptr, kind, second.leading, second.stride,
        one if add else zero, out.data.ptr, kind, result.leading, result.stride,
        out.shape[0] if out.ndim == 3 else 1,
        COMPUTE_64F if kind == REAL["float64"] else COMPUTE[compute], DEFAULT_ALGORITHM,
    )  # fmt: skip
