"""Snapshots: Caffe's HDF5 layout, the resume file, which snapshot is the latest, which are pruned."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

import caffe_lite as caffe
from caffe_lite import hdf5_weights, sidecar, snapshot, weights
from caffe_lite.device import Device
from caffe_lite.errors import DataError, SolverError, WeightsError
from caffe_lite.proto import caffe_pb2
from caffe_lite.signals import SolverAction
from caffe_lite.solver import Solver
from tests.test_net import MLP, feed
from tests.training_runs import Lines, digest, write_case

GOLDEN = Path(__file__).parent / "golden" / "solvers"
SHARED = """
layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
        inner_product_param { num_output: 3 weight_filler { type: "gaussian" } } }
layer { name: "in/b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
        inner_product_param { num_output: 3 weight_filler { type: "gaussian" } } }
"""


@pytest.fixture
def make(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Solver]:
    """A solver of the MLP in a folder of its own, on each device."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(MLP)

    def solver(text: str = "") -> Solver:
        Path("solver.prototxt").write_text(
            'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 random_seed: 3 '
            f'snapshot_prefix: "s" {text}'
        )
        made = caffe.get_solver("solver.prototxt")
        feed(made.net)
        return made

    return solver


def values(net: Any) -> dict[str, list[np.ndarray]]:
    return {name: [np.array(b.data) for b in blobs] for name, blobs in net.params.items()}


