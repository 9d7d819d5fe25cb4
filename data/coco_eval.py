"""Average precision as COCO computes it, by pycocotools, of which only this module knows.

Needs the extra ``coco``: ``pip install 'caffe-lite[coco]'``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from caffe_lite.errors import DataError


class CocoResult(NamedTuple):
    """AP of each category, smallest id first, in [0, 1]; NaN for one without objects."""

    ap: NDArray[np.float64]  # mean over IoU 0.5, 0.55, ..., 0.95: COCO's
    ap50: NDArray[np.float64]  # at IoU 0.5: PASCAL's, with COCO's 101 recalls


def require_pycocotools() -> Any:
    """The package; DataError naming the extra if it is not installed."""
    try:
        for name in ("coco", "cocoeval"):
            importlib.import_module(f"pycocotools.{name}")
        return importlib.import_module("pycocotools")
    except ImportError as error:
        raise DataError(
            f"COCO needs pycocotools, which cannot be imported ({error}): pip install 'caffe-lite[coco]'"
        ) from error


def average_precisions(dataset: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> CocoResult:
    """AP of detections on a COCO dataset, all object sizes, up to 100 detections an image.

    dataset: the content of an instances json; results: rows with image_id, category_id,
    bbox (x, y, width, height) and score.
    """
    pycocotools = require_pycocotools()
    detections = [
        {**row, "id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
        for number, row in enumerate(results, start=1)
    ]
    objects = [
        {"iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3], **row, "id": number}
        for number, row in enumerate(dataset["annotations"], start=1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it reports every step
        truth, found = (_index(pycocotools, dataset, rows) for rows in (objects, detections))
        evaluation = pycocotools.cocoeval.COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # precision[IoU, recall, category, size, detections]; -1 where a category has no objects
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    known = (precision > -1).all(axis=(0, 1))
    ap, ap50 = precision.mean(axis=(0, 1)), precision[0].mean(axis=0)
    return CocoResult(np.where(known, ap, np.nan), np.where(known, ap50, np.nan))


def _index(pycocotools: Any, dataset: Mapping[str, Any], rows: list[dict[str, Any]]) -> Any:
    coco = pycocotools.coco.COCO()
    coco.dataset = {"images": dataset["images"], "categories": dataset["categories"], "annotations": rows}
    coco.createIndex()
    return coco
