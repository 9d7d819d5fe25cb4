"""Box arithmetic of Fast R-CNN: overlaps, regression targets and their decoding, clipping.

Boxes are x1, y1, x2, y2 in image pixels, 0-based, the last row and column inclusive. Two widths are
in use, as in the original code:

    overlaps, areas, NMS     w = x2 - x1 + 1
    regression targets       w = x2 - x1 + EPS    (cfg.EPS, 1e-14; later R-CNN codes have + 1 here)

Shapes: N boxes, M other boxes, K classes (0 is the background).
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from caffe_lite.data.config import cfg

Float64 = NDArray[np.float64]


def bbox_overlaps(boxes: ArrayLike, query_boxes: ArrayLike) -> Float64:
    """Intersection over union of (N, 4) boxes with (M, 4) others, widths with + 1: (N, M) float64 in [0, 1]."""
    first = np.ascontiguousarray(boxes, dtype=np.float64)
    second = np.ascontiguousarray(query_boxes, dtype=np.float64)
    overlaps = np.zeros((len(first), len(second)))
    if overlaps.size:
        _overlaps(first, second, overlaps)
    return overlaps


@numba.njit(cache=True, nogil=True)
def _area(box: np.ndarray) -> float:
    return (box[2] - box[0] + 1.0) * (box[3] - box[1] + 1.0)


@numba.njit(cache=True, nogil=True, inline="always")
def _overlap(box: np.ndarray, area: float, other: np.ndarray, other_area: float) -> float:
    """Intersection over union of two boxes of these areas."""
    w = min(box[2], other[2]) - max(box[0], other[0]) + 1.0
    if w <= 0.0:
        return 0.0
    h = min(box[3], other[3]) - max(box[1], other[1]) + 1.0
    if h <= 0.0:
        return 0.0
    return w * h / (area + other_area - w * h)


@numba.njit(cache=True, nogil=True)
def _overlaps(boxes: np.ndarray, query: np.ndarray, out: np.ndarray) -> None:
    for m in range(query.shape[0]):
        area = _area(query[m])
        for n in range(boxes.shape[0]):
            out[n, m] = _overlap(boxes[n], _area(boxes[n]), query[m], area)


def best_overlaps(boxes: ArrayLike, query_boxes: ArrayLike) -> tuple[Float64, NDArray[np.int64]]:
    """For each of (N, 4) boxes its largest overlap with (M, 4) others, and with which: (N,) each.

    Maximum and first argmax of :func:`bbox_overlaps` over its rows, without that matrix; 0 and 0 if M is 0.
    """
    first = np.ascontiguousarray(boxes, dtype=np.float64)
    second = np.ascontiguousarray(query_boxes, dtype=np.float64)
    best, which = np.zeros(len(first)), np.zeros(len(first), dtype=np.int64)
    if len(first) and len(second):
        _best_overlaps(first, second, best, which)
    return best, which


@numba.njit(cache=True, nogil=True)
def _best_overlaps(boxes: np.ndarray, query: np.ndarray, best: np.ndarray, which: np.ndarray) -> None:
    for n in range(boxes.shape[0]):
        area = _area(boxes[n])
        for m in range(query.shape[0]):
            overlap = _overlap(boxes[n], area, query[m], _area(query[m]))
            if overlap > best[n]:
                best[n], which[n] = overlap, m


def bbox_transform(boxes: ArrayLike, gt_boxes: ArrayLike) -> Float64:
    """Targets (N, 4) float64 that move each of (N, 4) boxes onto the same row of ``gt_boxes``.

    Columns dx, dy (centre offset in widths and heights of the box) and dw, dh (log of the size
    ratio); paper, section 2.3, and R-CNN's appendix C. Widths with EPS and no + 1.
    """
    width, height, x, y = _size_and_centre(np.asarray(boxes, dtype=np.float64))
    gt_width, gt_height, gt_x, gt_y = _size_and_centre(np.asarray(gt_boxes, dtype=np.float64))
    return np.stack(
        ((gt_x - x) / width, (gt_y - y) / height, np.log(gt_width / width), np.log(gt_height / height)), axis=1
    )


def bbox_transform_inv(boxes: ArrayLike, deltas: NDArray[np.floating]) -> Float64:
    """Move (N, 4) boxes by (N, 4K) deltas, class-major, as predicted: (N, 4K) float64 boxes.

    The inverse of :func:`bbox_transform`, widths with EPS and no + 1. Sizes are exp(dw) in the type
    of ``deltas`` (float32 from a net), as in the original. An overflow gives an infinite box, which
    :func:`clip_boxes` reduces to the image.
    """
    deltas = np.asarray(deltas)
    width, height, x, y = (column[:, np.newaxis] for column in _size_and_centre(np.asarray(boxes, dtype=np.float64)))
    centre_x = deltas[:, 0::4] * width + x
    centre_y = deltas[:, 1::4] * height + y
    with np.errstate(over="ignore"):
        half_width = 0.5 * (np.exp(deltas[:, 2::4]) * width)
        half_height = 0.5 * (np.exp(deltas[:, 3::4]) * height)
    moved = np.empty(deltas.shape, dtype=np.float64)
    moved[:, 0::4] = centre_x - half_width
    moved[:, 1::4] = centre_y - half_height
    moved[:, 2::4] = centre_x + half_width
    moved[:, 3::4] = centre_y + half_height
    return moved


def clip_boxes(boxes: NDArray[np.floating], im_shape: tuple[int, ...]) -> NDArray[np.floating]:
    """Clip (N, 4K) boxes to an image of ``im_shape`` (H, W, ...), in place, and return them.

    The original's rule: x1, y1 are only raised to 0, x2 and y2 only lowered to W - 1 and H - 1. A box
    wholly outside the image keeps its far corner and comes out reversed.
    """
    np.maximum(boxes[:, 0::4], 0, out=boxes[:, 0::4])
    np.maximum(boxes[:, 1::4], 0, out=boxes[:, 1::4])
    np.minimum(boxes[:, 2::4], im_shape[1] - 1, out=boxes[:, 2::4])
    np.minimum(boxes[:, 3::4], im_shape[0] - 1, out=boxes[:, 3::4])
    return boxes


def _size_and_centre(boxes: Float64) -> tuple[Float64, Float64, Float64, Float64]:
    """(N, 4) boxes as width, height (EPS, no + 1), centre x, centre y: (N,) each."""
    width = boxes[:, 2] - boxes[:, 0] + cfg.EPS
    height = boxes[:, 3] - boxes[:, 1] + cfg.EPS
    return width, height, boxes[:, 0] + 0.5 * width, boxes[:, 1] + 0.5 * height
