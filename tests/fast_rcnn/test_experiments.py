"""Experiments: the paper's numbers, verdicts, and every table and figure from the command line to its JSON."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe_lite
from caffe_lite import prototxt
from caffe_lite.data.synthetic import make_devkit
from caffe_lite.errors import DataError
from caffe_lite.fast_rcnn import experiments
from caffe_lite.fast_rcnn.cli import main
from caffe_lite.fast_rcnn.experiments import lab as lab_module
from caffe_lite.fast_rcnn.experiments import layer_times, paper, pictures, training
from caffe_lite.fast_rcnn.experiments.lab import Lab
from caffe_lite.fast_rcnn.experiments.results import MAP, TEST_SECONDS, Claim, Report, Row, judge
from caffe_lite.fast_rcnn.experiments.setting import MINI, Recipe, Setting

NAMES = [*(f"table{number}" for number in range(1, 9)), "fig2", "fig3"]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # in a handful of pictures classes have few objects


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of all experiments at the smallest size."""
    folder = tmp_path_factory.mktemp("experiments")
    assert main(["experiment", "all", "--quick", "--out", str(folder)]) == 0
    return folder


def quick(folder: Path, **options: Any) -> Setting:
    return Setting(str(folder), seeds=(3,), quick=True, progress=False, **options)


# ---- the paper's numbers


def test_table_1_says_the_mean_of_its_classes() -> None:
    assert paper.TABLE1_MAP == {"07": 66.9, "07\\diff": 68.1, "07+12": 70.0}
    for name, aps in paper.TABLE1_AP.items():
        assert len(aps) == len(paper.CLASSES) == 20
        assert np.mean(aps) == pytest.approx(paper.TABLE1_MAP[name], abs=0.06)


@pytest.mark.parametrize(
    ("times", "speedups"),
    [
        (paper.TABLE4_TRAIN_HOURS, paper.TABLE4_TRAIN_SPEEDUP),
        (paper.TABLE4_TEST_SECONDS, paper.TABLE4_TEST_SPEEDUP),
    ],
)
def test_table_4_s_speedups_are_ratios_of_its_rounded_times(times: Any, speedups: Any) -> None:
    for system, by_net in speedups.items():
        for net, speedup in by_net.items():
            reference, time = times[paper.RCNN][net], times[system][net]
            low, high = reference - rounding(reference), reference + rounding(reference)
            assert low / (time + rounding(time)) <= speedup <= high / (time - rounding(time))


def rounding(value: float) -> float:
    """Half the last digit of a time: the paper gives 84 h, 9.5 h and 0.32 s."""
    return 0.5 if value >= 20 else 0.05 if value >= 1 else 0.005


def test_the_same_result_stands_in_several_tables() -> None:
    assert paper.TABLE4_MAP[paper.FAST] == paper.TABLE6_MAP[paper.MULTI_TASK] == paper.TABLE7_MAP[paper.ONE_SCALE]
    assert paper.TABLE4_MAP[paper.FAST] == paper.TABLE8_MAP[paper.FAST_SOFTMAX] == {"S": 57.1, "M": 59.2, "L": 66.9}
    assert paper.TABLE1_MAP["07"] == paper.TABLE5_MAP["conv3_1 and up"] == paper.FIG2_MAP[paper.BEFORE] == 66.9
    assert paper.TABLE4_MAP[paper.FAST_SVD]["L"] == paper.FIG2_MAP[paper.AFTER] == 66.6


def test_figure_2_s_shares_are_of_its_milliseconds() -> None:
    for state, groups in paper.FIG2.items():
        assert sum(share for share, _ in groups.values()) == pytest.approx(100, abs=0.3)
        total = sum(spent for _, spent in groups.values())
        for share, spent in groups.values():
            assert 100 * spent / total == pytest.approx(share, abs=0.7), state


# ---- verdicts


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ([1.0, 2.0, 3.0], "agrees"),  # mean 2, standard error 0.58
        ([-1.0, -2.0, -3.0], "contradicts"),
        ([-2.0, 0.0, 3.0], "undecided"),  # mean 0.33, standard error 1.45
        ([0.5], "agrees"),
        ([-0.5], "contradicts"),
        ([0.0], "undecided"),
    ],
)
def test_a_verdict_compares_the_gap_with_its_standard_error(gaps: list[float], verdict: str) -> None:
    assert judge(gaps) == verdict


def report_of(higher: list[float], lower: list[float], quantity: str = MAP) -> Report:
    rows = [Row("new", quantity, {"L": 60.0}, {MINI: higher}), Row("old", quantity, {"L": 40.0}, {MINI: lower})]
    return Report("table6", "an example", {}, rows, [Claim(quantity, "new", "old", "New beats old")])


