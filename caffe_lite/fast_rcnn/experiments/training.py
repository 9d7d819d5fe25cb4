"""Tables 1, 2, 3, 5 and 6: what the training set, the trained layers and multi-task training are worth."""

from __future__ import annotations

from collections.abc import Sequence

from caffe_lite.fast_rcnn.experiments import paper
from caffe_lite.fast_rcnn.experiments.lab import Lab, Tested
from caffe_lite.fast_rcnn.experiments.results import AP, MAP, TEST_SECONDS, TRAIN_HOURS, Claim, Report, Row
from caffe_lite.fast_rcnn.experiments.setting import MINI, TRAINVAL, Recipe, Schedule

_SETS = {  # name in the paper -> imdb and schedule (sections 4.3 to 4.5)
    "07": (TRAINVAL, Schedule()),
    "07\\diff": (f"{TRAINVAL}_no_diff", Schedule()),
    "07+12": (f"{TRAINVAL}+voc_2012_trainval", Schedule(60000, 30000)),
    "12": ("voc_2012_trainval", Schedule()),
    "07++12": (f"{TRAINVAL}+voc_2007_test+voc_2012_trainval", Schedule(100000, 40000)),
}
_FC_ONLY, _CONV3, _CONV2 = paper.TABLE5_MAP
_FREEZE = {  # of the small net, which has no variants for this: what does not learn
    _FC_ONLY: ("conv1", "conv2", "conv3", "conv4"),
    _CONV3: ("conv1", "conv2"),
    _CONV2: ("conv1",),
}
_VARIANTS = {_FC_ONLY: "fc_only", _CONV3: "", _CONV2: "conv2_1"}


def trained_on(name: str, model: str) -> Recipe:
    """The recipe of a training set by its name in the paper."""
    imdb, schedule = _SETS[name]
    return Recipe(model, imdb=imdb, schedule=schedule)


def table1(lab: Lab, report: Report) -> None:
    """VOC 2007 test, trained on 07, 07 without difficult objects, and 07+12."""
    names = list(paper.TABLE1_MAP)
    tested = {
        (name, model): [lab.test(trained_on(name, model), seed) for seed in lab.setting.seeds]
        for name in names
        for model in lab.models("L")
    }
    _map_rows(lab, report, names, paper.TABLE1_MAP, paper.TABLE1_OTHERS, tested)
    report.claims += [
        Claim(MAP, "07\\diff", "07", "Leaving difficult objects out of the training helps"),
        Claim(MAP, "07+12", "07", "More training images help"),
    ]
    several = len(lab.models("L")) > 1
    _class_rows(report, {f"{name}, {model}" if several else name: runs for (name, model), runs in tested.items()})


def table2(lab: Lab, report: Report) -> None:
    """VOC 2010 test, trained on 12 and 07++12."""
    _later_year(lab, report, "voc_2010_test", paper.TABLE2_MAP, paper.TABLE2_OTHERS)


def table3(lab: Lab, report: Report) -> None:
    """VOC 2012 test, trained on 12 and 07++12."""
    _later_year(lab, report, "voc_2012_test", paper.TABLE3_MAP, paper.TABLE3_OTHERS)


def _later_year(lab: Lab, report: Report, imdb: str, in_paper: dict[str, float], others: dict[str, float]) -> None:
    tested = {
        (name, model): [lab.test(trained_on(name, model), seed, imdb) for seed in lab.setting.seeds]
        for name in in_paper
        for model in lab.models("L")
    }
    if not any(found.aps for runs in tested.values() for found in runs):
        report.notes.append(
            f"{imdb}: the annotations are not public; the results files printed above are for the evaluation server."
        )
        tested = {}
    _map_rows(lab, report, list(in_paper), in_paper, others, tested)
    report.claims.append(Claim(MAP, "07++12", "12", "More training images help"))


def _map_rows(
    lab: Lab,
    report: Report,
    names: Sequence[str],
    in_paper: dict[str, float],
    others: dict[str, float],
    tested: dict[tuple[str, str], list[Tested]],
) -> None:
    for name in names:
        measured = {
            model: [found.mean_ap for found in tested[name, model]]
            for model in lab.models("L")
            if (name, model) in tested
        }
        report.rows.append(Row(name, MAP, {"L": in_paper[name]}, measured))
    report.rows += [Row(name, MAP, {"L": value}, {}) for name, value in others.items()]


