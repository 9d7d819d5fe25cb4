"""From an imdb's roidb to one that can be trained on: derived fields, checks, regression targets.

Shapes: R boxes of an image (ground truth first), K classes with the background.
"""

from __future__ import annotations

import warnings
from collections.abc import MutableMapping, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from caffe_lite.data.boxes import bbox_overlaps, bbox_transform
from caffe_lite.data.config import cfg
from caffe_lite.data.image_blob import image_size
from caffe_lite.data.roi_data_layer.minibatch import sampling_indices
from caffe_lite.errors import DataError

Entry = MutableMapping[str, Any]


def prepare_roidb(imdb: Any) -> None:
    """Add to every entry of ``imdb.roidb`` what training derives from it, and check all of them.

    image (path), max_overlaps (R,) float32 and max_classes (R,) int64: the largest column of
    gt_overlaps and its value, class 0 where no object is overlapped.

    Raises DataError as :func:`check_roidb` does, and if an overlap belongs to the background.
    """
    roidb = imdb.roidb
    derived: dict[int, tuple[NDArray[np.float32], NDArray[np.int64]]] = {}  # a mirrored entry shares its original's
    for index, entry in enumerate(roidb):
        entry["image"] = imdb.image_path_at(index)
        overlaps = entry["gt_overlaps"]
        if id(overlaps) not in derived:
            derived[id(overlaps)] = _row_maxima(overlaps)
        entry["max_overlaps"], entry["max_classes"] = derived[id(overlaps)]
        wrong = np.flatnonzero((entry["max_overlaps"] > 0) != (entry["max_classes"] > 0))
        if wrong.size:
            raise DataError(
                f"{_name(entry, index)}: row {wrong[0]}: overlap {entry['max_overlaps'][wrong[0]]} with class "
                f"{entry['max_classes'][wrong[0]]}; only objects (class > 0) can be overlapped"
            )
    check_roidb(roidb)


