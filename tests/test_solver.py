"""Solver: Caffe's recorded trajectories, the order of an iteration, snapshots, and bad input."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

import caffe_lite as caffe
from caffe_lite import registry
from caffe_lite.device import Device
from caffe_lite.errors import SolverError, WeightsError
from caffe_lite.proto import caffe_pb2
from caffe_lite.solver import Solver
from tests.test_net import MLP, feed

GOLDEN = Path(__file__).parent / "golden" / "solvers"


@pytest.mark.parametrize("resume", [False, True], ids=["from-start", "resumed-from-caffes-state"])
@pytest.mark.parametrize("case", sorted(p.name for p in GOLDEN.iterdir()))
def test_trajectory_is_caffes(case: str, resume: bool, device: Device, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / case
    shutil.copytree(GOLDEN / case, folder)
    monkeypatch.chdir(folder)
    recorded = np.load("trajectory.npz")
    solver = caffe.get_solver("solver.prototxt")
    parameters = [(f"{name}:{i}", b) for name, blobs in solver.net.params.items() for i, b in enumerate(blobs)]
    if resume:
        solver.restore("ref_iter_8.solverstate")
    else:
        for key, blob in parameters:
            blob.data[...] = recorded[f"init:{key}"]
    for t in range(solver.iter, 16):
        solver.net.blobs["data"].data[...] = recorded["data"][t]
        solver.net.blobs["label"].data[...] = recorded["label"][t]
        solver.step(1)
        assert abs(solver.smoothed_loss - recorded["loss"][t]) <= 2e-5 * max(1, recorded["loss"][t])
        for key, blob in parameters:
            wanted = recorded[f"iter{t + 1}:{key}"]
            assert np.abs(blob.data - wanted).max() <= 2e-5 * max(1, np.abs(wanted).max()), f"{key} after step {t + 1}"


@pytest.fixture
def make(tmp_path: Path, device: Device, monkeypatch):
    """A solver of the MLP, in a folder of its own, on each device."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(MLP)

    def solver(text: str = "", **replace: str) -> Solver:
        defaults = {"net": '"net.prototxt"', "base_lr": "0.1", "lr_policy": '"fixed"', "random_seed": "3"}
        fields = "\n".join(f"{name}: {value}" for name, value in {**defaults, **replace}.items() if value)
        Path("solver.prototxt").write_text(f"{fields}\n{text}")
        made = caffe.get_solver("solver.prototxt")
        feed(made.net)
        return made

    return solver


def gradients(solver: Solver) -> list[np.ndarray]:
    """What one forward-backward puts into the parameters' diffs, on the host."""
    solver.net.clear_param_diffs()
    solver.net.forward()
    solver.net.backward()
    return [np.array(b.diff) for blobs in solver.net.params.values() for b in blobs]


def values(solver: Solver) -> list[np.ndarray]:
    return [np.array(b.data) for blobs in solver.net.params.values() for b in blobs]


def test_sgd_step_by_its_definition(make) -> None:
    solver = make("momentum: 0.9 weight_decay: 0.01")
    w0, g0 = values(solver), gradients(solver)
    solver.step(1)
    h1 = [0.1 * (g + 0.01 * w) for g, w in zip(g0, w0, strict=True)]
    w1 = values(solver)
    for w, start, h in zip(w1, w0, h1, strict=True):
        np.testing.assert_allclose(w, start - h, atol=1e-6)
    g1 = gradients(solver)
    solver.step(1)
    for w, start, h, g in zip(values(solver), w1, h1, g1, strict=True):
        np.testing.assert_allclose(w, start - (0.9 * h + 0.1 * (g + 0.01 * start)), atol=1e-6)


def test_clipping_comes_before_the_mean_over_iter_size_and_before_decay(make) -> None:
    solver = make("clip_gradients: 0.01 iter_size: 4 weight_decay: 0.5")
    w0, g = values(solver), gradients(solver)
    norm = 4 * np.sqrt(sum((x**2).sum() for x in g))
    assert norm > 0.01
    solver.step(1)
    for w, start, x in zip(values(solver), w0, g, strict=True):
        np.testing.assert_allclose(w, start - 0.1 * (4 * x * (0.01 / norm) / 4 + 0.5 * start), atol=1e-6)


def test_l1_decay_and_multipliers(make) -> None:
    text = MLP.replace(
        'name: "ip1" type', 'name: "ip1" param { lr_mult: 2 decay_mult: 3 } param { decay_mult: 0 } type'
    )
    Path("net.prototxt").write_text(text)
    solver = make('weight_decay: 0.01 regularization_type: "L1"')
    w0, g = values(solver), gradients(solver)
    solver.step(1)
    w1 = values(solver)
    np.testing.assert_allclose(w1[0], w0[0] - 0.2 * (g[0] + 0.03 * np.sign(w0[0])), atol=1e-6)
    np.testing.assert_allclose(w1[1], w0[1] - 0.1 * g[1], atol=1e-6)


