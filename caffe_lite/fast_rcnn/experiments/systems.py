"""Tables 4, 7 and 8: Fast R-CNN against R-CNN and SPPnet, one scale against five, SVMs against the softmax."""

from __future__ import annotations

from collections.abc import Callable

from caffe_lite.fast_rcnn.experiments import paper
from caffe_lite.fast_rcnn.experiments.lab import Lab, Tested
from caffe_lite.fast_rcnn.experiments.results import (
    MAP,
    TEST_SECONDS,
    TEST_SPEEDUP,
    TRAIN_HOURS,
    TRAIN_SPEEDUP,
    Claim,
    Report,
    Row,
    ratios,
)
from caffe_lite.fast_rcnn.experiments.setting import MODELS, Recipe

Measured = dict[str, list[float]]


def table4(lab: Lab, report: Report) -> None:
    """Time of training and testing, and mAP, of the three systems on the same data and engine."""
    hours = {
        name: {model: [_hours(lab, name, model, seed) for seed in lab.setting.seeds] for model in lab.models("SML")}
        for name in paper.TABLE4_TRAIN_HOURS
    }
    tested = {
        (name, model): [test_system(lab, name, model, seed) for seed in lab.setting.seeds]
        for name in paper.TABLE4_MAP
        for model in lab.models("SML")
    }

    def column(name: str, value: Callable[[Tested], float]) -> Measured:
        return {model: [value(run) for run in tested[name, model]] for model in lab.models("SML")}

    seconds = {name: column(name, lambda run: run.seconds) for name in paper.TABLE4_MAP}
    for quantity, of_paper, measured in (
        (TRAIN_HOURS, paper.TABLE4_TRAIN_HOURS, hours),
        (TRAIN_SPEEDUP, paper.TABLE4_TRAIN_SPEEDUP, _speedups(hours)),
        (TEST_SECONDS, paper.TABLE4_TEST_SECONDS, seconds),
        (TEST_SPEEDUP, paper.TABLE4_TEST_SPEEDUP, _speedups(seconds)),
        (MAP, paper.TABLE4_MAP, {name: column(name, lambda run: run.mean_ap) for name in paper.TABLE4_MAP}),
    ):
        report.rows += [Row(name, quantity, of_paper[name], measured[name]) for name in of_paper]
    report.claims += [
        Claim(TRAIN_HOURS, paper.RCNN, paper.FAST, "R-CNN takes longer to train"),
        Claim(TRAIN_HOURS, paper.SPPNET, paper.FAST, "SPPnet takes longer to train"),
        Claim(TEST_SECONDS, paper.RCNN, paper.SPPNET, "R-CNN is slower than SPPnet"),
        Claim(TEST_SECONDS, paper.SPPNET, paper.FAST, "SPPnet is slower than Fast R-CNN"),
        Claim(TEST_SECONDS, paper.FAST, paper.FAST_SVD, "Truncated SVD saves time"),
        Claim(MAP, paper.FAST, paper.FAST_SVD, "Truncated SVD costs a little mAP"),
        Claim(MAP, paper.FAST, paper.SPPNET, "Fast R-CNN detects better than SPPnet"),
    ]


def _hours(lab: Lab, name: str, model: str, seed: int) -> float:
    if name == paper.FAST:
        return lab.train(Recipe(model), seed).seconds / 3600
    return lab.system(_PACKAGES[name], model, seed).seconds / 3600


_PACKAGES = {paper.RCNN: "rcnn", paper.SPPNET: "sppnet"}


def test_system(lab: Lab, name: str, model: str, seed: int) -> Tested:
    """Test a system by its name in table 4."""
    if name in _PACKAGES:
        return lab.test_system(_PACKAGES[name], model, seed)
    recipe = Recipe(model)
    if name == paper.FAST:
        return lab.test(recipe, seed)
    return lab.test(recipe, seed, variant="compressed", weights=lab.compress(recipe, seed))


test_system.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test


def _speedups(times: dict[str, Measured]) -> dict[str, Measured]:
    reference = times[paper.RCNN]
    return {
        name: {model: ratios(reference[model], values) for model, values in by_model.items()}
        for name, by_model in times.items()
    }


def table7(lab: Lab, report: Report) -> None:
    """One scale against five, in training and testing."""
    tested = {
        (name, model): [_scales(lab, name, model, seed) for seed in lab.setting.seeds]
        for name in paper.TABLE7_MAP
        for model in lab.models("SML")
        if model != "L" or name == paper.ONE_SCALE  # as in the paper
    }
    parts: tuple[tuple[str, dict[str, dict[str, float]], Callable[[Tested], float]], ...] = (
        (MAP, paper.TABLE7_MAP, lambda run: run.mean_ap),
        (TEST_SECONDS, paper.TABLE7_SECONDS, lambda run: run.seconds),
    )
    for part, (quantity, of_paper, value) in enumerate(parts):
        for name in of_paper:
            measured = {m: [value(run) for run in runs] for (n, m), runs in tested.items() if n == name}
            known = {**of_paper[name], "SPPnet ZF": paper.TABLE7_SPPNET_ZF[name][part]}
            report.rows.append(Row(name, quantity, known, measured))
    report.claims += [
        Claim(MAP, paper.FIVE_SCALES, paper.ONE_SCALE, "Five scales detect a little better"),
        Claim(TEST_SECONDS, paper.FIVE_SCALES, paper.ONE_SCALE, "Five scales are slower"),
    ]


def _scales(lab: Lab, name: str, model: str, seed: int) -> Tested:
    if name == paper.ONE_SCALE:
        return lab.test(Recipe(model), seed)
    of = MODELS[model]
    settings = [
        word
        for phase in ("TRAIN", "TEST")
        for word in (f"{phase}.SCALES", str(of.scales), f"{phase}.MAX_SIZE", str(of.max_size))
    ]
    return lab.test(Recipe(model, settings=tuple(settings)), seed)


def table8(lab: Lab, report: Report) -> None:
    """SVMs trained afterwards against the softmax learned with the net."""
    recipes: dict[str, Callable[[str, int], Tested]] = {
        paper.RCNN_SVM: lambda model, seed: lab.test_system("rcnn", model, seed),
        paper.FAST_SVM: lambda model, seed: lab.test(
            Recipe(model), seed, settings=("TEST.SVM", "True"), weights=lab.svms(Recipe(model), seed)
        ),
        paper.FAST_SOFTMAX: lambda model, seed: lab.test(Recipe(model), seed),
    }
    for name, test in recipes.items():
        measured = {m: [test(m, seed).mean_ap for seed in lab.setting.seeds] for m in lab.models("SML")}
        report.rows.append(Row(name, MAP, paper.TABLE8_MAP[name], measured))
    report.claims.append(Claim(MAP, paper.FAST_SOFTMAX, paper.FAST_SVM, "The softmax does slightly better than SVMs"))
