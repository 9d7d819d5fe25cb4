"""Training: what is refused before it starts, snapshots, and a short run from end to end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe_lite
from caffe_lite import models, prototxt, sidecar
from caffe_lite import snapshot as engine_snapshot
from caffe_lite.blob import Blob
from caffe_lite.data.config import cfg
from caffe_lite.data.factory import get_imdb
from caffe_lite.device import Device
from caffe_lite.errors import DataError, NetError, SolverError, WeightsError
from caffe_lite.fast_rcnn import train
from caffe_lite.fast_rcnn.cli import main
from caffe_lite.fast_rcnn.detector import load_net
from caffe_lite.fast_rcnn.snapshots import check_for_testing, unnormalise
from caffe_lite.fast_rcnn.train import check_num_classes, read_solver, train_net
from caffe_lite.signals import SignalHandler, SolverAction
from tests.small_net import assert_same, parameters

pytestmark = pytest.mark.usefixtures("mini_settings")

ROOT = Path(__file__).resolve().parents[2]
SOLVER = models.path("mini/solver.prototxt")
TRAIN = models.path("mini/train.prototxt")


def run(devkit: str, folder: Path, iters: int = 5, solver: Path = SOLVER, **kwargs: Any) -> train.SolverWrapper:
    np.random.seed(3)
    caffe_lite.set_random_seed(3)
    return train_net(
        solver, get_imdb("synthetic_trainval", data=devkit), folder, max_iters=iters, progress=False, **kwargs
    )


def edited(folder: Path, *changes: tuple[str, str], solver: tuple[str, str] = ("", "")) -> Path:
    """The mini solver and net with these texts replaced."""
    folder.mkdir(exist_ok=True)
    net = TRAIN.read_text()
    for old, new in changes:
        assert old in net
        net = net.replace(old, new)
    (folder / "train.prototxt").write_text(net)
    text = SOLVER.read_text().replace("models/mini/train.prototxt", str(folder / "train.prototxt"))
    (folder / "solver.prototxt").write_text(text.replace(*solver) if solver[0] else text)
    return folder / "solver.prototxt"


def test_five_iterations_end_to_end_and_again_to_the_bit(devkit: str, tmp_path: Path) -> None:
    first = run(devkit, tmp_path / "a")
    again = run(devkit, tmp_path / "b")
    assert first.solver.iter == 5
    assert {name: len(values) for name, values in first.losses.items()} == {"loss": 5, "loss_bbox": 5, "loss_cls": 5}
    assert np.isfinite(first.losses["loss"]).all()
    np.testing.assert_allclose(
        first.losses["loss"], np.add(first.losses["loss_cls"], first.losses["loss_bbox"]), rtol=1e-6
    )
    assert first.losses == again.losses
    assert_same(parameters(first.solver.net), parameters(again.solver.net))
    assert Path(first.snapshots[0]).read_bytes() == Path(again.snapshots[0]).read_bytes()
    assert [os.path.basename(path) for path in first.snapshots] == ["mini_fast_rcnn_iter_5.caffemodel"]


def test_snapshots_hold_unnormalised_box_regression(devkit: str, tmp_path: Path, device: Device) -> None:
    """The file's bbox_pred is W * std, b * std + mean; the net goes on as if nothing had been written."""
    cfg.TRAIN.SNAPSHOT_ITERS = 2
    cfg.TRAIN.SNAPSHOT_INFIX = "try"
    wrapper = run(devkit, tmp_path / "a", iters=4)
    names = ["mini_fast_rcnn_try_iter_2.caffemodel", "mini_fast_rcnn_try_iter_4.caffemodel"]
    assert [os.path.basename(path) for path in wrapper.snapshots] == names
    net = wrapper.solver.net
    before = parameters(net)
    path = wrapper.snapshot()
    assert_same(before, parameters(net))
    assert wrapper.bbox_stds[4:].max() > 0 and np.abs(wrapper.bbox_means).max() > 0

    test = caffe_lite.Net(str(models.path("mini/test.prototxt")), caffe_lite.TEST, weights=path)
    saved = parameters(test)
    weights, biases = before.pop("bbox_pred")
    found = saved.pop("bbox_pred")
    np.testing.assert_allclose(found[0], weights * wrapper.bbox_stds[:, np.newaxis], rtol=1e-6)
    np.testing.assert_allclose(found[1], biases * wrapper.bbox_stds + wrapper.bbox_means, rtol=1e-6, atol=1e-9)
    assert_same(before, saved)

    cfg.TRAIN.SNAPSHOT_ITERS, cfg.TRAIN.SNAPSHOT_INFIX = 10000, ""
    assert_same(parameters(net), parameters(run(devkit, tmp_path / "b", iters=4).solver.net))


