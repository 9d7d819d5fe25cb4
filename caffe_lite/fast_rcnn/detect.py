"""Detection on one image file: regions from a file or selective search, a drawing and a list.

``fast-rcnn detect`` is this module. Without weights the net gets random ones, which shows that a
prototxt runs end to end and how long it takes; what it finds means nothing then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from caffe_lite.data.image_blob import read_image
from caffe_lite.data.proposals import load_demo_mat, selective_search
from caffe_lite.errors import DataError
from caffe_lite.fast_rcnn.detector import check_boxes, class_detections, class_names, num_classes


class Found(NamedTuple):
    """Detections of one image; ``dets[k]`` (D, 5) of class k, over the score and after NMS."""

    image: np.ndarray
    regions: int
    classes: tuple[str, ...]
    dets: list[np.ndarray]
    seconds: float  # of the net and NMS
    best_only: bool  # nothing passed the score, so the best few are given instead
    left_out: int  # detections beyond the best ``top``


def detect_file(
    net: Any,
    image_path: str | os.PathLike[str],
    boxes_path: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
    conf: float = 0.8,
    nms_thresh: float = 0.3,
    fallback: int = 5,
    top: int = 20,
) -> Found:
    """Detect on an image file.

    ``boxes_path``: proposals as .mat (the original demo's) or .npz/.npy, see :func:`load_boxes`;
    None computes selective search. ``classes``: names of the K classes, background first; by default
    VOC's 21 where K is 21, else numbers. If nothing scores ``conf`` the best ``fallback`` are given,
    and never more than the best ``top``.
    """
    im = read_image(image_path)
    boxes = selective_search(im) if boxes_path is None else load_boxes(boxes_path)
    boxes = check_boxes(boxes, im.shape, boxes_path or image_path)
    names = class_names(classes, num_classes(net))
    started = time.perf_counter()
    dets = class_detections(net, im, boxes, -np.inf, nms_thresh)
    seconds = time.perf_counter() - started
    values = np.sort(np.concatenate([d[:, 4] for d in dets]))[::-1]
    passing = int((values >= conf).sum())
    shown = min(passing or fallback, top, len(values))
    least = values[shown - 1] if shown else np.inf
    return Found(
        im, len(boxes), names, [d[d[:, 4] >= least] for d in dets], seconds, not passing, max(passing - top, 0)
    )


def load_boxes(path: str | os.PathLike[str]) -> np.ndarray:
    """Proposals (R, 4) x1, y1, x2, y2, 0-based, of a .mat, .npz (array ``boxes``) or .npy file."""
    where = os.fspath(path)
    if where.endswith(".mat"):
        return load_demo_mat(where)
    try:
        loaded = np.load(where, allow_pickle=False)
        boxes = loaded if isinstance(loaded, np.ndarray) else loaded["boxes"]
    except FileNotFoundError:
        raise DataError(f"{where}: no such file of proposals") from None
    except Exception as error:  # numpy and zipfile raise a dozen types on a damaged file; some advise to unpickle it
        raise DataError(f"{where}: not a .mat, nor an .npy or .npz of numbers, here with an array 'boxes'") from error
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "uif":
        raise DataError(f"{where}: boxes must be numbers of shape (R, 4), got {boxes.dtype} {boxes.shape}")
    return boxes


def random_weights(net: Any, seed: int) -> None:
    """Fill the weights that the prototxt left at zero: Gaussian with variance 1 / (2 fan-in).

    Every layer and its ReLU then quarter the variance, so that classes score about alike: the pixels'
    magnitude of 60 would otherwise saturate the softmax.
    """
    rng = np.random.default_rng(seed)
    for blobs in net.params.values():
        weights = blobs[0].data
        if weights.ndim < 2 or weights.any():
            continue
        for row in weights:  # by outputs: fc6 of VGG16 alone holds 400 MB
            row[...] = rng.standard_normal(row.shape, np.float32) * np.float32(1 / np.sqrt(2 * row.size))
