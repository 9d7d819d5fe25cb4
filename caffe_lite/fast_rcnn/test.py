"""Detection: regions of one image through a net, and of a whole imdb with caps, NMS and evaluation.

Girshick, Fast R-CNN (2015), section 3, and the original's test code, to its rounding rules.

    K  classes, 0 is the background        R  regions (proposals) of an image
    S  levels of the image pyramid         D  detections of one class in one image

Boxes are x1, y1, x2, y2 in image pixels, 0-based and inclusive. ``all_boxes[k][i]`` is the (D, 5)
float32 array (x1, y1, x2, y2, score) of class k in image i; entry 0, the background, stays empty.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe_lite.atomic import atomic_write
from caffe_lite.data.boxes import bbox_transform_inv, clip_boxes
from caffe_lite.data.config import cfg, get_output_dir
from caffe_lite.data.image_blob import Float32, im_list_to_blob, read_image, scale_image, subtract_means
from caffe_lite.data.nms import nms
from caffe_lite.errors import DataError, NetError
from caffe_lite.progress import progress_bar

AllBoxes = list[list[Float32]]
Detect = Callable[[Any, NDArray[np.uint8], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]

RESULTS = ("cls_score", "cls_prob", "bbox_pred")  # blobs that im_detect reads
PER_IMAGE = 100  # detections kept in an image, for each class
PER_SET = 40  # detections kept in the whole set, for each class and image in it
_ANCHOR_AREA = 224.0 * 224.0  # a region goes to the level where its area is nearest to this


def im_detect(net: Any, im: NDArray[np.uint8], boxes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores (R, K) float32 and boxes (R, 4K) float64, one for each class, of (R, 4) regions of an image.

    ``net`` is a TEST net with inputs ``data`` and ``rois``; ``im`` is (H, W, 3), B, G, R. Boxes are
    clipped to the image. Regions that round to the same one at ``cfg.DEDUP_BOXES`` are computed
    once and share their representative's result (as in the original, the pyramid level is no part
    of that comparison, because it too is scaled down, to 0).

    Raises NetError if the net lacks a blob that the settings ask for.
    """
    boxes = np.asarray(boxes).reshape(-1, 4)
    score_blob = "cls_score" if cfg.TEST.SVM else "cls_prob"
    _check_blobs(net, ["data", "rois", score_blob] + (["bbox_pred"] if cfg.TEST.BBOX_REG else []))
    if len(boxes) == 0:
        k = int(net.blobs[score_blob].shape[1])
        return np.zeros((0, k), np.float32), np.zeros((0, 4 * k))
    data, scales = image_pyramid(im)
    rois = project_rois(boxes, scales)
    inverse = None
    if cfg.DEDUP_BOXES > 0:
        index, inverse = _unique_rois(rois)
        rois, boxes = rois[index], boxes[index]
    net.blobs["data"].reshape(*data.shape)
    net.blobs["rois"].reshape(*rois.shape)
    outputs = net.forward(data=data, rois=rois)
    scores = np.array(net.blobs["cls_score"].data if cfg.TEST.SVM else outputs["cls_prob"])
    scores = scores.reshape(len(rois), -1)
    if cfg.TEST.BBOX_REG:
        deltas = np.asarray(outputs["bbox_pred"]).reshape(len(rois), -1)
        found = clip_boxes(bbox_transform_inv(boxes, deltas), im.shape)
    else:
        found = np.tile(boxes.astype(np.float64), (1, scores.shape[1]))
    if inverse is not None:
        scores, found = scores[inverse], found[inverse]
    return scores, found


def image_pyramid(im: NDArray[np.uint8]) -> tuple[Float32, NDArray[np.float64]]:
    """``data`` (S, 3, H', W') with one level for each of cfg.TEST.SCALES, and their scales (S,)."""
    centred = subtract_means(im, cfg.PIXEL_MEANS)
    levels = [scale_image(centred, target, cfg.TEST.MAX_SIZE) for target in cfg.TEST.SCALES]
    return im_list_to_blob([level for level, _ in levels]), np.array([scale for _, scale in levels])