def test_large_parameters_are_updated_piece_by_piece_all_of_them(make, monkeypatch) -> None:
    whole = make("momentum: 0.5 weight_decay: 0.1")
    whole.step(2)
    monkeypatch.setattr("caffe_lite.solver.PIECE", 7)
    pieces = make("momentum: 0.5 weight_decay: 0.1")
    pieces.step(2)
    for a, b in zip(values(whole), values(pieces), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ({"lr_policy": "fixed"}, {0: 2, 100: 2}),
        ({"lr_policy": "step", "gamma": 0.5, "stepsize": 10}, {0: 2, 9: 2, 10: 1, 29: 0.5, 30: 0.25}),
        ({"lr_policy": "exp", "gamma": 0.5}, {0: 2, 1: 1, 3: 0.25}),
        ({"lr_policy": "inv", "gamma": 1, "power": 2}, {0: 2, 1: 0.5, 3: 0.125}),
        ({"lr_policy": "poly", "power": 2, "max_iter": 4}, {0: 2, 2: 0.5, 4: 0}),
        ({"lr_policy": "sigmoid", "gamma": 1, "stepsize": 5}, {5: 1, 1005: 2}),
    ],
)
def test_policies(fields: dict, rates: dict[int, float]) -> None:
    param = caffe_pb2.SolverParameter(base_lr=2, **fields)
    policy = registry.policies.get(param.lr_policy)
    for it, rate in rates.items():
        assert policy(param, it, 0) == pytest.approx(rate)


def test_multistep_passes_one_value_at_a_time(make) -> None:
    solver = make("gamma: 0.5 stepvalue: 1 stepvalue: 2", lr_policy='"multistep"')
    rates = []
    for _ in range(4):
        rates.append(solver.learning_rate())
        solver.iter += 1
    assert rates == pytest.approx([0.1, 0.05, 0.025, 0.025])


def test_snapshot_resumes_to_the_same_bits(make) -> None:
    options = 'momentum: 0.9 snapshot_prefix: "snap"'
    straight = make(options)
    straight.step(6)
    first = make(options)
    first.step(3)
    model, state = first.snapshot()
    assert (model, state) == ("snap_iter_3.caffemodel", "snap_iter_3.solverstate")
    second = make(options)
    second.restore(state)
    assert second.iter == 3
    second.step(3)
    for a, b in zip(values(straight), values(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_moved_pair_of_snapshot_files_still_resumes(make) -> None:
    solver = make('snapshot_prefix: "snap"')
    solver.step(1)
    for path in solver.snapshot():
        Path("moved").mkdir(exist_ok=True)
        shutil.move(path, "moved")
    make().restore("moved/snap_iter_1.solverstate")


def test_a_state_of_another_net_is_refused_and_nothing_changes(make) -> None:
    solver = make('snapshot_prefix: "snap"')
    solver.step(1)
    _, state = solver.snapshot()
    Path("net.prototxt").write_text(MLP.replace("num_output: 5", "num_output: 7"))
    other = make()
    before = values(other)
    with pytest.raises(WeightsError, match="history blob 0 has shape"):
        other.restore(state)
    assert other.iter == 0
    for a, b in zip(before, values(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_test_nets_report_the_mean_with_the_trained_weights(make, caplog) -> None:
    with caplog.at_level(logging.INFO, "caffe_lite"):
        solver = make("test_iter: 2 test_interval: 2 display: 1 max_iter: 2 snapshot_after_train: false")
        solver.solve()
    (test_net,) = solver.test_nets
    np.testing.assert_array_equal(test_net.params["ip1"][0].data, solver.net.params["ip1"][0].data)
    assert "Iteration 0, Testing net (#0)" in caplog.messages and "Iteration 2, Testing net (#0)" in caplog.messages
    assert any(m.startswith("    Test net output #0: accuracy = ") for m in caplog.messages)
    loss = next(m for m in caplog.messages if m.startswith("    Train net output #0: loss = "))
    assert loss.endswith(" loss)") and "(* 1 = " in loss
    assert "Iteration 1, lr = 0.1" in caplog.messages


def test_a_nan_stops_the_solver_and_names_its_first_layer(make) -> None:
    solver = make()
    solver.step(1)
    solver.net.params["ip2"][0].data[0, 0] = np.nan
    kept = np.array(solver.net.params["ip1"][0].data)
    with pytest.raises(SolverError, match=r"iteration 1: the loss is nan; first seen in layer 'ip2' .*parameter 0"):
        solver.step(1)
    np.testing.assert_array_equal(solver.net.params["ip1"][0].data, kept)


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        ({"lr_policy": '"stepp"'}, "unknown learning-rate policy 'stepp'; did you mean 'step'"),
        ({"type": '"SDG"'}, "unknown solver type 'SDG'; did you mean 'SGD'"),
        ({"iter_size": "0"}, "iter_size must be >= 1, got 0"),
        ({"average_loss": "0"}, "average_loss must be >= 1, got 0"),
        ({"regularization_type": '"L3"'}, "must be 'L1' or 'L2', got 'L3'"),
        ({"net": "", "base_lr": "1"}, "exactly one of net, .* got none"),
        ({"train_net": '"net.prototxt"'}, "exactly one of .* got train_net, net"),
        ({"test_iter": "1"}, "test nets need test_interval > 0"),
        ({"snapshot": "5", "snapshot_prefix": '"no/such/folder/x"'}, "cannot write snapshots to 'no/such/folder'"),
    ],
)
def test_bad_solvers_are_refused_at_once(make, replace: dict[str, str], message: str) -> None:
    with pytest.raises(caffe.CaffeError, match=message):
        make(**replace)
