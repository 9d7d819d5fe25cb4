"""How well proposals cover the objects: recall over IoU 0.5 to 1, and average recall.

Average recall, AR = 2 * integral of recall(o) for o from 0.5 to 1 (Hosang et al., PAMI 2016; the solid
red curve of figure 3 of Fast R-CNN). Recall is one-to-one as in :meth:`Imdb.evaluate_recall`; objects of
images without proposals count as missed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from caffe_lite.atomic import atomic_write
from caffe_lite.data.imdb import Imdb, Recall
from caffe_lite.data.proposal_methods import Options, parse_method, propose
from caffe_lite.errors import DataError

IOUS = (0.5, 0.7, 0.9)  # of the table
_STYLES = (":", "--", "-", "-.")  # of a method's numbers of boxes, few to many


class RecallRow(NamedTuple):
    """One method with one number of proposals."""

    method: str  # with its count, as parse_method reads it
    top: int | None  # None: all
    boxes: float  # an image, on average
    recall: Recall


def with_top(method: str, top: int | None) -> str:
    """``method`` with COUNT ``top``; DataError if it has a count already or is a mixture."""
    terms = parse_method(method)
    if top is None:
        return method
    if len(terms) > 1 or terms[0].most is not None:
        raise DataError(f"proposals {method!r}: leave out --top, or give one method without a count")
    return f"{method}:{top}"


def measure_recall(
    imdb: Imdb, methods: Sequence[str], tops: Sequence[int | None] = (None,), options: Options | None = None
) -> list[RecallRow]:
    """Recall of each method with each number of proposals on the ground truth of ``imdb``.

    Raises DataError if the imdb has no ground truth, or an unknown method is named.
    """
    names = [(with_top(method, top), top) for method in methods for top in tops]
    if not imdb.has_gt:
        raise DataError(f"{imdb.name}: its annotations are not public: there is nothing to measure recall with")
    gt = imdb.gt_roidb()
    paths = [imdb.image_path_at(i) for i in range(imdb.num_images)]
    rows = []
    for name, top in names:
        boxes = propose(name, paths, options or Options(imdb.cache_folder))
        recall = imdb.evaluate_recall(boxes, gt=gt, count_empty=True)
        rows.append(RecallRow(name, top, float(np.mean([len(b) for b in boxes])), recall))
    return rows


def recall_table(rows: Sequence[RecallRow]) -> str:
    """An aligned table: boxes an image, AR and recall at IOUS, in percent."""
    width = max(len("proposals"), *(len(row.method) for row in rows))
    head = f"{'proposals':<{width}}  {'boxes/image':>11}  {'AR %':>5}" + "".join(f"  {f'@{o:g}':>5}" for o in IOUS)
    lines = [
        f"{row.method:<{width}}  {row.boxes:11.1f}  {100 * row.recall.ar:5.1f}"
        + "".join(f"  {100 * row.recall.at(o):5.1f}" for o in IOUS)
        for row in rows
    ]
    return "\n".join([head, *lines])


def draw_recall(path: str | os.PathLike[str], rows: Sequence[RecallRow], title: str) -> None:
    """A PNG: recall over IoU of every row, and AR over the boxes an image, a line a method."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(11.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    by_method: dict[str, list[RecallRow]] = {}
    for row in rows:
        by_method.setdefault(row.method.removesuffix(f":{row.top}"), []).append(row)
    for i, (method, of_method) in enumerate(by_method.items()):
        of_method.sort(key=lambda row: row.boxes)
        boxes, recalls = [row.boxes for row in of_method], [100 * row.recall.ar for row in of_method]
        right.plot(boxes, recalls, marker="o", color=f"C{i}", label=method)
        for style, row in enumerate(of_method):
            dashes = _STYLES[style % len(_STYLES)]
            label = f"{row.method}, AR {100 * row.recall.ar:.1f}"
            left.plot(row.recall.thresholds, 100 * row.recall.recalls, dashes, color=f"C{i}", label=label)
    _label(left, "IoU", "recall, %")
    _label(right, "boxes an image", "average recall, %")
    left.set_xlim(0.5, 1.0)
    right.set_xscale("log")
    right.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    right.xaxis.set_major_formatter("{x:g}")
    right.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.suptitle(title)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=110)


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(-2, 102)
    axes.grid(alpha=0.3)
