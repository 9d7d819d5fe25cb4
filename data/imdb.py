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

import numba
import numpy as np
import scipy.sparse

from caffe_lite.data.boxes import bbox_overlaps, best_overlaps
from caffe_lite.data.image_blob import image_size, read_image
from caffe_lite.data.proposal_methods import Options, parse_method, propose
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
    cache_folder: where proposals are kept, None: nowhere.
    """

    cache_folder: str | None = None

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

    @property
    def has_gt(self) -> bool:
        """False for a test set whose annotations are not public."""
        return True

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

    def check_testable(self) -> None:
        """DataError if detections on this imdb could not be written or evaluated; before hours of testing."""
        if len(set(self.image_index)) != self.num_images:
            raise DataError(f"{self.name}: detections cannot be evaluated with the mirrored images appended")

    def set_proposals(self, method: str, options: Options | None = None) -> None:
        """Take the proposals of a method of :mod:`caffe_lite.data.proposal_methods` from now on.

        options: by default those of the module, and the imdb's own cache. Raises DataError for an
        unknown method.
        """
        parse_method(method)
        chosen = options or Options(cache_folder=self.cache_folder)

        def handler() -> Roidb:
            gt = self.gt_roidb() if self.has_gt else None  # its faults are told before the long computation
            paths = [self.image_path_at(i) for i in range(self.num_images)]
            return self.with_gt(gt, propose(method, paths, chosen))

        self.roidb_handler = handler
        self._roidb = None

    def with_gt(self, gt: Roidb | None, boxes: Sequence[np.ndarray]) -> Roidb:
        """Ground truth and proposals, one list of boxes an image; the proposals alone if ``gt`` is None."""
        found = self.create_roidb_from_box_list(boxes, gt)
        return found if gt is None else self.merge_roidbs(gt, found)

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
            value, best = best_overlaps(boxes, gt_roidb[i]["boxes"] if gt_roidb is not None else ())
            overlapped = value > 0
            classes = gt_roidb[i]["gt_classes"][best[overlapped]] if gt_roidb is not None else np.zeros(0, np.int32)
            starts = np.concatenate(([0], np.cumsum(overlapped)))
            roidb.append(
                {
                    "boxes": boxes,
                    "gt_classes": np.zeros(len(boxes), np.int32),
                    "gt_overlaps": _sparse(value[overlapped], classes, starts, self.num_classes),
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
            mine["gt_overlaps"] = _stack(mine["gt_overlaps"], other["gt_overlaps"])
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

    def evaluate_recall(
        self,
        candidate_boxes: Sequence[np.ndarray] | None = None,
        limit: int | None = None,
        gt: Roidb | None = None,
        count_empty: bool = False,
    ) -> Recall:
        """How well boxes cover the ground truth: recall over IoU 0.5 to 1, and average recall.

        candidate_boxes: for each image (R, 4), by default the proposals of the roidb;
        limit: use the first so many of each image; gt: a roidb that holds the ground truth, by default
        the imdb's. In every image the pair (candidate, ground truth)
        of largest IoU is matched and taken out, until the ground truth is used up. The ground truth of
        an image without candidates is left out of the total, as in the original, unless ``count_empty``
        counts it as missed. Crowds (overlap -1) are not counted.
        """
        matched = []
        for i, entry in enumerate(self.roidb if gt is None else gt):
            is_object = entry["gt_classes"] > 0
            boxes = (
                entry["boxes"][~is_object] if candidate_boxes is None else np.asarray(candidate_boxes[i]).reshape(-1, 4)
            )
            counted = is_object & (entry["gt_overlaps"].min(axis=1).toarray().ravel() >= 0)
            if len(boxes) or count_empty:
                matched.append(_greedy_overlaps(boxes[:limit], entry["boxes"][counted]))
        gt_overlaps = np.sort(np.concatenate(matched)) if matched else np.zeros(0)
        thresholds = np.minimum(np.arange(0.5, 1.0 + 0.001, 0.001), 1.0)
        above = gt_overlaps.size - np.searchsorted(gt_overlaps, thresholds, side="left")
        recalls = above / max(gt_overlaps.size, 1)
        ar = float(np.sum((recalls[1:] + recalls[:-1]) * np.diff(thresholds)))  # 2 x the trapezoidal rule
        return Recall(ar, gt_overlaps, recalls, thresholds)


def _greedy_overlaps(boxes: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """(G,) IoU of each ground-truth box with the candidate matched to it one to one, 0 if none is left."""
    found = np.zeros(len(gt))
    if len(boxes) and len(gt):
        _match_greedily(bbox_overlaps(gt, boxes), found)
    return found


@numba.njit(cache=True)
def _match_greedily(iou: np.ndarray, found: np.ndarray) -> None:
    """Largest of (G, R) ``iou`` again and again; ties as in the original: first ground truth, first candidate.

    An object's best candidate is looked up anew only when another object took it.
    """
    objects, candidates = iou.shape
    best = np.empty(objects, dtype=np.int64)
    done = np.zeros(objects, dtype=np.bool_)
    taken = np.zeros(candidates, dtype=np.bool_)
    for g in range(objects):
        best[g] = iou[g].argmax()
    for j in range(min(objects, candidates)):
        winner = -1
        for g in range(objects):
            if not done[g] and (winner < 0 or iou[g, best[g]] > iou[winner, best[winner]]):
                winner = g
        chosen = best[winner]
        found[j] = iou[winner, chosen]
        done[winner] = taken[chosen] = True
        for g in range(objects):
            if not done[g] and best[g] == chosen:
                best[g] = -1
                for b in range(candidates):
                    if not taken[b] and (best[g] < 0 or iou[g, b] > iou[g, best[g]]):
                        best[g] = b


def _sparse(data: np.ndarray, columns: np.ndarray, starts: np.ndarray, width: int) -> scipy.sparse.csr_matrix:
    parts = (data.astype(np.float32), columns.astype(np.int32), starts.astype(np.int32))
    return scipy.sparse.csr_matrix(parts, shape=(len(starts) - 1, width))


def _stack(a: scipy.sparse.csr_matrix, b: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """The rows of ``a``, then those of ``b``; scipy's vstack takes ten times as long on matrices as small as these."""
    starts = np.concatenate((a.indptr, b.indptr[1:] + a.indptr[-1]))
    return _sparse(np.concatenate((a.data, b.data)), np.concatenate((a.indices, b.indices)), starts, a.shape[1])


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