def test_a_failing_snapshot_leaves_the_net_as_it_was(
    devkit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = run(devkit, tmp_path, iters=1)
    before = parameters(wrapper.solver.net)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("caffe_lite.sidecar.fingerprint", full)
    with pytest.raises(WeightsError, match="the snapshot was not written: No space left on device"):
        wrapper.snapshot()
    assert_same(before, parameters(wrapper.solver.net))


def test_unnormalised_layer_predicts_unnormalised_targets() -> None:
    rng = np.random.default_rng(0)
    blobs = [Blob((8, 5)), Blob((8,))]
    for blob in blobs:
        blob.data[...] = rng.standard_normal(blob.shape)
    x, means, stds = rng.standard_normal(5), rng.standard_normal(8), rng.random(8)
    expected = (blobs[0].data @ x + blobs[1].data) * stds + means
    unnormalise(blobs, means, stds)
    np.testing.assert_allclose(blobs[0].data @ x + blobs[1].data, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "numbers"),
    [
        ("'num_classes': 7", "'num_classes': 21", (7, 21, 7, 28)),
        ("    num_output: 7\n", "    num_output: 21\n", (7, 7, 21, 28)),
        ("    num_output: 28\n", "    num_output: 84\n", (7, 7, 7, 84)),
        ("    num_output: 28\n", "    num_output: 30\n", (7, 7, 7, 30)),
    ],
)
def test_disagreeing_classes_are_refused_before_anything_is_built(
    devkit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, numbers: tuple[int, ...]
) -> None:
    solver = edited(tmp_path / "net", (old, new))
    monkeypatch.setattr(train, "get_training_roidb", lambda imdb: pytest.fail("proposals were asked for"))
    with pytest.raises(NetError) as caught:
        run(devkit, tmp_path / "out", solver=solver)
    imdb, data, score, box = numbers
    assert (
        f"imdb {imdb}, num_classes of the data layer {data}, num_output of cls_score {score}, "
        f"num_output of bbox_pred {box}" in str(caught.value)
    )


def test_all_four_disagreeing_and_an_absent_head() -> None:
    net, _ = prototxt.read_net(str(TRAIN))
    with pytest.raises(
        NetError, match=r"imdb 21,.* 7,.* 7,.* 28 .*write num_classes 21, cls_score 21 and bbox_pred 84"
    ):
        check_num_classes(net, 21, "x")
    check_num_classes(net, 7, "x")
    kept = [p for p in net.layer if "bbox" not in p.name]
    del net.layer[:]
    net.layer.extend(kept)
    check_num_classes(net, 7, "x")
    with pytest.raises(NetError, match="bbox_pred absent"):
        check_num_classes(net, 8, "x")


