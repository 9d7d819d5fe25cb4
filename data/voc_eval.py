"""Average precision as PASCAL VOC computes it, and VOC's files of detections.

Follows the matching of the VOC development kit (VOCevaldet): a detection belongs to the object of
its image with which its overlap is largest, widths with + 1, the first of equals; it is right if
that overlap is >= 0.5 and no better-scored detection has taken the object; it counts neither way if
the object is difficult. Detections of equal score keep their order of appearance.

Boxes are x1, y1, x2, y2, 0-based and inclusive; the files count from 1.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from caffe_lite.atomic import atomic_write
from caffe_lite.errors import DataError

Float64 = NDArray[np.float64]
Detections = Mapping[str, NDArray[np.floating]]


class VocResult(NamedTuple):
    """Recall and precision after each detection, best score first, and their average precision."""

    rec: Float64
    prec: Float64
    ap: float


def voc_ap(rec: Float64, prec: Float64, use_07_metric: bool = False) -> float:
    """Average precision of a recall-precision curve, in [0, 1].

    With ``use_07_metric`` (VOC 2007 to 2009) the mean, over the eleven recalls t = 0, 0.1, ..., 1, of
    the largest precision at recall >= t. Each t is the float nearest to k / 10; the kit's 0:0.1:1 is
    a bit more at 0.3, where a recall of exactly 3/10 then falls short. Otherwise the area under the
    curve after each precision is raised to the largest one at its recall or beyond.
    """
    if use_07_metric:
        best = [prec[rec >= k / 10].max(initial=0.0) for k in range(11)]
        return float(np.mean(best))
    rec = np.concatenate(([0.0], rec, [1.0]))
    prec = np.concatenate(([0.0], prec, [0.0]))
    envelope = np.maximum.accumulate(prec[::-1])[::-1]
    return float(np.sum(np.diff(rec) * envelope[1:]))


def voc_eval(
    class_detections: Detections,
    class_gt: Mapping[str, Mapping[str, Any]],
    ovthresh: float = 0.5,
    use_07_metric: bool = False,
) -> VocResult:
    """Match the detections of one class with its objects and compute recall, precision and AP.

    class_detections: image id -> (N, 5) x1, y1, x2, y2, score. Scores are used as given; the official
        evaluation sees those of a results file, rounded to three decimals (:func:`read_voc_results`).
    class_gt: image id -> {"boxes": (G, 4), "difficult": (G,) bool, none if absent}; an image without
        objects of the class may be absent.

    The AP of a class without objects (difficult ones aside) is NaN, and so is its recall.
    Raises DataError naming the image whose arrays have the wrong shape or are not finite.
    """
    boxes, scores, counts = _stack(class_detections)
    gt_boxes, difficult, spans = _objects_of(class_detections, class_gt)
    positives = sum(int(np.count_nonzero(~_difficult(image, gt))) for image, gt in class_gt.items())

    order = np.argsort(-scores, kind="stable")
    image_of = np.repeat(np.arange(len(counts)), counts)
    verdict = _match(boxes[order], spans[image_of[order]], gt_boxes, difficult, float(ovthresh))
    right = np.cumsum(verdict == 1).astype(np.float64)
    wrong = np.cumsum(verdict == 0).astype(np.float64)
    prec = right / np.maximum(right + wrong, np.finfo(np.float64).eps)  # 0 while only difficult ones were found
    if not positives:
        return VocResult(np.full_like(right, np.nan), prec, float("nan"))
    rec = right / positives
    return VocResult(rec, prec, voc_ap(rec, prec, use_07_metric))


def mean_ap(aps: Mapping[str, float]) -> float:
    """Mean over the classes that have objects; NaN if none has."""
    known = [ap for ap in aps.values() if not np.isnan(ap)]
    return float(np.mean(known)) if known else float("nan")


def write_voc_results(path: str | os.PathLike[str], class_detections: Detections) -> None:
    """Write the detections of one class in the kit's format, one a line, images in order.

    ``id score x1 y1 x2 y2``: the score with three decimals, coordinates counted from 1 with one.
    """
    with atomic_write(path, "w") as stream:
        for image, dets in class_detections.items():
            if not image or image.split() != [image]:
                raise DataError(f"{os.fspath(path)}: image id {image!r} must be one word to stand in a results file")
            dets = _checked(image, dets)
            values = np.concatenate((dets[:, 4:], dets[:, :4] + 1), axis=1)
            line = image.replace("%", "%%") + " %.3f %.1f %.1f %.1f %.1f\n"
            stream.write(line * len(values) % tuple(values.ravel().tolist()))


def read_voc_results(path: str | os.PathLike[str]) -> dict[str, Float64]:
    """The detections of a results file: image id -> (N, 5) x1, y1, x2, y2 (from 0), score.

    Images are in order of first appearance. Raises DataError naming the file, and the line that is
    not six words, the last five numbers.
    """
    where = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: cannot read the detections: {getattr(error, 'strerror', None) or error}") from error
    words = " ".join(lines).split()
    try:
        table = np.array(words, dtype=object).reshape(-1, 6)
        values = table[:, 1:].astype(np.float64)
    except ValueError:
        values = np.full((1, 5), np.nan)
    if not np.isfinite(values).all() or len(values) != sum(map(bool, map(str.strip, lines))):
        raise DataError(_first_bad_line(where, lines))
    ids, first, group = np.unique(table[:, 0].astype(str), return_index=True, return_inverse=True)
    dets = np.concatenate((values[:, 1:] - 1, values[:, :1]), axis=1)
    parts = np.split(dets[np.argsort(group, kind="stable")], np.cumsum(np.bincount(group))[:-1])
    return {str(ids[i]): parts[i] for i in np.argsort(first)}


def _first_bad_line(where: str, lines: list[str]) -> str:
    for number, line in enumerate(lines, 1):
        words = line.split()
        try:
            good = not words or (len(words) == 6 and np.isfinite([float(word) for word in words[1:]]).all())
        except ValueError:
            good = False
        if not good:
            return f"{where}:{number}: expected 'id score x1 y1 x2 y2', got {line[:80]!r}"
    return f"{where}: lines of 'id score x1 y1 x2 y2' expected"


def _stack(class_detections: Detections) -> tuple[Float64, Float64, NDArray[np.int64]]:
    """All boxes (D, 4), all scores (D,), and how many each image has, in order of appearance."""
    arrays = [_checked(image, dets) for image, dets in class_detections.items()]
    every = np.concatenate([np.empty((0, 5)), *arrays])
    return every[:, :4], every[:, 4], np.array([len(dets) for dets in arrays], dtype=np.int64)


def _objects_of(
    class_detections: Detections, class_gt: Mapping[str, Mapping[str, Any]]
) -> tuple[Float64, NDArray[np.bool_], NDArray[np.int64]]:
    """Objects of the images that have detections: boxes (G, 4), difficult (G,), span (start, end) by image."""
    boxes, difficult, spans, end = [np.empty((0, 4))], [np.empty(0, dtype=bool)], [], 0
    for image in class_detections:
        gt = class_gt.get(image)
        start = end
        if gt is not None:
            boxes.append(_gt_boxes(image, gt))
            difficult.append(_difficult(image, gt))
            end += len(boxes[-1])
        spans.append((start, end))
    return np.concatenate(boxes), np.concatenate(difficult), np.array(spans, dtype=np.int64).reshape(-1, 2)


def _checked(image: str, dets: Any) -> Float64:
    array = np.asarray(dets, dtype=np.float64)
    if array.size == 0:
        return np.empty((0, 5))
    if array.ndim != 2 or array.shape[1] != 5:
        raise DataError(f"image {image}: detections must have shape (N, 5), got {array.shape}")
    if not np.isfinite(array).all():
        raise DataError(f"image {image}: a detection holds a value that is not finite")
    return array


def _gt_boxes(image: str, gt: Mapping[str, Any]) -> Float64:
    boxes = np.asarray(gt["boxes"], dtype=np.float64)
    if boxes.size == 0:
        return np.empty((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"image {image}: boxes must have shape (G, 4), got {boxes.shape}")
    return boxes


def _difficult(image: str, gt: Mapping[str, Any]) -> NDArray[np.bool_]:
    count = len(_gt_boxes(image, gt))
    flags = np.asarray(gt.get("difficult", np.zeros(count)), dtype=bool)
    if flags.shape != (count,):
        raise DataError(f"image {image}: {count} boxes but {flags.size} difficult flags")
    return flags


@numba.njit(cache=True)
def _match(
    boxes: np.ndarray, spans: np.ndarray, gt_boxes: np.ndarray, difficult: np.ndarray, thresh: float
) -> np.ndarray:
    """1 right, 0 wrong, -1 does not count, for each of the boxes, which stand best first."""
    verdict = np.zeros(boxes.shape[0], dtype=np.int8)
    taken = np.zeros(gt_boxes.shape[0], dtype=np.bool_)
    for d in range(boxes.shape[0]):
        area = (boxes[d, 2] - boxes[d, 0] + 1.0) * (boxes[d, 3] - boxes[d, 1] + 1.0)
        best, owner = -1.0, -1
        for g in range(spans[d, 0], spans[d, 1]):
            w = min(boxes[d, 2], gt_boxes[g, 2]) - max(boxes[d, 0], gt_boxes[g, 0]) + 1.0
            h = min(boxes[d, 3], gt_boxes[g, 3]) - max(boxes[d, 1], gt_boxes[g, 1]) + 1.0
            if w <= 0.0 or h <= 0.0:
                continue
            gt_area = (gt_boxes[g, 2] - gt_boxes[g, 0] + 1.0) * (gt_boxes[g, 3] - gt_boxes[g, 1] + 1.0)
            overlap = w * h / (area + gt_area - w * h)
            if overlap > best:
                best, owner = overlap, g
        if owner < 0 or best < thresh:
            continue
        if difficult[owner]:
            verdict[d] = -1
        elif not taken[owner]:
            taken[owner] = True
            verdict[d] = 1
    return verdict