def test_what_contradicts_the_paper_is_said() -> None:
    report = report_of([50.0, 51.0, 52.0], [60.0, 61.0, 63.0])
    assert "paper +20.0 (L); measured mini -10.3 (± 0.58, 3 seeds): CONTRADICTS" in report.text()
    (claim,) = json.loads(report.json())["claims"]
    assert claim["paper"] == {"L": 20.0}
    assert claim["measured"][MINI] == {"gaps": [-10.0, -10.0, -11.0], "verdict": "contradicts"}


def test_times_are_compared_by_their_ratio() -> None:
    report = report_of([0.4, 0.8], [0.1, 0.2], TEST_SECONDS)
    assert "new / old: paper 1.5x (L); measured mini 4.0x (± 0, 2 seeds): AGREES" in report.text()


def test_mean_and_sample_deviation_are_told_and_nan_is_null() -> None:
    report = report_of([50.0, 52.0, 54.0], [math.nan, math.nan, math.nan])
    new, old = json.loads(report.json())["rows"]
    assert new["measured"][MINI] == {"values": [50.0, 52.0, 54.0], "mean": 52.0, "std": 2.0}
    assert old["measured"][MINI] == {"values": [None] * 3, "mean": None, "std": None}
    assert "52.0 ± 2.0" in report.text() and "not measured" in report.text()


# ---- every table and figure


def test_the_list_names_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_experiment_gives_paper_and_measurement(name: str, out: Path) -> None:
    content = json.loads((out / f"{name}.json").read_text())
    both = [row for row in content["rows"] if row["paper"] and row["measured"]]
    assert content["experiment"] == name and content["setting"]["seeds"] == [3]
    assert len(both) >= 2 and content["claims"]
    for row in content["rows"]:
        for column in row["measured"].values():
            assert column["values"] and all(value is None or math.isfinite(value) for value in column["values"])
    assert all(claim["measured"] for claim in content["claims"])
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    text = (out / f"{name}.txt").read_text()
    assert all(claim["text"] in text for claim in content["claims"])


def test_table_4_s_measured_speedups_are_ratios_of_its_times(out: Path) -> None:
    rows = json.loads((out / "table4.json").read_text())["rows"]
    value = {(row["quantity"], row["label"]): row["measured"][MINI]["values"] for row in rows}
    for quantity, times in (("training speedup over R-CNN, x", "training, hours"), (None, "test, s/image")):
        speedup = value[quantity or "test speedup over R-CNN, x", paper.FAST][0]
        assert speedup == pytest.approx(value[times, paper.RCNN][0] / value[times, paper.FAST][0])


def test_tables_share_trained_nets_and_a_second_run_trains_nothing(out: Path, monkeypatch: Any) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("trained or tested again")

    monkeypatch.setattr(lab_module, "train_net", refused)
    monkeypatch.setattr(lab_module, "finetune", refused)
    monkeypatch.setattr(lab_module.rcnn, "train", refused)
    monkeypatch.setattr(lab_module.rcnn, "test", refused)
    before = (out / "table8.json").read_text()
    report = experiments.run("table8", quick(out))
    rows = json.loads(before)["rows"]
    assert [dict(row.measured) for row in report.rows] == [{MINI: row["measured"][MINI]["values"]} for row in rows]


def test_an_unknown_name_is_refused_with_the_near_miss() -> None:
    with pytest.raises(DataError, match=r"no experiment 'table9'.*table"):
        experiments.run("table9", Setting("nowhere"))


# ---- trained nets


def weights_of(trained: lab_module.Trained, layer: str) -> np.ndarray:
    net = caffe_lite.Net(f"{os.path.dirname(caffe_lite.models.__file__)}/mini/test.prototxt", caffe_lite.TEST)
    net.copy_from(trained.weights)
    return np.array(net.params[layer][0].data)


def test_frozen_layers_keep_the_pretrained_weights(out: Path) -> None:
    lab = Lab(quick(out))
    start = lab.pretrained(MINI, 3)
    nets = {
        name: lab.train(Recipe(MINI, frozen=training._FREEZE[name]), 3)
        for name in ("fc6 and up", "conv3_1 and up", "conv2_1 and up")
    }
    learning = {
        name: [layer for layer in ("conv2", "conv3", "conv4", "fc6") if not same(nets[name], start, layer)]
        for name in nets
    }
    assert learning == {
        "fc6 and up": ["fc6"],
        "conv3_1 and up": ["conv3", "conv4", "fc6"],
        "conv2_1 and up": ["conv2", "conv3", "conv4", "fc6"],
    }


def same(a: lab_module.Trained, b: lab_module.Trained, layer: str) -> bool:
    return np.array_equal(weights_of(a, layer), weights_of(b, layer))


