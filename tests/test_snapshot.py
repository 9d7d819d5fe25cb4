"""Snapshots: what is written, what going on from it restores or refuses, which is the latest, which are pruned."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import caffe_lite as caffe
from caffe_lite import sidecar, snapshot, weights
from caffe_lite.device import Device
from caffe_lite.errors import DataError, WeightsError
from caffe_lite.proto import caffe_pb2
from caffe_lite.signals import SolverAction
from caffe_lite.solver import Solver
from tests.small_net import MLP, assert_same, net_of, parameters
from tests.training_runs import Lines, digest, write_case

GOLDEN = Path(__file__).parent / "golden" / "solvers"


@pytest.fixture
def make(make: Callable[..., Solver]) -> Callable[..., Solver]:
    """A solver of the MLP with momentum, whose files begin with "s"."""
    return lambda text="", **fields: make(f'momentum: 0.9 snapshot_prefix: "s" {text}', **fields)


# ---- files


def test_snapshots_in_hdf5(make: Callable[..., Solver]) -> None:
    straight = make("snapshot_format: HDF5 snapshot_diff: true")
    straight.step(2)
    assert straight.snapshot() == ("s_iter_2.caffemodel.h5", "s_iter_2.solverstate.h5")
    with h5py.File("s_iter_2.caffemodel.h5") as file:
        assert set(file) == {"data", "diff"}
    straight.step(2)
    resumed = make()
    resumed.restore("s_iter_2.solverstate.h5")
    assert resumed.iter == 2
    resumed.step(2)
    assert digest_of(straight) == digest_of(resumed)


def digest_of(solver: Solver) -> str:
    to_host = solver.net.device.to_host
    parts = [to_host(b.data).tobytes() for b in solver.net.learnable_params]
    return str(parts + [to_host(array).tobytes() for array in solver.history])


def test_caffes_own_state_says_what_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(GOLDEN / "sgd", tmp_path / "sgd")
    monkeypatch.chdir(tmp_path / "sgd")
    caffe.get_solver("solver.prototxt").restore("ref_iter_8.solverstate")
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.startswith("ref_iter_8.solverstate: resuming as Caffe does") and "random streams" in warning


def test_without_its_resume_file_a_state_names_the_data_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(write_case(tmp_path, "recurrent"))
    solver = caffe.get_solver("solver.prototxt")
    solver.step(1)
    _, state = solver.snapshot()
    os.unlink(sidecar.path_of(state))
    solver.restore(state)
    assert "the places of layers 'source', 'lstm', 'rnn'" in caplog.messages[-1]


def test_a_resume_file_of_other_files_is_refused(make: Callable[..., Solver]) -> None:
    solver = make()
    for _ in range(2):
        solver.step(1)
        solver.snapshot()
    shutil.copy("s_iter_1.solverstate", "s_iter_2.solverstate")
    with pytest.raises(WeightsError, match=r"^s_iter_2\.solverstate: damaged, or changed since it was written"):
        make().restore("s_iter_2.solverstate")
    os.unlink("s_iter_1.caffemodel")
    with pytest.raises(WeightsError, match=r"^s_iter_1\.caffemodel: cannot be read: No such file"):
        make().restore("s_iter_1.solverstate")


def test_a_moved_snapshot_takes_the_weights_beside_it(make: Callable[..., Solver]) -> None:
    """Even where other weights now stand at the path that the state names."""
    solver = make()
    solver.step(1)
    Path("moved").mkdir()
    for path in [*solver.snapshot(), "s_iter_1.solverstate.resume.npz"]:
        shutil.copy(path, "moved")
    kept = parameters(solver.net)
    Path("s_iter_1.caffemodel").write_bytes(b"something else")
    other = make()
    other.restore("moved/s_iter_1.solverstate")
    assert_same(kept, parameters(other.net))


def test_a_net_that_the_weights_are_too_few_for_is_refused(make: Callable[..., Solver]) -> None:
    """Caffe would leave the layer as its filler made it."""
    solver = make()
    _, state = solver.snapshot()
    os.unlink(sidecar.path_of(state))
    text = MLP.replace('name: "ip2"', 'name: "ip3"')
    with pytest.raises(WeightsError, match=r"s_iter_0\.caffemodel: holds no parameters of layer 'ip3'"):
        make(layers=text).restore(state)


def test_a_state_of_other_layers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_case(tmp_path, "recurrent"))
    solver = caffe.get_solver("solver.prototxt")
    _, state = solver.snapshot()
    Path("sequences").write_text("sequences.h5\nsequences.h5\n")
    with pytest.raises(WeightsError, match=r"resume\.npz: .*layer 'source' .*list of 1 files, .* delete"):
        caffe.get_solver("solver.prototxt").restore(state)


def test_an_attribute_named_state_of_a_users_layer_is_its_own() -> None:
    class Users(caffe.Layer):
        state = 3  # type: ignore[assignment]

    assert not sidecar._has_state(Users(caffe_pb2.LayerParameter(name="x")))


def test_a_snapshot_of_a_stop_in_the_middle_of_tests_begins_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "caffe_lite")
    monkeypatch.chdir(write_case(tmp_path, "tested"))

    def run(stop_at: int | None, resume: str | None = None) -> tuple[str, list[str]]:
        lines = Lines()
        logger = logging.getLogger("caffe_lite")
        logger.addHandler(lines)
        solver = caffe.get_solver("solver.prototxt")
        asked = iter(range(10**6))
        if stop_at is not None:
            solver.action_function = lambda: SolverAction(1 if next(asked) == stop_at else 0)
        solver.solve(resume)
        logger.removeHandler(lines)
        return digest(solver), lines.lines

    straight = run(None)
    for stop_at in range(3, 8):  # some of them between two batches of a test
        run(stop_at)
        state = snapshot.latest("s")
        assert state is not None
        resumed = run(None, state)
        assert resumed[0] == straight[0]
        assert resumed[1][1:] == straight[1][-len(resumed[1]) + 1 :]
        for path in Path().glob("s_iter_*"):
            path.unlink()


# ---- layers


def test_arrays_in_memory_go_on_where_they_were(tmp_path: Path) -> None:
    text = """layer { name: "m" type: "MemoryData" top: "x" top: "y"
              memory_data_param { batch_size: 2 channels: 1 height: 1 width: 1 } }"""
    data = np.arange(8, dtype="f4").reshape(8, 1, 1, 1)
    net = net_of(tmp_path, text)
    net.layers[0].reset(data, np.zeros(8, "f4"))
    net.forward()
    state = net.layers[0].state()
    for arrays_first in (False, True):
        other = net_of(tmp_path, text)
        if arrays_first:
            other.layers[0].reset(data, np.zeros(8, "f4"))
        other.layers[0].set_state(state)
        if not arrays_first:
            other.layers[0].reset(data, np.zeros(8, "f4"))
        other.forward()
        assert other.blobs["x"].data.ravel().tolist() == [2, 3]
    with pytest.raises(DataError, match="at item 8, the arrays have 8"):
        other.layers[0].set_state({"position": 8})


def test_a_recurrent_state_must_fit(tmp_path: Path, device: Device) -> None:
    text = """layer { name: "data" type: "Input" top: "x" top: "cont"
                      input_param { shape { dim: 2 dim: 1 dim: 3 } shape { dim: 2 dim: 1 } } }
              layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
                      recurrent_param { num_output: 2 weight_filler { type: "gaussian" } } }"""
    net = net_of(tmp_path, text)
    layer = net.layer_dict["lstm"]
    for bad in ({}, {"h": np.zeros((1, 2))}, {"h": np.zeros((1, 3)), "c": np.zeros((1, 3))}):
        with pytest.raises(DataError, match=r"needs h, c of shape \(N, 2\), got"):
            layer.set_state(bad)
    net.blobs["x"].data[...] = 1
    net.blobs["cont"].data[...] = 1
    first = net.forward()["h"].copy()
    state = layer.state()
    second = net.forward()["h"].copy()
    assert not np.array_equal(first, second)
    layer.forget()
    layer.set_state(state)
    np.testing.assert_array_equal(net.forward()["h"], second)


# ---- which snapshots there are


def snapshots_at(solver: Solver, *iterations: int) -> None:
    for iteration in iterations:
        solver.iter = iteration
        solver.snapshot()


def on_disk() -> list[str]:
    return sorted(os.listdir())


def test_latest_is_the_newest_whole_one(make: Callable[..., Solver], caplog: pytest.LogCaptureFixture) -> None:
    solver = make()
    assert snapshot.latest("s") is None
    snapshots_at(solver, 2, 10, 9)
    solver.param.snapshot_prefix = "s_iter_99"  # another prefix that begins alike
    snapshots_at(solver, 50)
    assert snapshot.latest("s") == "s_iter_10.solverstate"
    Path("s_iter_10.caffemodel").write_bytes(Path("s_iter_10.caffemodel").read_bytes()[:-1])
    assert snapshot.latest("s") == "s_iter_9.solverstate"
    assert "passing over a snapshot: s_iter_10.caffemodel: " in caplog.text and "it is cut" in caplog.text
    os.unlink("s_iter_9.solverstate")  # as if killed before it got its name
    assert snapshot.latest("s") == "s_iter_2.solverstate"


def test_the_last_n_snapshots_are_kept(make: Callable[..., Solver]) -> None:
    solver = make()
    solver.keep_snapshots = 2
    before = set(on_disk())
    snapshots_at(solver, 1, 2, 3, 10)
    left = set(on_disk()) - before
    assert left == {
        f"s_iter_{n}.{end}" for n in (3, 10) for end in ("caffemodel", "solverstate", "solverstate.resume.npz")
    }


def test_only_whole_snapshots_count_and_other_files_stay(make: Callable[..., Solver]) -> None:
    solver = make()
    snapshots_at(solver, 1, 2, 3, 4, 5)
    Path("s_iter_4.caffemodel").write_bytes(b"cut")  # neither counts ...
    os.unlink("s_iter_3.solverstate")
    Path("s_iter_0.caffemodel").write_bytes(b"the user's own")
    assert snapshot.prune("s", 2) == ["s_iter_1.solverstate"]
    assert snapshot.prune("s", 1) == [
        f"s_iter_{n}.solverstate" for n in (4, 3, 2)
    ]  # ... and both go as the older ones do
    assert {name for name in on_disk() if name.startswith("s_iter")} == {
        "s_iter_0.caffemodel", "s_iter_5.caffemodel", "s_iter_5.solverstate", "s_iter_5.solverstate.resume.npz",
    }  # fmt: skip


def test_snapshots_of_a_later_iteration_are_another_runs(make: Callable[..., Solver]) -> None:
    """Training that starts anew in the same place never prunes what it has just written."""
    solver = make()
    snapshots_at(solver, 100, 200)
    solver.keep_snapshots = 1
    snapshots_at(solver, 1, 2)
    assert [n for n in (1, 2, 100, 200) if os.path.exists(f"s_iter_{n}.solverstate")] == [2, 100, 200]


def test_states_have_caffes_bytes(make: Callable[..., Solver]) -> None:
    solver = make()
    solver.iter, solver.current_step = 12, 3
    for k, array in enumerate(solver.history):
        array[...] = k + 0.5
    model, state = solver.snapshot()
    expected = caffe_pb2.SolverState(iter=12, learned_net=model, current_step=3)
    for k, array in enumerate(solver.history):
        expected.history.add(shape={"dim": array.shape}, data=[k + 0.5] * array.size)
    assert Path(state).read_bytes() == expected.SerializeToString()


@pytest.mark.parametrize("case", sorted(path.name for path in GOLDEN.iterdir()))
def test_our_snapshot_is_the_one_that_caffe_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device, case: str
) -> None:
    """After the recorded 8 iterations: the same fields, layers, blobs and shapes; values to 2e-5."""
    shutil.copytree(GOLDEN / case, tmp_path / case)
    monkeypatch.chdir(tmp_path / case)
    recorded = np.load("trajectory.npz")
    solver = caffe.get_solver("solver.prototxt")
    for name, blobs in solver.net.params.items():
        for i, parameter in enumerate(blobs):
            parameter.data[...] = recorded[f"init:{name}:{i}"]
    for t in range(8):
        for name in ("data", "label"):
            solver.net.blobs[name].data[...] = recorded[name][t]
        solver.step(1)
    Path("ours").mkdir()
    solver.param.snapshot_prefix = "ours/ref"
    model, state = solver.snapshot()

    theirs, found = weights.read_net("ref_iter_8.caffemodel"), weights.read_net(model)
    assert [(p.name, p.type, list(p.bottom), list(p.top)) for p in found.layer] == [
        (p.name, p.type, list(p.bottom), list(p.top)) for p in theirs.layer
    ]
    for ours, reference in zip(found.layer, theirs.layer, strict=True):
        assert_blobs_close(ours.blobs, reference.blobs)
    caffes, own = weights.read_state("ref_iter_8.solverstate"), weights.read_state(state)
    assert (own.iter, own.current_step) == (caffes.iter, caffes.current_step) == (8, caffes.current_step)
    assert os.path.basename(own.learned_net) == os.path.basename(caffes.learned_net)
    assert_blobs_close(own.history, caffes.history)


def assert_blobs_close(ours: Any, theirs: Any) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert list(a.shape.dim) == list(b.shape.dim) and [f.name for f, _ in a.ListFields()] == [
            f.name for f, _ in b.ListFields()
        ]
        wanted = weights.blob_to_array(b)
        assert np.abs(weights.blob_to_array(a) - wanted).max() <= 2e-5 * max(1, np.abs(wanted).max())


def test_an_old_snapshot_that_cannot_be_removed_does_not_matter(
    make: Callable[..., Solver], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    solver = make()
    solver.keep_snapshots = 1
    snapshots_at(solver, 1)

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("caffe_lite.snapshot.os.unlink", refuse)
    snapshots_at(solver, 2)
    assert "an old snapshot cannot be removed" in caplog.text and snapshot.latest("s") == "s_iter_2.solverstate"