def _class_rows(report: Report, found: dict[str, list[Tested]]) -> None:
    """AP of the paper's classes and of those that were measured, where a column is a training set (and a net)."""
    measured_classes = list(next(iter(found.values()))[0].aps)
    for name in dict.fromkeys([*measured_classes, *paper.CLASSES]):
        of_paper = {}
        if name in paper.CLASSES:
            index = paper.CLASSES.index(name)
            of_paper = {column: aps[index] for column, aps in paper.TABLE1_AP.items()}
        measured = {}
        if name in measured_classes:
            measured = {column: [100 * run.aps[name] for run in runs] for column, runs in found.items()}
        report.rows.append(Row(name, AP, of_paper, measured))


def table5(lab: Lab, report: Report) -> None:
    """Which layers to fine-tune."""
    found: dict[str, tuple[dict[str, list[float]], ...]] = {}
    for name in paper.TABLE5_MAP:
        aps, seconds, hours = {}, {}, {}
        for model in lab.models("L"):
            recipe = Recipe(model, frozen=_FREEZE[name]) if model == MINI else Recipe(model, _VARIANTS[name])
            tested = [lab.test(recipe, seed) for seed in lab.setting.seeds]
            aps[model] = [run.mean_ap for run in tested]
            seconds[model] = [run.seconds for run in tested]
            hours[model] = [lab.train(recipe, seed).seconds / 3600 for seed in lab.setting.seeds]
        found[name] = aps, hours, seconds
    of_paper = (paper.TABLE5_MAP, paper.TABLE5_TRAIN_HOURS, paper.TABLE5_TEST_SECONDS)
    for part, quantity in enumerate((MAP, TRAIN_HOURS, TEST_SECONDS)):
        for name in found:
            known = {"L": of_paper[part][name]} if name in of_paper[part] else {}
            report.rows.append(Row(name, quantity, known, found[name][part]))
    report.rows += [Row(name, MAP, {"L": value}, {}) for name, value in paper.TABLE5_OTHERS.items()]
    report.claims += [
        Claim(MAP, _CONV3, _FC_ONLY, "Training convolutions matters in a deep net"),
        Claim(MAP, _CONV2, _CONV3, "Training conv2 as well helps a little"),
        Claim(TRAIN_HOURS, _CONV2, _CONV3, "Training conv2 as well takes longer"),
    ]
    if MINI in lab.models("L"):
        report.notes.append(
            "In the small net conv1 stands for conv1_1 to conv1_2, conv2 for conv2_1 to conv2_2, conv3 and conv4 for "
            "the rest. It started from a classifier of windows of other pictures instead of ImageNet."
        )


def table6(lab: Lab, report: Report) -> None:
    """Multi-task training against classification alone and training in stages."""
    for name, of_paper in paper.TABLE6_MAP.items():
        measured = {
            model: [_multi_task(lab, name, model, seed).mean_ap for seed in lab.setting.seeds]
            for model in lab.models("SML")
        }
        report.rows.append(Row(name, MAP, of_paper, measured))
    report.claims += [
        Claim(MAP, paper.NO_TEST_REG, paper.CLS_ONLY, "Learning boxes too makes a better classifier"),
        Claim(MAP, paper.STAGE_WISE, paper.CLS_ONLY, "Box regression trained afterwards helps"),
        Claim(MAP, paper.MULTI_TASK, paper.STAGE_WISE, "Learning both at once beats learning in stages"),
    ]
    if lab.setting.data is None:
        report.notes.append(
            "In the made-up pictures most objects have a region that fits them closely (IoU over 0.8): at the IoU of "
            "0.5 that this mAP asks for, box regression has little to gain."
        )


def _multi_task(lab: Lab, name: str, model: str, seed: int) -> Tested:
    no_regression = ("TEST.BBOX_REG", "False")
    alone = Recipe(model, "no_bbox_reg", settings=("TRAIN.BBOX_REG", "False"))
    if name == paper.CLS_ONLY:
        return lab.test(alone, seed, settings=no_regression, variant="no_bbox_reg")
    if name == paper.STAGE_WISE:
        return lab.test(Recipe(model, "piecewise", start=alone), seed)
    return lab.test(Recipe(model), seed, settings=no_regression if name == paper.NO_TEST_REG else ())
