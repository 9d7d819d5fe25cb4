"""The tables and figures of Girshick, Fast R-CNN (2015), measured anew.

paper.py         the paper's numbers
setting.py       nets, schedules, recipes of trained nets
lab.py           trains and tests each of them once, by its recipe
training.py      tables 1, 2, 3, 5, 6
systems.py       tables 4, 7, 8
layer_times.py   figure 2
proposals.py     figure 3
results.py       rows, claims and verdicts, as text and JSON
pictures.py      the same as a PNG

from caffe_lite.fast_rcnn.experiments import run
from caffe_lite.fast_rcnn.experiments.setting import Setting
report = run("table6", Setting("output/experiments"))
print(report.text())
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from caffe_lite.atomic import atomic_files
from caffe_lite.errors import DataError, did_you_mean
from caffe_lite.fast_rcnn.experiments import layer_times, proposals, systems, training
from caffe_lite.fast_rcnn.experiments.lab import Lab
from caffe_lite.fast_rcnn.experiments.results import Report
from caffe_lite.fast_rcnn.experiments.setting import MINI, Setting
from caffe_lite.fast_rcnn.svm import linear_svc
from caffe_lite.fast_rcnn.test import make_output_dir


class Experiment(NamedTuple):
    """``measure(lab, report)`` adds rows, claims and notes to the report; ``trains_svms``: it needs scikit-learn."""

    title: str
    measure: Callable[[Lab, Report], None]
    trains_svms: bool = False


EXPERIMENTS = {
    "table1": Experiment("VOC 2007 test by training set", training.table1),
    "table2": Experiment("VOC 2010 test by training set", training.table2),
    "table3": Experiment("VOC 2012 test by training set", training.table3),
    "table4": Experiment("time and mAP of Fast R-CNN, R-CNN and SPPnet", systems.table4, trains_svms=True),
    "table5": Experiment("which layers to fine-tune", training.table5),
    "table6": Experiment("multi-task training", training.table6),
    "table7": Experiment("one scale or five", systems.table7),
    "table8": Experiment("SVMs or softmax", systems.table8, trains_svms=True),
    "fig2": Experiment("time of VGG16's layers before and after truncated SVD", layer_times.fig2),
    "fig3": Experiment("mAP and average recall by proposals", proposals.fig3, trains_svms=True),
}


def check_requirements(names: Iterable[str]) -> None:
    """Raise CaffeError if what one of these experiments needs is not installed: better now than hours later."""
    if any(EXPERIMENTS[name].trains_svms for name in names if name in EXPERIMENTS):
        linear_svc()


def run(name: str, setting: Setting) -> Report:
    """Measure the table or figure ``name``, and write NAME.txt, NAME.json and NAME.png into ``setting.out``.

    What was measured before with the same setting is not measured again.

    Raises:
        DataError: there is no such experiment, or the data or the ImageNet weights are not there.
    """
    if name not in EXPERIMENTS:
        raise DataError(f"no experiment {name!r}{did_you_mean(name, EXPERIMENTS)}; there are {', '.join(EXPERIMENTS)}")
    from caffe_lite.fast_rcnn.experiments import pictures

    make_output_dir(setting.out)
    began = time.perf_counter()
    report = Report(name, EXPERIMENTS[name].title, _described(setting))
    EXPERIMENTS[name].measure(Lab(setting), report)
    report.setting["seconds"] = round(time.perf_counter() - began, 1)
    with atomic_files() as files:
        files.open(os.path.join(setting.out, f"{name}.txt"), "w").write(report.text() + "\n")
        files.open(os.path.join(setting.out, f"{name}.json"), "w").write(report.json())
    pictures.draw(os.path.join(setting.out, f"{name}.png"), report)
    return report


def _described(setting: Setting) -> dict[str, object]:
    data = "synthetic" if setting.data is None else os.path.abspath(setting.data)
    models = setting.models or ((MINI,) if setting.data is None else "as in the paper")
    return {
        "data": data,
        "seeds": list(setting.seeds),
        "models": models if isinstance(models, str) else list(models),
        "iters": setting.iters,
        "quick": setting.quick,
    }


__all__ = ["EXPERIMENTS", "Report", "Setting", "check_requirements", "run"]
