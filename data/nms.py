"""Greedy non-maximum suppression, equal to the original's compiled one.

The best box is kept and every later one whose overlap with it is >= ``thresh`` is dropped, and so on.
Widths have + 1; areas and overlaps are float32, and the comparison with ``thresh`` is in float64:
with thresh 0.3 an overlap of exactly 3/10 is dropped, because float32(0.3) > 0.3.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


def nms(dets: NDArray[np.floating], thresh: float) -> NDArray[np.int64]:
    """Rows of ``dets`` to keep, best score first.

    ``dets``: (D, 5) x1, y1, x2, y2, score; converted to float32. Of equal scores the later row comes
    first on every machine (the original left the order of ties to its sort).
    """
    dets = np.ascontiguousarray(dets, dtype=np.float32).reshape(-1, 5)
    order = dets[:, 4].argsort(kind="stable")[::-1].copy()
    return _nms(dets[order], order, float(thresh))


@numba.njit(cache=True)
def _nms(boxes: np.ndarray, order: np.ndarray, thresh: float) -> np.ndarray:
    one, zero = np.float32(1), np.float32(0)  # plain 1 and 0 would make float64 of everything
    count = boxes.shape[0]
    areas = (boxes[:, 2] - boxes[:, 0] + one) * (boxes[:, 3] - boxes[:, 1] + one)
    dropped = np.zeros(count, dtype=np.bool_)
    keep = np.empty(count, dtype=np.int64)
    kept = 0
    for i in range(count):
        if dropped[i]:
            continue
        keep[kept] = order[i]
        kept += 1
        for j in range(i + 1, count):
            if dropped[j]:
                continue
            w = max(zero, min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0]) + one)
            h = max(zero, min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1]) + one)
            inter = w * h
            if np.float64(inter / (areas[i] + areas[j] - inter)) >= thresh:
                dropped[j] = True
    return keep[:kept]
