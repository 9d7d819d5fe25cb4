"""Dense sliding boxes over scale, aspect ratio and position (Fast R-CNN, section 5.5: about 45k an image).

The paper does not say which scales, ratios and strides it took. Here: the whole image, and areas that
fall by half from its own down to ``SMALLEST`` of it, in seven aspect ratios from 1:3 to 3:1;
neighbours are a fixed share of their width and height apart, chosen for each image size such that
about ``count`` boxes come out. Boxes are (R, 4) uint16 rows x1, y1, x2, y2, 0-based, inclusive, large ones first.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from caffe_lite.data.boxes import best_overlaps
from caffe_lite.errors import DataError

COUNT = 45000
RATIOS = (1 / 3, 1 / 2, 2 / 3, 1.0, 3 / 2, 2.0, 3.0)  # width over height
SMALLEST = 1 / 256  # of the image's area; a side is at least MIN_SIDE pixels
MIN_SIDE = 8.0

Boxes = NDArray[np.uint16]


@lru_cache(maxsize=64)
def dense_boxes(width: int, height: int, count: int = COUNT) -> Boxes:
    """At most, and nearly, ``count`` boxes of an image of width x height pixels, no two equal; do not write to them.

    An image with too few pixels gets fewer. Raises DataError for sizes that uint16 cannot hold.
    """
    if not (0 < width <= 65536 and 0 < height <= 65536) or count < 1:
        raise DataError(f"dense boxes: {count} boxes in an image of {width}x{height} pixels")
    shapes = _shapes(width, height)
    low, high = 1e-3, 4.0  # step between neighbours, in widths and heights of the box
    for _ in range(40):
        step = (low + high) / 2
        too_many = sum(_positions(w, width, step) * _positions(h, height, step) for w, h in shapes) > count
        low, high = (step, high) if too_many else (low, step)
    parts = [_grid(w, h, width, height, high) for w, h in shapes]
    boxes = np.concatenate(parts).astype(np.uint16)[:count]
    _, first = np.unique(boxes, axis=0, return_index=True)
    boxes = boxes[np.sort(first)]
    boxes.setflags(write=False)
    return boxes


def sample_boxes(boxes: Boxes, count: int | None, seed: int | list[int]) -> Boxes:
    """``count`` of the boxes drawn without replacement, in their order; None, or more than there are: all.

    seed: of numpy's default generator; the draw is a function of it and the number of boxes.
    """
    if count is None or count >= len(boxes):
        return boxes
    rows = np.random.default_rng(seed).choice(len(boxes), size=count, replace=False)
    return boxes[np.sort(rows)]


def nearest_dense(boxes: Boxes, width: int, height: int, count: int = COUNT) -> Boxes:
    """Every box replaced by the dense one of largest IoU with it; no two equal, order of first appearance."""
    grid = dense_boxes(width, height, count)
    _, which = best_overlaps(boxes, grid)
    return grid[np.array(list(dict.fromkeys(which.tolist())), dtype=np.int64)]


def _shapes(width: int, height: int) -> list[tuple[float, float]]:
    """Widths and heights of the boxes, largest area first; no side exceeds the image's."""
    shapes, area = [(float(width), float(height))], float(width * height)
    while area >= SMALLEST * width * height:
        for ratio in RATIOS:
            w, h = min((area * ratio) ** 0.5, float(width)), min((area / ratio) ** 0.5, float(height))
            if min(w, h) >= min(MIN_SIDE, width, height):
                shapes.append((w, h))
        area /= 2
    return list(dict.fromkeys(shapes))


def _positions(side: float, length: int, step: float) -> int:
    """How many boxes of this side stand along a length."""
    return int((length - side) / (step * side)) + 1


def _grid(w: float, h: float, width: int, height: int, step: float) -> NDArray[np.float64]:
    x = np.rint(np.linspace(0.0, width - w, _positions(w, width, step)))
    y = np.rint(np.linspace(0.0, height - h, _positions(h, height, step)))
    x2 = np.minimum(np.maximum(np.rint(x + w) - 1, x), width - 1)
    y2 = np.minimum(np.maximum(np.rint(y + h) - 1, y), height - 1)
    corners = [np.repeat(v, len(x)) for v in (y, y2)]
    return np.stack((np.tile(x, len(y)), corners[0], np.tile(x2, len(y)), corners[1]), axis=1)