def assert_same(a: dict[str, list[np.ndarray]], b: dict[str, list[np.ndarray]]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        for x, y in zip(a[name], b[name], strict=True):
            np.testing.assert_array_equal(x, y)


def net_of(folder: Path, text: str, seed: int = 1) -> caffe.Net:
    (folder / "net.prototxt").write_text(text)
    caffe.set_random_seed(seed)
    return caffe.Net(folder / "net.prototxt", caffe.TRAIN)


# ---- HDF5


def test_hdf5_weights_have_caffes_layout(tmp_path: Path, device: Device) -> None:
    """A group for every layer, a shared parameter with its owner only, gradients of all."""
    net = net_of(tmp_path, SHARED)
    net.params["a"][0].diff[...] = 2
    net.save_hdf5(tmp_path / "w.caffemodel.h5", write_diff=True)
    with h5py.File(tmp_path / "w.caffemodel.h5") as file:
        assert set(file) == {"data", "diff"}
        assert set(file["data"]) == {"data", "a", "in"} and not len(file["data/data"])
        assert set(file["data/a"]) == {"0", "1"} and set(file["data/in/b"]) == {"1"}
        assert set(file["diff/in/b"]) == {"0", "1"}
        assert file["data/a/0"].dtype == "<f4" and file["data/a/0"].shape == (3, 3)
        np.testing.assert_array_equal(file["data/a/0"], net.params["a"][0].data)
        np.testing.assert_array_equal(file["diff/in/b/0"], np.full((3, 3), 2))
    other = net_of(tmp_path, SHARED, seed=2)
    report = other.copy_from(tmp_path / "w.caffemodel.h5")
    assert report.copied == ["a", "in/b"] and not report.ignored and not report.untouched
    assert_same(values(net), values(other))
    other = net_of(tmp_path, SHARED, seed=2)
    other.load_hdf5(tmp_path / "w.caffemodel.h5")
    assert_same(values(net), values(other))
    net.save_hdf5(tmp_path / "w.caffemodel.h5")
    with h5py.File(tmp_path / "w.caffemodel.h5") as file:
        assert set(file) == {"data"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data/a/0": np.zeros((3, 3)), "data/a/1": np.zeros(4)}, r"layer 'a', parameter 1: shape \(4,\) in the file"),
        ({"data/a/1": np.zeros(3)}, r"layer 'a' has parameter blob\(s\) \[1\] in the file, 2 in the net"),
        ({"data/in/b/2": np.zeros(3)}, r"layer 'in/b' has parameter blob\(s\) \[2\]"),
        ({"data/a/x": np.zeros(3)}, "/data/a/x is no parameter"),
        ({"data/a/0": "text"}, "must hold numbers"),
        ({"weights/a/0": np.zeros(3)}, "has no 'data'"),
    ],
)
def test_hdf5_weights_that_do_not_fit_change_nothing(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    net = net_of(tmp_path, SHARED)
    before = values(net)
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        for name, array in content.items():
            file[name] = array
    with pytest.raises(WeightsError, match=f"^{path}: .*{message}"):
        net.copy_from(path)
    assert_same(before, values(net))


def test_hdf5_weights_of_other_layers_and_in_double(tmp_path: Path) -> None:
    net = net_of(tmp_path, SHARED)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["data/a/0"], file["data/a/1"] = np.full((3, 3), 1.5), np.full(3, 2.5)
        file["data/elsewhere/0"] = np.zeros(3)
    report = net.copy_from(tmp_path / "w.h5")
    assert (report.copied, report.ignored, report.untouched) == (["a"], ["elsewhere"], ["in/b"])
    assert (net.params["in/b"][0].data == 1.5).all(), "shared"


def test_hdf5_states_have_caffes_layout(tmp_path: Path) -> None:
    history = [np.arange(6, dtype="f4").reshape(2, 3), np.float32([7])]
    content = hdf5_weights.state_bytes(hdf5_weights.State(12, "a.caffemodel.h5", history, 3))
    path = tmp_path / "s.solverstate.h5"
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert set(file) == {"iter", "learned_net", "current_step", "history"} and set(file["history"]) == {"0", "1"}
        for name, value in (("iter", 12), ("current_step", 3)):
            assert (file[name].shape, file[name].dtype, file[name][0]) == ((1,), np.int32, value)
        kind = file["learned_net"].id.get_type()
        assert (kind.get_size(), kind.get_strpad(), kind.is_variable_str()) == (16, h5py.h5t.STR_NULLTERM, False)
    state = snapshot.read_state(path)
    assert (state.iter, state.learned_net, state.current_step) == (12, "a.caffemodel.h5", 3)
    for got, want in zip(state.history, history, strict=True):
        np.testing.assert_array_equal(got, want)


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


# ---- the resume file

LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**130), 2**130) | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from([np.arange(3), np.zeros((2, 0), "f4"), np.array(1.5), np.array(["a", "b"])])
)  # fmt: skip
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
KEYS = {"files": 1, "solver": 1, "random": 1, "train": 1, "test": 1}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(TREES)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_what_a_resume_file_keeps_comes_back(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "x.resume.npz"
    path.write_bytes(sidecar.encode({"tree": tree, **KEYS}))
    assert same(sidecar.read(path)["tree"], tree)
    assert path.read_bytes() == sidecar.encode({"tree": tree, **KEYS})


@given(st.data())
@settings(derandomize=True, deadline=None, max_examples=150)
def test_a_resume_file_with_a_changed_byte_is_refused_or_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    tree = {"a": [1, np.arange(40)], **KEYS}
    content = bytearray(sidecar.encode(tree))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed.resume.npz"
    path.write_bytes(content)
    try:
        assert same(sidecar.read(path)["a"], tree["a"])
    except WeightsError as error:
        assert str(error).startswith(f"{path}: ")


@pytest.mark.parametrize("bad", [object(), {1: 2}, np.array([object()]), {"__array__": 0}, b"bytes", {1, 2}])
def test_what_cannot_be_kept_is_named(bad: Any) -> None:
    with pytest.raises(SolverError, match=r"train\.own\[1\] holds .* which cannot be kept"):
        sidecar.encode({"train": {"own": [0, bad]}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged, or not a resume file"),
        (b"no zip", "damaged, or not a resume file"),
        (sidecar.encode({"files": 1}), "it has no solver, random, train, test; delete it to resume as Caffe does"),
        (sidecar.encode({**KEYS, "format": "x"}), "it says that it is 'x'"),
        (sidecar.encode({**KEYS, "version": 2}), "of version 2, this caffe_lite reads up to 1"),
    ],
)
def test_foreign_resume_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        sidecar.read(tmp_path / "x.npz")


def test_nothing_that_is_loaded_runs_code(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", content=np.array([object()], dtype=object))
    with pytest.raises(WeightsError, match="allow_pickle=False"):
        sidecar.read(tmp_path / "x.npz")


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
    kept = values(solver.net)
    Path("s_iter_1.caffemodel").write_bytes(b"something else")
    other = make()
    other.restore("moved/s_iter_1.solverstate")
    assert_same(kept, values(other.net))


def test_a_net_that_the_weights_are_too_few_for_is_refused(make: Callable[..., Solver]) -> None:
    """Caffe would leave the layer as its filler made it."""
    solver = make()
    _, state = solver.snapshot()
    os.unlink(sidecar.path_of(state))
    text = MLP.replace('name: "ip2"', 'name: "ip3"')
    Path("net.prototxt").write_text(text)
    with pytest.raises(WeightsError, match=r"s_iter_0\.caffemodel: holds no parameters of layer 'ip3'"):
        make().restore(state)


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_case(tmp_path, "tested"))

    def run(stop_at: int | None, resume: str | None = None) -> tuple[str, list[str]]:
        lines = Lines()
        logger = logging.getLogger("caffe_lite")
        logger.addHandler(lines)
        logger.setLevel(logging.INFO)
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
