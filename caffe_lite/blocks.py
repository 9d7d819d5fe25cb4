"""How the kernels of the CPU cut their work into blocks, and the scratch memory that blocks are laid out in."""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe_lite.device import Device
from caffe_lite.simd import LANES, PANEL

GROUPS = PANEL // LANES  # groups of LANES numbers in a panel
BLOCK_GROUPS = 12  # groups that a thread works on at a time, at most


def ceil_divide(a: int, b: int) -> int:
    return -(-a // b)


def round_up(n: int, multiple: int) -> int:
    return ceil_divide(n, multiple) * multiple


def even_step(groups: int, threads: int) -> int:
    """Groups in a block: as many blocks for each thread, none over BLOCK_GROUPS, panels filled."""
    rounds = ceil_divide(groups, threads * BLOCK_GROUPS)
    step = ceil_divide(groups, threads * rounds)
    return max(step, min(GROUPS, groups))


def scratch_array(device: Device, name: str, size: int, dtype: Any) -> np.ndarray:
    """Flat workspace of ``device`` that starts on a cache line."""
    dtype = np.dtype(dtype)
    spare = 64 // dtype.itemsize
    whole = device.workspace(name, (size + spare,), dtype)
    skip = -whole.ctypes.data % 64 // dtype.itemsize
    return whole[skip : skip + size]