def _row_maxima(overlaps: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The largest value of each row of (R, K) overlaps, sparse or not, and its first column."""
    if not hasattr(overlaps, "tocsr"):
        overlaps = np.asarray(overlaps)
        return overlaps.max(axis=1), overlaps.argmax(axis=1)
    csr = overlaps.tocsr()
    csr.sum_duplicates()  # sorts the columns of each row too
    values = np.empty(csr.shape[0], dtype=csr.dtype)
    columns = np.empty(csr.shape[0], dtype=np.int64)
    _csr_row_maxima(csr.data, csr.indices, csr.indptr, csr.shape[1], values, columns)
    return values, columns


@numba.njit(cache=True)
def _csr_row_maxima(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, width: int, values: np.ndarray, columns: np.ndarray
) -> None:
    for row in range(len(values)):
        first_zero = 0  # first column that is not stored
        best, where = -np.inf, -1
        for p in range(indptr[row], indptr[row + 1]):
            if indices[p] == first_zero:
                first_zero += 1
            if data[p] > best:
                best, where = data[p], indices[p]
        if first_zero < width and (best < 0 or (best == 0 and first_zero < where)):
            best, where = 0.0, first_zero
        values[row], columns[row] = best, where


def check_roidb(roidb: Sequence[Entry]) -> None:
    """Raise DataError naming image, row and box for the first box that is reversed or not in its image.

    The size comes from the entry's width and height if it has them, else from the head of the image
    file (JPEG or PNG; each file once), which therefore must exist.
    """
    sizes: dict[str, tuple[int, int] | None] = {}
    for index, entry in enumerate(roidb):
        boxes = np.asarray(entry["boxes"])
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise DataError(f"{_name(entry, index)}: boxes must have shape (R, 4), got {boxes.shape}")
        wrong = (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
        if wrong.any():
            _refuse(entry, index, int(wrong.argmax()), "x2 < x1 or y2 < y1")
        size = _size_of(entry, sizes)
        if size is None:
            continue
        wrong = (boxes < 0).any(axis=1) | (boxes[:, 2] >= size[0]) | (boxes[:, 3] >= size[1])
        if wrong.any():
            _refuse(
                entry,
                index,
                int(wrong.argmax()),
                f"outside the image, which is {size[0]} x {size[1]} pixels counted from 0",
            )


def filter_roidb(roidb: Sequence[Entry]) -> list[Entry]:
    """The entries that have at least one RoI to train on, foreground or background.

    An image with neither is legal next to one that has some, but a minibatch of nothing but such
    images stops the training, so train without them. Images with objects always stay.
    """
    return [entry for entry in roidb if any(rows.size for rows in sampling_indices(entry["max_overlaps"]))]


def add_bbox_regression_targets(roidb: Sequence[Entry]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Add bbox_targets (R, 5) float32, rows (class, dx, dy, dw, dh), to every prepared entry.

    Targets are normalised to zero mean and unit deviation for each class and coordinate over the
    whole roidb. Returns the means and the deviations, (4K,) float64 each, class-major; zero for the
    background and for classes without targets. Rows without a target are zero.

    Differs from the original, which divides 0 by 0: where the targets of a class are all equal, because
    its objects are the only boxes that overlap them, the deviation is taken as 1, with a warning.

    Raises DataError if the roidb is empty or was not prepared.
    """
    if not roidb:
        raise DataError("the roidb is empty: there is no image to train on")
    for index, entry in enumerate(roidb):
        if "max_classes" not in entry:
            raise DataError(f"{_name(entry, index)}: has no 'max_classes': call prepare_roidb first")
        entry["bbox_targets"] = _compute_targets(entry["boxes"], entry["max_overlaps"], entry["max_classes"])
    means, stds = _statistics(roidb, roidb[0]["gt_overlaps"].shape[1])
    for entry in roidb:
        targets = entry["bbox_targets"]
        rows = np.flatnonzero(targets[:, 0] > 0)
        classes = targets[rows, 0].astype(np.int64)
        # Subtract, round to float32, divide: the original's two steps, to the bit.
        centred = (targets[rows, 1:] - means[classes]).astype(np.float32)
        targets[rows, 1:] = centred / stds[classes]
    return means.ravel(), stds.ravel()


def _compute_targets(
    boxes: NDArray[Any], overlaps: NDArray[np.floating], labels: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Unnormalised (R, 5) targets of one image: class and offsets towards the most overlapped object.

    Objects are the rows with overlap exactly 1 (a proposal equal to an object counts as one); rows
    with overlap >= cfg.TRAIN.BBOX_THRESH get targets. All zero for an image without objects.
    """
    targets = np.zeros((len(boxes), 5), dtype=np.float32)
    gt = np.flatnonzero(overlaps == 1)
    examples = np.flatnonzero(overlaps >= cfg.TRAIN.BBOX_THRESH)
    if gt.size == 0 or examples.size == 0:
        return targets
    boxes = boxes.astype(np.float64)
    nearest = gt[bbox_overlaps(boxes[examples], boxes[gt]).argmax(axis=1)]
    targets[examples, 0] = labels[examples]
    targets[examples, 1:] = bbox_transform(boxes[examples], boxes[nearest])
    return targets


def _statistics(roidb: Sequence[Entry], num_classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation (K, 4) of the targets of each class; warns where targets do not vary."""
    counts = np.full((num_classes, 1), cfg.EPS)
    sums = np.zeros((num_classes, 4))
    squares = np.zeros((num_classes, 4))
    for entry in roidb:
        targets = entry["bbox_targets"]
        for label in np.unique(targets[targets[:, 0] > 0, 0]).astype(np.int64):
            rows = targets[targets[:, 0] == label, 1:]
            counts[label] += len(rows)
            sums[label] += rows.sum(axis=0)  # float32 within an image, as in the original
            squares[label] += (rows**2).sum(axis=0)
    means = sums / counts
    variances = squares / counts - means**2
    stds = np.sqrt(np.maximum(variances, 0.0))  # rounding can leave a variance just below zero
    constant = (stds == 0) & (counts >= 1)
    if constant.any():
        classes = ", ".join(map(str, np.flatnonzero(constant.any(axis=1))))
        warnings.warn(
            f"the box regression targets of class {classes} do not vary: their deviation is taken as 1; "
            "does the class have proposals that overlap its objects?",
            stacklevel=3,
        )
        stds[constant] = 1.0
    return means, stds


def _size_of(entry: Entry, known: dict[str, tuple[int, int] | None]) -> tuple[int, int] | None:
    if "width" in entry and "height" in entry:
        return int(entry["width"]), int(entry["height"])
    path = entry.get("image")
    if path is None:
        return None
    if path not in known:
        known[path] = image_size(path)
    return known[path]


def _name(entry: Entry, index: int) -> str:
    name = str(entry.get("image", f"roidb entry {index}"))
    return f"{name} (mirrored)" if entry.get("flipped") else name


def _refuse(entry: Entry, index: int, row: int, why: str) -> None:
    label = int(entry["gt_classes"][row]) if "gt_classes" in entry else 0
    what = f"object {row} of class {label}" if label else f"proposal in row {row}"
    box = tuple(np.asarray(entry["boxes"])[row].tolist())
    raise DataError(f"{_name(entry, index)}: {what}: box {box} (x1, y1, x2, y2) is wrong: {why}")
