"""The numbers that a GPU multiplies in place of float32's: tf32 and bf16, with float32's range and fewer bits.

Round to nearest, ties to even, as IEEE 754 has it and as PTX's conversion to bf16 does; that to tf32 takes ties away
from zero. cuBLAS's documentation says which format it converts to, not how it rounds.
"""

from __future__ import annotations

import numpy as np

DROPPED = {"float32": 0, "tf32": 13, "bf16": 16}  # bits of float32's 24 significant ones


def rounded(array: np.ndarray, compute: str) -> np.ndarray:
    """float32 numbers rounded to ``compute``, still float32; any other dtype, infinities and NaN as they are."""
    dropped = DROPPED[compute]
    if array.dtype != np.float32 or not dropped:
        return array
    bits = array.view(np.uint32)
    below_half = (1 << (dropped - 1)) - 1
    up = bits + np.uint32(below_half) + (bits >> np.uint32(dropped) & np.uint32(1))
    kept = (up >> np.uint32(dropped) << np.uint32(dropped)).view(np.float32)
    return np.where(np.isfinite(array), kept, array)
