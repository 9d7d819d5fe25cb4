"""Labels and indices: blobs of floats whose values number the classes, or the rows, of another blob.

Caffe casts each value to an int, which cuts its fraction off, and reads foreign memory where the result is out
of range. Here such a value, NaN and infinities included, is a DataError on the CPU; a GPU is not asked for its
verdict, so there the layer turns what belongs to BAD numbers into NaN.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from caffe_lite.errors import DataError
from caffe_lite.layer import Layer

IGNORED, BAD = -1, -2  # what stands in for a number
NOBODY = np.iinfo(np.int64).min  # an ignore_label that no row has


def read_numbers(layer: Layer, values: Any, count: int, what: str, ignore: int | None = None) -> Any:
    """``values``, floats in any shape, as int64 in ``[0, count)``, IGNORED or (on a GPU only) BAD.

    Args:
        what: names a value in the error, before its position: ``"label of row"``.
        ignore: values that this is the integer part of become IGNORED; None: no value does.

    Raises:
        DataError: on the CPU, a value is neither in range nor ignored; it names layer, position and value.
    """
    xp = layer.xp
    if layer.device.is_gpu:
        fits = (values > -1) & (values < count)  # -0.5 is cast to 0; a NaN does not fit
        numbers = xp.where(fits, values, BAD).astype("int64")
        if ignore is not None:
            numbers[xp.trunc(values) == ignore] = IGNORED
        return numbers
    numbers = np.empty(values.shape, np.int64)
    flat = values.reshape(-1)
    at = _read(flat, count, NOBODY if ignore is None else ignore, numbers.reshape(-1))
    if at >= 0:
        wanted = f"[0, {count})" + ("" if ignore is None else f" or ignore_label {ignore}")
        raise DataError(layer.explain(f"{what} {at} must be in {wanted}, got {flat[at]:g}"))
    return numbers


@numba.njit(cache=True)
def _read(values: np.ndarray, count: int, ignore: int, numbers: np.ndarray) -> int:
    """Fill ``numbers``; the position of the first value that is out of range, -1 if none is."""
    for i in range(values.size):
        if np.trunc(values[i]) == ignore:
            numbers[i] = IGNORED
        elif -1 < values[i] < count:
            numbers[i] = np.int64(values[i])
        else:
            return i
    return -1
