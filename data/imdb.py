"""Imdb: the list of a dataset's images with the regions of interest of each, the roidb.

Behaves as fast-rcnn's ``datasets/imdb.py``. K classes count the background; an image has R regions,
ground truth first, then proposals. An entry of the roidb is a dictionary:

    boxes         (R, 4)  uint16   x1, y1, x2, y2, image pixels, 0-based, inclusive
    gt_classes    (R,)    int32    class of a ground-truth box, 0 for a proposal
    gt_overlaps   (R, K)  csr_matrix float32: 1 for ground truth at its class; for a proposal the
                          IoU with its best ground-truth box, at that box's class only
    flipped       bool    the image is to be mirrored when read
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from caffe_lite.data.boxes import bbox_overlaps
from caffe_lite.data.image_blob import image_size, read_image
from caffe_lite.errors import DataError

Roidb = list[dict[str, Any]]


class Recall(NamedTuple):
    """What :meth:`Imdb.evaluate_recall` finds; unpacks as the original's tuple."""

    ar: float  # average recall: twice the area under recall over IoU 0.5 to 1
    gt_overlaps: np.ndarray  # (G,) sorted IoU of each ground-truth box with the candidate matched to it
    recalls: np.ndarray  # (501,) share of ground-truth boxes with IoU >= threshold
    thresholds: np.ndarray  # (501,) 0.5, 0.501, ..., 1.0

    def at(self, iou: float) -> float:
        """Recall at one IoU threshold in [0, 1]."""
        return float(np.mean(self.gt_overlaps >= iou)) if self.gt_overlaps.size else 0.0