def project_rois(boxes: NDArray[Any], scales: NDArray[np.float64], anchor_area: float = _ANCHOR_AREA) -> Float32:
    """``rois`` (R, 5), rows (level, x1, y1, x2, y2) in pixels of that level of the pyramid.

    The level is the one where the area, widths with + 1, comes nearest to ``anchor_area``, 224 x 224
    pixels; of equally near ones the first.
    """
    regions = boxes.astype(np.float64)
    levels = np.zeros(len(regions), dtype=np.int64)
    if len(scales) > 1:
        areas = (regions[:, 2] - regions[:, 0] + 1) * (regions[:, 3] - regions[:, 1] + 1)
        levels = np.abs(areas[:, np.newaxis] * scales**2 - anchor_area).argmin(axis=1)
    rois = np.empty((len(regions), 5), dtype=np.float32)
    rois[:, 0] = levels
    rois[:, 1:] = regions * scales[levels, np.newaxis]
    return rois


def _unique_rois(rois: Float32) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of ``rois`` to compute, and for every row which of those stands for it."""
    hashes = np.round(rois * cfg.DEDUP_BOXES).dot(np.array([1, 1e3, 1e6, 1e9, 1e12]))
    _, index, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return index, inverse.reshape(-1)


def _check_blobs(net: Any, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in net.blobs]
    if missing:
        hint = "; for a net without box regression: --set TEST.BBOX_REG False" if missing == ["bbox_pred"] else ""
        raise NetError(
            f"the net has no blob {', '.join(map(repr, missing))}, which detection needs; "
            f"expected a test.prototxt with inputs data and rois and outputs cls_prob and bbox_pred{hint}"
        )


class ScoreCap:
    """The score that a detection must exceed so that at most ``limit`` of one class are kept.

    What the original does with a heap of the best ``limit`` scores, in one partition for every
    ``limit`` scores pushed: ``threshold`` may lag behind the heap's between images, and is equal to
    it after ``settle``.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.threshold = -np.inf
        self._best = np.empty(0, np.float32)
        self._pending: list[Float32] = []
        self._waiting = 0

    def push(self, scores: Float32) -> None:
        self._pending.append(scores)
        self._waiting += len(scores)
        if self._waiting > self.limit:
            self.settle()

    def settle(self) -> float:
        """Take in what was pushed; the threshold."""
        scores = np.concatenate([self._best, *self._pending])
        self._pending, self._waiting = [], 0
        if len(scores) > self.limit:
            scores = np.partition(scores, len(scores) - self.limit)[len(scores) - self.limit :]
            self.threshold = float(scores.min())
        self._best = scores
        return self.threshold


def collect(scores: Float32, boxes: NDArray[Any], allowed: NDArray[np.bool_], threshold: float, k: int) -> Float32:
    """The detections (D, 5) of class ``k`` in one image: over the threshold, the best 100, best first."""
    inds = np.flatnonzero((scores[:, k] > threshold) & allowed)
    inds = inds[np.argsort(-scores[inds, k], kind="stable")[:PER_IMAGE]]
    return np.hstack((boxes[inds, 4 * k : 4 * k + 4], scores[inds, k, np.newaxis])).astype(np.float32)


def detect_all(net: Any, imdb: Any, progress: bool = True, detect: Detect = im_detect) -> AllBoxes:
    """Detections of every image of ``imdb`` before NMS, capped per image and per set and class.

    ``detect(net, im, boxes)`` gives the scores and boxes of an image's regions, as :func:`im_detect`.

    Regions that are ground truth (gt_classes > 0) are not scored as detections.
    """
    roidb = imdb.roidb
    count = len(imdb.image_index)
    all_boxes: AllBoxes = [[np.zeros((0, 5), np.float32)] * count for _ in range(imdb.num_classes)]
    caps = [ScoreCap(PER_SET * count) for _ in range(imdb.num_classes)]
    for i in progress_bar(range(count), desc="test", unit="image", disable=not progress):
        path = imdb.image_path_at(i)
        scores, boxes = detect(net, read_image(path), roidb[i]["boxes"])
        if scores.shape[1] != imdb.num_classes:
            raise NetError(
                f"the net scores {scores.shape[1]} classes, background included, but imdb {imdb.name} has "
                f"{imdb.num_classes}; use the test.prototxt whose cls_score has num_output: {imdb.num_classes}"
            )
        allowed = roidb[i]["gt_classes"] == 0
        for k in range(1, imdb.num_classes):
            all_boxes[k][i] = collect(scores, boxes, allowed, caps[k].threshold, k)
            caps[k].push(all_boxes[k][i][:, 4])
    for k in range(1, imdb.num_classes):
        threshold = caps[k].settle()
        all_boxes[k] = [dets[dets[:, 4] > threshold] for dets in all_boxes[k]]
    return all_boxes


