"""Results of a finished test, again: from its curves, or from its detections.

What ``fast-rcnn reval`` does; the folder is one that :func:`caffe_lite.fast_rcnn.test.test_net` wrote.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from caffe_lite.data.config import cfg
from caffe_lite.data.voc_curves import Curve, curve_path, read_curve
from caffe_lite.data.voc_eval import mean_ap
from caffe_lite.errors import DataError
from caffe_lite.fast_rcnn.report import table
from caffe_lite.fast_rcnn.test import apply_nms, load_detections


def from_curves(folder: str | os.PathLike[str], classes: Sequence[str]) -> dict[str, Curve]:
    """The saved curve of each class but the background.

    Raises DataError naming the file that is missing or damaged.
    """
    return {name: read_curve(curve_path(folder, name)) for name in classes if name != "__background__"}


def from_detections(folder: str | os.PathLike[str], imdb: Any) -> Any:
    """Apply NMS by cfg.TEST.NMS to the saved detections and evaluate them; what the imdb returns.

    Raises DataError if the detections are missing, or of other images or classes than the imdb's.
    """
    path = os.path.join(folder, "detections.npz")
    all_boxes, classes, images = load_detections(path)
    for what, saved, ours in (("classes", classes, imdb.classes), ("images", images, imdb.image_index)):
        if saved != [str(name) for name in ours]:
            raise DataError(
                f"{path}: holds detections of {len(saved)} {what}, which are not the {len(ours)} of imdb "
                f"{imdb.name}; name the dataset that was tested with --imdb"
            )
    return imdb.evaluate_detections(apply_nms(all_boxes, cfg.TEST.NMS), os.fspath(folder))


def curve_table(curves: dict[str, Curve]) -> str:
    """AP of each class by both metrics and their means, in percent."""
    rows: list[Sequence[str]] = [("AP %", "11-point", "area")]
    rows += [(name, f"{100 * curve.ap:.1f}", f"{100 * curve.ap_auc:.1f}") for name, curve in curves.items()]
    means = [mean_ap({name: getattr(c, metric) for name, c in curves.items()}) for metric in ("ap", "ap_auc")]
    return table([*rows, ("mean", *(f"{100 * value:.1f}" for value in means))])