def test_schedules_are_the_paper_s_scaled_to_the_net(out: Path) -> None:
    real = Lab(Setting("nowhere", data="voc"))
    recipe = training.trained_on("07++12", "L")
    assert recipe.imdb == "voc_2007_trainval+voc_2007_test+voc_2012_trainval"
    assert (real.scaled("L", recipe.schedule.iters), real.scaled("L", recipe.schedule.step)) == (100000, 40000)
    assert real.models("SM") == ("S", "M")
    lab = Lab(quick(out))  # 6 iterations for 40,000
    trained = lab.train(training.trained_on("07++12", MINI), 3)
    solver, _ = prototxt.read_solver(os.path.join(trained.folder, "solver.prototxt"))
    assert os.path.basename(trained.weights) == "mini_fast_rcnn_iter_15.caffemodel"
    assert solver.stepsize == 6


def test_other_seeds_and_settings_are_other_nets(out: Path, monkeypatch: Any) -> None:
    made: list[str] = []

    def stand_in(folder: str) -> tuple[str, float]:
        made.append(os.path.basename(folder))
        return os.path.join(folder, "weights"), 1.0

    lab = Lab(quick(out))
    for seed, key in ((3, ["a"]), (4, ["a"]), (3, ["b"]), (3, ["a"])):
        lab._made("stand-in", seed, key, Recipe(MINI), stand_in)
    assert len(made) == len(set(made)) == 3


def test_interrupted_training_goes_on_to_the_same_bits(out: Path, tmp_path: Path, monkeypatch: Any) -> None:
    whole = Lab(quick(out)).train(Recipe(MINI), 3)
    real = lab_module.train_net

    def interrupted(solver: Any, imdb: Any, folder: Any, start: Any, iters: int, *rest: Any, **options: Any) -> Any:
        real(solver, imdb, folder, start, iters // 2, *rest, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(lab_module, "train_net", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Lab(quick(tmp_path)).train(Recipe(MINI), 3)
    told: list[Any] = []

    def observed(*args: Any, **options: Any) -> Any:
        told.append(options["resume"])
        return real(*args, **options)

    monkeypatch.setattr(lab_module, "train_net", observed)
    resumed = Lab(quick(tmp_path)).train(Recipe(MINI), 3)
    assert told == ["latest"]
    for layer in ("conv1", "conv4", "fc6", "cls_score", "bbox_pred"):
        np.testing.assert_array_equal(weights_of(resumed, layer), weights_of(whole, layer))


# ---- a devkit of one's own


def test_a_devkit_without_public_annotations_gives_results_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for year in (2007, 2012):
        own = make_devkit(tmp_path / "data", 5, {"trainval": 4, "test": 2}, (120, 100), year=year)
    voc = Path(own) / "VOCdevkit2012" / "VOC2012"
    for name in (voc / "ImageSets" / "Main" / "test.txt").read_text().split():
        (voc / "Annotations" / f"{name}.xml").unlink()
    options = ["--data", own, "--models", "mini", "--iters", "2", "--quick", "--out", str(tmp_path), "--json"]
    assert main(["experiment", "table3", *options]) == 0
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "table3.json").read_text())
    assert not any(row["measured"] for row in content["rows"])
    assert "the annotations are not public" in content["notes"][0] and '"notes"' in printed
    assert len(list(tmp_path.glob("nets/*/voc_2012_test-*/comp4_det_test_*.txt"))) == 2 * 6


def test_full_size_nets_ask_for_their_imagenet_weights(
    devkit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment", "table8", "--data", devkit, "--models", "S", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "CaffeNet.v2.caffemodel: no such file" in error and "--weights" in error


# ---- figure 2 and pictures


def test_layers_are_timed_in_groups() -> None:
    times = layer_times.layer_passes("models/mini/compressed/test.prototxt", (96, 128), 20, 2, progress=False)
    assert set(times) == {"conv", "fc6", paper.ROI_POOLING, "other"}
    assert all(len(passes) == 2 and min(passes) > 0 for passes in times.values())


def test_random_regions_lie_in_the_image() -> None:
    rois = layer_times.random_rois(np.random.default_rng(0), 500, (60, 100))
    assert rois.shape == (500, 5) and not rois[:, 0].any()
    assert (rois[:, 1:3] >= 0).all() and (rois[:, 3:] <= np.float32([99, 59]) + 1e-4).all()
    assert (rois[:, 3:] > rois[:, 1:3]).all()


def test_a_picture_is_drawn_of_numbers_without_measurement(tmp_path: Path) -> None:
    rows = [Row("only the paper's", MAP, {"L": 60.0}, {}), Row("nothing found", MAP, {}, {MINI: [math.nan]})]
    pictures.draw(tmp_path / "picture.png", Report("table2", "an example", {}, rows))
    assert (tmp_path / "picture.png").stat().st_size > 1000