class Imdb:
    """Base of all datasets: a subclass gives the images, the ground truth and the proposals.

    name: used in file names; classes: the K class names, ``'__background__'`` first.
    """

    def __init__(self, name: str, classes: Sequence[str], image_index: Sequence[str] = ()) -> None:
        self.name = name
        self.classes = tuple(classes)
        if not self.classes or self.classes[0] != "__background__" or len(set(self.classes)) != len(self.classes):
            raise DataError(f"{name}: classes must be distinct and start with '__background__', got {self.classes}")
        self.image_index = list(image_index)
        self.roidb_handler: Callable[[], Roidb] = self.gt_roidb
        self.config: dict[str, Any] = {"cleanup": True, "use_salt": True, "top_k": 2000}
        self._roidb: Roidb | None = None

    @property
    def num_classes(self) -> int:
        """K, the background included."""
        return len(self.classes)

    @property
    def num_images(self) -> int:
        """Entries of the roidb: twice the images once flipped ones are appended."""
        return len(self.image_index)

    @property
    def roidb(self) -> Roidb:
        """One entry an image, made by ``roidb_handler`` at the first use and kept."""
        if self._roidb is None:
            self._roidb = self.roidb_handler()
        return self._roidb

    def image_path_at(self, i: int) -> str:
        """Path of image i."""
        raise NotImplementedError(f"{type(self).__name__}.image_path_at")

    def image_size_at(self, i: int) -> tuple[int, int]:
        """(width, height) of image i in pixels, as stored; DataError naming it if it cannot be read."""
        path = self.image_path_at(i)
        size = image_size(path)
        if size is None:  # neither JPEG nor PNG, or damaged
            height, width = read_image(path).shape[:2]
            size = (width, height)
        return size

    def gt_roidb(self) -> Roidb:
        """The roidb of ground truth alone."""
        raise NotImplementedError(f"{type(self).__name__}.gt_roidb")

    def evaluate_detections(
        self, all_boxes: Sequence[Sequence[Any]], output_dir: str | None = None
    ) -> dict[str, float]:
        """Average precision of each class; ``all_boxes[class][image]`` is (D, 5) x1, y1, x2, y2, score."""
        raise NotImplementedError(f"{type(self).__name__}.evaluate_detections")

    def competition_mode(self, on: bool) -> None:
        """On: result files get the names a competition expects (no salt) and are kept."""
        self.config["use_salt"] = not on
        self.config["cleanup"] = not on

    def create_roidb_from_box_list(self, box_list: Sequence[np.ndarray], gt_roidb: Roidb | None) -> Roidb:
        """The roidb of proposals alone.

        box_list: for each image (R, 4) boxes; gt_roidb: what the overlaps are taken with, or None.
        """
        if len(box_list) != self.num_images:
            raise DataError(f"{self.name}: {len(box_list)} lists of proposals for {self.num_images} images")
        roidb = []
        for i, given in enumerate(box_list):
            boxes = _checked_boxes(given, f"{self.name}: proposals of image {self.image_index[i]!r}")
            overlaps = np.zeros((len(boxes), self.num_classes), np.float32)
            if gt_roidb is not None and len(boxes) and len(gt_roidb[i]["boxes"]):
                entry = gt_roidb[i]
                iou = bbox_overlaps(boxes.astype(np.float64), entry["boxes"].astype(np.float64))
                best, value = iou.argmax(axis=1), iou.max(axis=1)
                rows = np.flatnonzero(value > 0)
                overlaps[rows, entry["gt_classes"][best[rows]]] = value[rows]
            roidb.append(
                {
                    "boxes": boxes,
                    "gt_classes": np.zeros(len(boxes), np.int32),
                    "gt_overlaps": scipy.sparse.csr_matrix(overlaps),
                    "flipped": False,
                }
            )
        return roidb

    @staticmethod
    def merge_roidbs(a: Roidb, b: Roidb) -> Roidb:
        """``a`` with the regions of ``b`` appended image by image; ``a`` is changed and returned."""
        if len(a) != len(b):
            raise DataError(f"roidbs of {len(a)} and {len(b)} images cannot be merged")
        for mine, other in zip(a, b, strict=True):
            mine["boxes"] = np.vstack((mine["boxes"], other["boxes"]))
            mine["gt_classes"] = np.hstack((mine["gt_classes"], other["gt_classes"]))
            mine["gt_overlaps"] = scipy.sparse.vstack([mine["gt_overlaps"], other["gt_overlaps"]], format="csr")
        return a

    def append_flipped_images(self) -> None:
        """Append each image mirrored left to right; num_images doubles.

        x1' = w - x2 - 1 and x2' = w - x1 - 1. The mirrored entry shares gt_overlaps with its original.
        """
        roidb = self.roidb
        if any(entry["flipped"] for entry in roidb):
            raise DataError(f"{self.name}: the mirrored images are in the roidb already")
        mirrored = []
        for i, entry in enumerate(roidb):
            width = self.image_size_at(i)[0]
            last = int(entry["boxes"][:, 2].max(initial=0))
            if last >= width:
                raise DataError(f"{self.image_path_at(i)}: a box ends at x = {last}, the image is {width} pixels wide")
            boxes = entry["boxes"].copy()
            boxes[:, 0] = width - entry["boxes"][:, 2] - 1
            boxes[:, 2] = width - entry["boxes"][:, 0] - 1
            mirrored.append(
                {
                    "boxes": boxes,
                    "gt_classes": entry["gt_classes"],
                    "gt_overlaps": entry["gt_overlaps"],
                    "flipped": True,
                }
            )
        roidb.extend(mirrored)
        self.image_index = self.image_index * 2

    def evaluate_recall(self, candidate_boxes: Sequence[np.ndarray] | None = None, limit: int | None = None) -> Recall:
        """How well boxes cover the ground truth: recall over IoU 0.5 to 1, and average recall.

        candidate_boxes: for each image (R, 4), by default the proposals of the roidb;
        limit: use the first so many of each image. In every image the pair (candidate, ground truth)
        of largest IoU is matched and taken out, until the ground truth is used up. An image without
        candidates counts as missed; the original left its ground truth out of the total.
        """
        matched = []
        for i, entry in enumerate(self.roidb):
            is_gt = entry["gt_classes"] > 0
            boxes = entry["boxes"][~is_gt] if candidate_boxes is None else np.asarray(candidate_boxes[i]).reshape(-1, 4)
            matched.append(_greedy_overlaps(boxes[:limit], entry["boxes"][is_gt]))
        gt_overlaps = np.sort(np.concatenate(matched)) if matched else np.zeros(0)
        thresholds = np.minimum(np.arange(0.5, 1.0 + 0.001, 0.001), 1.0)
        above = gt_overlaps.size - np.searchsorted(gt_overlaps, thresholds, side="left")
        recalls = above / max(gt_overlaps.size, 1)
        ar = float(np.sum((recalls[1:] + recalls[:-1]) * np.diff(thresholds)))  # 2 x the trapezoidal rule
        return Recall(ar, gt_overlaps, recalls, thresholds)


def _greedy_overlaps(boxes: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """(G,) IoU of each ground-truth box with the candidate matched to it one to one, 0 if none is left."""
    found = np.zeros(len(gt))
    if not len(boxes) or not len(gt):
        return found
    iou = bbox_overlaps(boxes.astype(np.float64), gt.astype(np.float64))
    for j in range(min(len(boxes), len(gt))):
        # ties as in the original: the first ground truth, and its first candidate
        g = int(iou.max(axis=0).argmax())
        b = int(iou[:, g].argmax())
        found[j] = iou[b, g]
        iou[b, :] = -1
        iou[:, g] = -1
    return found


def _checked_boxes(boxes: Any, where: str) -> np.ndarray:
    """(R, 4) uint16 copy of boxes; DataError if they are not boxes or do not fit."""
    array = np.asarray(boxes)
    if array.size == 0:
        return np.zeros((0, 4), np.uint16)
    if array.ndim != 2 or array.shape[1] != 4:
        raise DataError(f"{where}: expected shape (R, 4), got {array.shape}")
    as_float = array.astype(np.float64)
    bad = ~((as_float >= 0) & (as_float <= 65535)).all(axis=1)
    bad |= (as_float[:, 2] < as_float[:, 0]) | (as_float[:, 3] < as_float[:, 1])
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        values = ", ".join(f"{v:g}" for v in as_float[row])
        raise DataError(f"{where}: row {row} is no box within 0..65535: x1, y1, x2, y2 = {values}")
    return array.astype(np.uint16)
