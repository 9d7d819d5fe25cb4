"""EdgeBoxes: boxes ranked by the contours that lie wholly inside them (Zitnick and Dollar, ECCV 2014).

OpenCV scores the boxes; the edges come from its structured forest, whose trained model is a file of
one's own (``model.yml.gz`` of OpenCV's extra data), or, in :func:`gradient_edges`, from the image's
gradient, which needs no model and finds texture as readily as outlines. Boxes are (R, 4) uint16 rows
x1, y1, x2, y2, image pixels, 0-based, inclusive, best first.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe_lite.data.proposals import ximgproc
from caffe_lite.errors import DataError

Float32 = NDArray[np.float32]
MAX_BOXES = 10000
_PEAK = 99.5  # the gradient at this percentile counts as an edge of full strength
_SIGMA = 1.5  # smoothing before the gradient, pixels


def edge_boxes(image: NDArray[np.uint8], top_k: int = MAX_BOXES, model: str | None = None) -> NDArray[np.uint16]:
    """The ``top_k`` best boxes of an (H, W, 3) uint8 BGR image.

    model: the structured forest's file; None takes the gradient's edges.
    Raises DataError if the model cannot be read, or OpenCV lacks its contributed modules.
    """
    import cv2

    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise DataError(f"EdgeBoxes: expected an (H, W, 3) uint8 image, got {image.shape} {image.dtype}")
    module = ximgproc()
    edges, orientation = gradient_edges(image) if model is None else _structured_edges(image, load_model(model))
    if min(edges.shape) < 4 or not edges.any():
        return np.zeros((0, 4), np.uint16)
    try:
        found, _ = module.createEdgeBoxes(maxBoxes=int(top_k)).getBoundingBoxes(edges, orientation)
    except cv2.error as error:
        raise DataError(f"EdgeBoxes failed on an image of {image.shape}: {error}") from error
    rows = np.asarray(found, np.int64).reshape(-1, 4)[:top_k]
    last = np.array([image.shape[1] - 1, image.shape[0] - 1])
    first = np.clip(rows[:, :2], 0, last)
    boxes = np.hstack((first, np.clip(rows[:, :2] + rows[:, 2:] - 1, first, last)))
    return boxes.astype(np.uint16)


def gradient_edges(image: NDArray[np.uint8]) -> tuple[Float32, Float32]:
    """Edge strength in [0, 1], thinned to ridges, and the direction across the edge in [0, pi): (H, W) each.

    Of the three channels the one with the largest gradient counts; a pixel stays if no neighbour across
    the edge is stronger.
    """
    import cv2

    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), _SIGMA)
    dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3) for order in ((1, 0), (0, 1)))
    strength = dx * dx + dy * dy
    channel = strength.argmax(axis=2)[..., np.newaxis]
    dx, dy, strength = (np.take_along_axis(a, channel, axis=2)[..., 0] for a in (dx, dy, np.sqrt(strength)))
    peak = np.percentile(strength, _PEAK)
    if peak > 0:
        strength = np.minimum(strength / peak, 1.0)
    height, width = strength.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    norm = np.maximum(np.hypot(dx, dy), 1e-12)
    ridge = np.ones(strength.shape, dtype=bool)
    for side in (-1.0, 1.0):
        across = cv2.remap(
            strength, x + side * dx / norm, y + side * dy / norm, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        ridge &= strength >= across
    return np.where(ridge, strength, 0).astype(np.float32), np.mod(np.arctan2(dy, dx), np.pi).astype(np.float32)


def load_model(path: str) -> Any:
    """OpenCV's structured forest of the file; DataError naming it if there is none or it is damaged."""
    import cv2

    if not os.path.isfile(path):
        raise DataError(
            f"{path}: no such model of structured edges; EdgeBoxes needs OpenCV's model.yml.gz "
            "(method edge_boxes), or takes edges from the gradient (method gradient_edge_boxes)"
        )
    try:
        return ximgproc().createStructuredEdgeDetection(path)
    except (cv2.error, SystemError) as error:
        raise DataError(f"{path}: not a model of structured edges that OpenCV can read: {error}") from error


def _structured_edges(image: NDArray[np.uint8], detector: Any) -> tuple[Float32, Float32]:
    edges = detector.detectEdges(np.ascontiguousarray(image[:, :, ::-1], dtype=np.float32) / 255)
    orientation = detector.computeOrientation(edges)
    return detector.edgesNms(edges, orientation), orientation