def test_an_unwritable_output_folder_is_refused_at_the_start(
    devkit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(train, "get_training_roidb", lambda imdb: pytest.fail("proposals were asked for"))
    with pytest.raises(DataError, match=r"file/out: cannot write to the output folder"):
        run(devkit, tmp_path / "file" / "out")


def test_a_loss_that_is_not_a_number_names_layer_and_images(devkit: str, tmp_path: Path) -> None:
    solver = edited(tmp_path / "net", solver=("base_lr: ", "base_lr: 1e30 # "))
    solver.write_text(solver.read_text().replace("clip_gradients", "# clip_gradients"))
    with pytest.raises(SolverError) as caught, np.errstate(all="ignore"):
        run(devkit, tmp_path / "out", solver=solver)
    message = str(caught.value)
    assert "iteration 1: the loss is" in message and "layer 'conv" in message and "JPEGImages" in message


def test_weights_are_copied_by_name_and_must_fit(devkit: str, tmp_path: Path) -> None:
    source = run(devkit, tmp_path / "a", iters=1).snapshots[0]
    trained = run(devkit, tmp_path / "b", iters=1, pretrained_model=source)
    assert trained.copy_report.copied == list(trained.solver.net.params)
    solver = edited(tmp_path / "net", ("num_output: 192", "num_output: 64"))
    with pytest.raises(WeightsError, match="fc6"):
        run(devkit, tmp_path / "c", iters=1, solver=solver, pretrained_model=source)


def test_relative_paths_in_a_solver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the working directory first, then the shipped models."""
    monkeypatch.chdir(tmp_path)
    param, origin = read_solver("models/mini/solver.prototxt")
    assert (Path(origin), Path(param.train_net)) == (SOLVER, TRAIN)
    (tmp_path / "models" / "mini").mkdir(parents=True)
    (tmp_path / "models" / "mini" / "train.prototxt").write_text("")
    param, origin = read_solver("models/mini/solver.prototxt")
    assert Path(origin) == SOLVER and Path(param.train_net) == Path("models/mini/train.prototxt")


# ---- going on


def resumed(devkit: str, folder: Path, state: str, **kwargs: Any) -> train.SolverWrapper:
    """Training that goes on from ``state`` in a process whose random streams are elsewhere."""
    np.random.seed(77)
    caffe_lite.set_random_seed(77)
    imdb = get_imdb("synthetic_trainval", data=devkit)
    return train_net(kwargs.pop("solver", SOLVER), imdb, folder, progress=False, resume=state, **kwargs)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if "_iter_" in path.name}


@pytest.mark.parametrize("prefetch", [False, True])
def test_resumed_training_gives_the_same_bits(devkit: str, tmp_path: Path, prefetch: bool, device: Device) -> None:
    """The files too: weights, history, place in the roidb, random streams, losses."""
    cfg.TRAIN.USE_PREFETCH, cfg.TRAIN.SNAPSHOT_ITERS = prefetch, 2
    straight = run(devkit, tmp_path / "a", iters=5)
    again = resumed(devkit, tmp_path / "b", str(tmp_path / "a" / "mini_fast_rcnn_iter_2.solverstate"), max_iters=5)
    assert again.losses == straight.losses
    assert_same(parameters(again.solver.net), parameters(straight.solver.net))
    expected = {name: content for name, content in files(tmp_path / "a").items() if "_iter_2." not in name}
    found = files(tmp_path / "b")
    assert sorted(found) == sorted(expected) and len(found) == 6
    assert [name for name in found if name.endswith(".caffemodel") and found[name] != expected[name]] == []
    notes = [sidecar.read(tmp_path / d / "mini_fast_rcnn_iter_5.solverstate.resume.npz") for d in "ab"]
    assert str(notes[0]["random"]) == str(notes[1]["random"]) and str(notes[0]["train"]) == str(notes[1]["train"])


def test_the_command_goes_on_in_a_fresh_process(
    devkit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "train-net", "--solver", str(SOLVER), "--imdb", "synthetic_trainval", "--data", devkit, "--iters", "5",
        "--out", str(tmp_path), "--cfg", str(models.path("mini/mini.yml")),
        "--set", "TRAIN.SCALES", "(64,)", "TRAIN.BATCH_SIZE", "16", "TRAIN.SNAPSHOT_ITERS", "2",
    ]  # fmt: skip
    assert main([*command, "--resume"]) == 0
    assert "no snapshot in" in capsys.readouterr().out and (tmp_path / "loss.png").exists()
    first = files(tmp_path)
    for name in first:
        if "_iter_2." not in name:
            (tmp_path / name).unlink()
    done = subprocess.run(
        [sys.executable, "-m", "caffe_lite.fast_rcnn.cli", *command, "--resume", "latest", "--keep", "1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"going on from {tmp_path}/mini_fast_rcnn_iter_2.solverstate" in done.stdout
    assert done.stdout.count("wrote") == 2, "the last snapshot, the others being pruned, and the curve"
    assert files(tmp_path) == {name: content for name, content in first.items() if "_iter_5." in name}


def test_a_snapshot_says_whether_its_weights_are_normalised(devkit: str, tmp_path: Path) -> None:
    """Three ways to get it wrong: test normalised weights, normalise twice, normalise by other numbers."""
    wrapper = run(devkit, tmp_path, iters=1)
    before = parameters(wrapper.solver.net)
    ours = wrapper.snapshots[0]
    check_for_testing(ours)
    load_net(models.path("mini/test.prototxt"), ours)

    wrapper.solver.iter = 2
    plain, state = engine_snapshot.write(wrapper.solver)  # what only somebody who goes around the wrapper writes
    with pytest.raises(WeightsError, match=r"iter_2\.caffemodel: written by the solver itself .* normalised boxes"):
        load_net(models.path("mini/test.prototxt"), plain)
    assert_same(parameters(resumed(devkit, tmp_path, state, max_iters=2).solver.net), before)
    assert_same(
        parameters(resumed(devkit, tmp_path, ours.replace("caffemodel", "solverstate"), max_iters=1).solver.net), before
    )

    wrapper.bbox_stds = wrapper.bbox_stds * 2
    with pytest.raises(WeightsError, match="box targets of other deviations than those of this roidb"):
        wrapper.restore(ours.replace("caffemodel", "solverstate"))
    cfg.TRAIN.BBOX_REG = False
    with pytest.raises(WeightsError, match=r"trained with TRAIN\.BBOX_REG"):
        wrapper.restore(ours.replace("caffemodel", "solverstate"))
    os.unlink(sidecar.path_of(state))
    check_for_testing(plain)  # nobody knows, as of the original's weights
    with pytest.raises(WeightsError, match="it cannot be told whether bbox_pred is normalised"):
        wrapper.restore(state)
    Path(ours).write_bytes(Path(ours).read_bytes()[:-1])
    with pytest.raises(WeightsError, match="it is cut"):
        load_net(models.path("mini/test.prototxt"), ours)


def test_the_solvers_own_snapshots_are_for_testing_too(devkit: str, tmp_path: Path) -> None:
    wrapper = run(devkit, tmp_path / "out", iters=3, solver=edited(tmp_path, solver=("snapshot: 0", "snapshot: 2")))
    assert sorted(name for name in files(tmp_path / "out") if name.endswith("model")) == [
        "mini_fast_rcnn_iter_2.caffemodel", "mini_fast_rcnn_iter_3.caffemodel",
    ]  # fmt: skip
    note = sidecar.read(tmp_path / "out" / "mini_fast_rcnn_iter_2.solverstate.resume.npz")["notes"]["fast_rcnn"]
    np.testing.assert_array_equal(note["stds"], wrapper.bbox_stds)
    assert len(note["losses"]["loss"]) == 2
    for name in wrapper.snapshots:
        check_for_testing(name)


def test_an_interrupt_stops_with_a_snapshot(devkit: str, tmp_path: Path) -> None:
    straight = run(devkit, tmp_path / "a", iters=4)

    class Interrupted(SignalHandler):
        def requested(self) -> SolverAction:
            self.asked = getattr(self, "asked", 0) + 1
            return SolverAction.STOP if self.asked == 2 else SolverAction.NONE

    stopped = run(devkit, tmp_path / "b", iters=4, signals=Interrupted())
    assert stopped.solver.iter == 2
    assert [os.path.basename(path) for path in stopped.snapshots] == ["mini_fast_rcnn_iter_2.caffemodel"]
    again = resumed(devkit, tmp_path / "b", "latest", max_iters=4)
    assert_same(parameters(again.solver.net), parameters(straight.solver.net))


def test_a_full_disk_does_not_end_training(devkit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg.TRAIN.SNAPSHOT_ITERS = 2
    write = sidecar.fingerprint

    def full_at_2(path: str, *args: Any) -> Any:
        if "_iter_2." in path:
            raise OSError(28, "No space left on device")
        return write(path, *args)

    monkeypatch.setattr("caffe_lite.sidecar.fingerprint", full_at_2)
    wrapper = run(devkit, tmp_path, iters=4)
    assert [os.path.basename(path) for path in wrapper.snapshots] == ["mini_fast_rcnn_iter_4.caffemodel"]