def apply_nms(all_boxes: AllBoxes, thresh: float) -> AllBoxes:
    """``all_boxes`` with what overlaps a better box of its class by ``thresh`` or more removed."""
    return [[dets[nms(dets, thresh)] if len(dets) else dets for dets in images] for images in all_boxes]


def test_net(net: Any, imdb: Any, output_dir: str | os.PathLike[str] | None = None, progress: bool = True) -> Any:
    """Detect on every image of ``imdb``, save the detections, apply NMS, evaluate.

    Writes ``detections.npz`` (before NMS, see :func:`save_detections`) and what the imdb's
    evaluation writes into ``output_dir`` (default: cfg's folder for this imdb and net.name).
    Returns what ``imdb.evaluate_detections`` returns.
    """
    output_dir = make_output_dir(output_dir or get_output_dir(imdb, net))
    all_boxes = detect_all(net, imdb, progress)
    save_detections(os.path.join(output_dir, "detections.npz"), all_boxes, imdb)
    return imdb.evaluate_detections(apply_nms(all_boxes, cfg.TEST.NMS), output_dir)


test_net.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test


def save_detections(path: str | os.PathLike[str], all_boxes: AllBoxes, imdb: Any) -> None:
    """Write ``all_boxes`` as .npz, whole or not at all.

    Arrays: ``dets`` (T, 5) float32, all detections by class, then image; ``counts`` (K, N) int64, how
    many of them belong to class k and image i; ``classes`` and ``images``, the names.
    """
    dets = [d for images in all_boxes for d in images]
    with atomic_write(path) as stream:
        np.savez_compressed(
            stream,
            dets=np.concatenate(dets) if dets else np.zeros((0, 5), np.float32),
            counts=np.array([[len(d) for d in images] for images in all_boxes], dtype=np.int64),
            classes=np.array(imdb.classes, dtype=np.str_),
            images=np.array([str(index) for index in imdb.image_index], dtype=np.str_),
        )


def load_detections(path: str | os.PathLike[str]) -> tuple[AllBoxes, list[str], list[str]]:
    """What :func:`save_detections` wrote: all_boxes, class names, image names.

    Raises DataError naming the file if it is missing, damaged or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            dets, counts = saved["dets"], saved["counts"]
            classes, images = saved["classes"].tolist(), saved["images"].tolist()
        if dets.shape != (counts.sum(), 5) or counts.shape != (len(classes), len(images)) or (counts < 0).any():
            raise ValueError(f"arrays do not go together: dets {dets.shape}, counts {counts.shape}")
    except Exception as error:  # numpy and zipfile raise a dozen types on a damaged file
        raise DataError(f"{os.fspath(path)}: not a file of detections: {error}") from error
    pieces = np.split(dets, np.cumsum(counts.ravel())[:-1]) if counts.size else []
    step = len(images)
    return [pieces[k * step : (k + 1) * step] for k in range(len(classes))], classes, images


def make_output_dir(folder: str | os.PathLike[str]) -> str:
    """Create ``folder`` if need be and make sure a file can be written there; its path.

    Raises DataError naming the folder, so that hours of work do not end in an unwritable place.
    """
    folder = os.fspath(folder)
    probe = os.path.join(folder, f".probe-{os.getpid()}")
    try:
        os.makedirs(folder, exist_ok=True)
        with open(probe, "wb"):
            pass
        os.unlink(probe)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot write to the output folder: {error.strerror or error}; "
            "make it writable or choose another with --out"
        ) from error
    return folder
