"""Figure 3: mAP and average recall against the number and kind of proposals; each point is a net of its own.

On a real devkit selective search's quality mode with 1,000 to 10,000 boxes, and its 2,000 best with 2,000 to 45,000
dense ones. The synthetic pictures give some 220 boxes, so that the small net has fractions of that, and mixtures of
the same proportions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from caffe_lite.fast_rcnn.experiments import paper
from caffe_lite.fast_rcnn.experiments.lab import Lab
from caffe_lite.fast_rcnn.experiments.results import MAP, Claim, Report, Row
from caffe_lite.fast_rcnn.experiments.setting import TEST, TRAINVAL, Recipe

RECALL = "average recall, %"
SS, MIXTURE, NEAREST, DENSE, DENSE_SVM = (
    "selective search",
    "selective search + dense",
    "nearest dense",
    "dense",
    "dense, SVM",
)
_BASE = 2000  # boxes of selective search in a mixture
_MIXED = (2000, 4000, 6000, 8000, 10000, 32000, 45000)


class Point(NamedTuple):
    """A point of a curve.

    ``proposals``: as :meth:`Imdb.set_proposals` takes them, None for those of the imdb; ``suffix``: of the imdbs.
    """

    curve: str
    proposals: str | None = None
    suffix: str = ""
    paper: float | None = None


def points(lab: Lab) -> list[Point]:
    """What is measured: the paper's points, or for synthetic pictures as described above."""
    if lab.setting.data is None:
        return _small_points(lab.setting.quick)
    return [
        *(Point(SS, suffix=f"_top_{count}") for count in range(1000, 10001, 1000)),
        *(Point(MIXTURE, f"ss_quality:{_BASE}+dense:{count}") for count in _MIXED[:-1]),
        Point(MIXTURE, f"ss_quality:{_BASE}+dense:{_MIXED[-1]}", paper=paper.FIG3_MAP[MIXTURE]),
        Point(NEAREST, f"nearest_dense:{_BASE}", paper=paper.FIG3_MAP[NEAREST]),
        Point(DENSE, "dense", paper=paper.FIG3_MAP[DENSE]),
    ]


def _small_points(quick: bool) -> list[Point]:
    counts = (20,) if quick else (25, 50, 100, 225)
    mixed = (20,) if quick else (225, 900, 2250)
    dense = 60 if quick else 2250
    return [
        *(Point(SS, f"ss:{count}") for count in counts),
        *(Point(MIXTURE, f"ss:{counts[-1]}+dense:{count}") for count in mixed[:-1]),
        Point(MIXTURE, f"ss:{counts[-1]}+dense:{mixed[-1]}", paper=paper.FIG3_MAP[MIXTURE]),
        Point(NEAREST, f"nearest_dense:{counts[-1]}", paper=paper.FIG3_MAP[NEAREST]),
        Point(DENSE, f"dense:{dense}", paper=paper.FIG3_MAP[DENSE]),
    ]


def fig3(lab: Lab, report: Report) -> None:
    """Every point retrained and tested; SVMs on the dense boxes; average recall."""
    model = lab.models("M")[0]
    recalls = []
    for point in points(lab):
        test = TEST + point.suffix
        boxes, recall = _recall(lab.imdb(test, point.proposals))
        recipe = Recipe(model, imdb=TRAINVAL + point.suffix, proposals=point.proposals)
        aps = [lab.test(recipe, seed, test).mean_ap for seed in lab.setting.seeds]
        known = {} if point.paper is None else {"M": point.paper}
        report.rows.append(Row(point.curve, MAP, known, {model: aps}, boxes))
        recalls.append(Row(point.curve, RECALL, {}, {model: [recall]}, boxes))
        if point.curve == DENSE:
            aps = [
                lab.test(recipe, seed, test, ("TEST.SVM", "True"), weights=lab.svms(recipe, seed)).mean_ap
                for seed in lab.setting.seeds
            ]
            report.rows.append(Row(DENSE_SVM, MAP, {"M": paper.FIG3_MAP[DENSE_SVM]}, {model: aps}, boxes))
    report.rows += recalls
    _claim(report)
    report.notes.append(_sweep(report, model))


def _recall(imdb: Any) -> tuple[float, float]:
    """Proposals an image, and their average recall in percent."""
    counts = [int((entry["gt_classes"] == 0).sum()) for entry in imdb.roidb]
    return float(np.mean(counts)), 100 * imdb.evaluate_recall().ar


def _claim(report: Report) -> None:
    search = [row for row in report.rows if row.quantity == MAP and row.label == SS]
    mixed = [row for row in report.rows if row.quantity == MAP and row.label == MIXTURE]
    report.claims += [
        Claim(MAP, search[-1].name, NEAREST, "Selective search's boxes are better than the dense ones nearest to them"),
        Claim(MAP, search[-1].name, mixed[-1].name, "Adding many dense boxes hurts"),
        Claim(MAP, NEAREST, DENSE, "Few chosen boxes are better than all dense ones"),
        Claim(MAP, DENSE, DENSE_SVM, "SVMs do not cope better with dense boxes than the softmax"),
    ]


def _means(report: Report, quantity: str, curve: str, model: str) -> list[float]:
    rows = [row for row in report.rows if row.quantity == quantity and row.label == curve]
    return [float(np.mean(row.measured[model])) for row in rows]


def _sweep(report: Report, model: str) -> str:
    aps, recalls = _means(report, MAP, SS, model), _means(report, RECALL, SS, model)
    best, last = int(np.argmax(aps)), len(aps) - 1
    if len(aps) < 2:
        return "One number of boxes of selective search: it is not told how mAP goes with it."
    shape = "and falls again" if best < last else "and goes on rising"
    word = "agrees" if best < last else "contradicts"
    correlation = float(np.corrcoef(aps, recalls)[0, 1])
    return (
        f"Paper: mAP rises, then falls slightly with more boxes, while average recall goes on rising. Measured: mAP "
        f"rises to {aps[best]:.1f} {shape} ({aps[last]:.1f} at the end), recall {recalls[0]:.1f} to {recalls[-1]:.1f}, "
        f"correlation {correlation:+.2f}: {word.upper()}."
    )
