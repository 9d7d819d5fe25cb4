"""Labels and indices: blobs of floats whose values number the classes, or the rows, of another blob.

Caffe casts each value to an int, which cuts its fraction off, and reads foreign memory where the result is out
of range. Here such a value, NaN and infinities included, is a DataError on the CPU; a GPU is not asked for its
verdict, so there the layer turns what belongs to BAD numbers into NaN.
"""

from __future__ import annotations

from typing import Any

from caffe_lite.errors import DataError
from caffe_lite.layer import Layer

IGNORED, BAD = -1, -2  # what stands in for a number


def read_numbers(layer: Layer, values: Any, count: int, what: str, ignore: int | None = None) -> Any:
    """``values``, floats in any shape, as int64 in ``[0, count)``, IGNORED or (on a GPU only) BAD.

    Args:
        what: names a value in the error, before its position: ``"label of row"``.
        ignore: values that this is the integer part of become IGNORED; None: no value does.

    Raises:
        DataError: on the CPU, a value is neither in range nor ignored; it names layer, position and value.
    """
    xp = layer.xp
    fits = (values > -1) & (values < count)  # -0.5 is cast to 0; a NaN does not fit
    numbers = xp.where(fits, values, BAD).astype("int64")
    if ignore is not None:
        numbers[xp.trunc(values) == ignore] = IGNORED
    if not layer.device.is_gpu and (numbers == BAD).any():
        at = int((numbers == BAD).argmax())
        wanted = f"[0, {count})" + ("" if ignore is None else f" or ignore_label {ignore}")
        raise DataError(layer.explain(f"{what} {at} must be in {wanted}, got {values.reshape(-1)[at]:g}"))
    return numbers
