"""Solver: Caffe's recorded trajectories, the order of an iteration, snapshots, and bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import caffe_lite as caffe
from caffe_lite import registry
from caffe_lite.device import Device
from caffe_lite.errors import WeightsError
from tests.small_net import MLP, feed
from tests.solver_maker import gradients, same, values

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
    solver = make('weight_decay: 0.01 regularization_type: "L1"', layers=text)
    w0, g = values(solver), gradients(solver)
    solver.step(1)
    w1 = values(solver)
    np.testing.assert_allclose(w1[0], w0[0] - 0.2 * (g[0] + 0.03 * np.sign(w0[0])), atol=1e-6)
    np.testing.assert_allclose(w1[1], w0[1] - 0.1 * g[1], atol=1e-6)


def test_large_parameters_are_updated_piece_by_piece_all_of_them(make, monkeypatch) -> None:
    whole = make("momentum: 0.5 weight_decay: 0.1")
    whole.step(2)
    monkeypatch.setattr("caffe_lite.update.PIECE", 7)
    pieces = make("momentum: 0.5 weight_decay: 0.1")
    pieces.step(2)
    for a, b in zip(values(whole), values(pieces), strict=True):
        np.testing.assert_array_equal(a, b)


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
    other = make(layers=MLP.replace("num_output: 5", "num_output: 7"))
    before = values(other)
    with pytest.raises(WeightsError, match="history blob 0 has shape"):
        other.restore(state)
    assert other.iter == 0
    for a, b in zip(before, values(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        ({"lr_policy": '"stepp"'}, "unknown learning-rate policy 'stepp'; did you mean 'step'"),
        ({"type": '"SDG"'}, "unknown solver type 'SDG'; did you mean 'SGD'"),
        ({"lr_policy": '"step"'}, "solver.prototxt: lr_policy 'step' needs stepsize > 0, got 0"),
        ({"lr_policy": '"exp"', "gamma": "-1"}, "lr_policy 'exp' needs gamma >= 0, got -1"),
        ({"lr_policy": '"sigmoid"', "gamma": "1"}, "lr_policy 'sigmoid' needs stepsize > 0, got 0"),
        ({"lr_policy": '"poly"'}, "lr_policy 'poly' needs max_iter > 0, got 0"),
        ({"type": '"AdaGrad"', "momentum": "0.9"}, "AdaGrad takes no momentum, got 0.9"),
        ({"type": '"RMSProp"', "momentum": "0.9"}, "RMSProp takes no momentum, got 0.9"),
        ({"type": '"RMSProp"', "rms_decay": "1"}, r"rms_decay must be in \[0, 1\), got 1"),
        (
            {"test_iter": "1", "test_interval": "1", "test_net": '"net.prototxt" test_net: "net.prototxt"'},
            "1 test_iter for 2 test net",
        ),
        ({"test_iter": "1", "test_interval": "1", "test_state": "{} test_state {}"}, "2 test_state for 1 test net"),
        ({"weights": '"no.caffemodel"'}, "no.caffemodel"),
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


def losses_of(solver, steps: int) -> list[float]:
    seen: list[float] = []
    solver.add_callback(lambda: feed(solver.net, seed=solver.iter), None)
    solver.listeners.append(lambda event, fields: event == "iteration" and seen.append(fields["loss"]))
    solver.step(steps)
    return seen


@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("steps", [2, 3, 4, 8])
def test_the_displayed_loss_is_the_mean_of_the_last_ones(make, steps: int, start: int) -> None:
    solver = make("average_loss: 3", base_lr="0.5")
    solver.iter = start
    losses = losses_of(solver, steps)
    assert len(set(losses)) == steps
    assert solver.smoothed_loss == pytest.approx(np.mean(losses[-3:]), rel=1e-9)
    solver.step(1)
    assert solver.smoothed_loss == losses[-1], "each step() begins a new mean"


def test_iter_size_makes_the_loss_and_the_gradient_means(make) -> None:
    solver, batches = make("iter_size: 3"), []
    forward = solver.net._forward

    def next_batch(start, end):
        feed(solver.net, seed=len(batches))
        batches.append(forward(start, end))
        return batches[-1]

    solver.net._forward = next_batch
    w0 = values(solver)
    solver.step(1)
    assert len(batches) == 3 and solver.smoothed_loss == pytest.approx(np.mean(batches))
    single, g = make(), []
    for seed in range(3):
        feed(single.net, seed=seed)
        g.append(gradients(single))
    for w, start, parts in zip(values(solver), w0, zip(*g, strict=True), strict=True):
        np.testing.assert_allclose(w, start - 0.1 * np.mean(parts, axis=0), atol=1e-6)


def test_callbacks_come_before_the_forward_and_before_the_update(make) -> None:
    solver, seen = make(), []
    blob = solver.net.params["ip1"][0]
    solver.add_callback(lambda: seen.append(("start", solver.iter, np.abs(blob.diff).sum())), None)
    solver.add_callback(None, lambda: seen.append(("ready", solver.iter, np.abs(blob.diff).sum())))
    solver.step(2)
    assert [(what, at) for what, at, _ in seen] == [("start", 0), ("ready", 0), ("start", 1), ("ready", 1)]
    assert [diff > 0 for _, _, diff in seen] == [False, True, False, True], "diffs are cleared first"


def test_random_seed_decides_the_start(make) -> None:
    a, b, c = make(random_seed="5"), make(random_seed="5"), make(random_seed="6")
    assert same(values(a), values(b)) and not same(values(a), values(c))


def test_share_weights_is_pycaffes(make, tmp_path: Path) -> None:
    solver = make()
    net = caffe.Net("net.prototxt", caffe.TEST)
    solver.share_weights(net)
    solver.step(1)
    for name in ("ip1", "ip2"):
        np.testing.assert_array_equal(net.params[name][0].data, solver.net.params[name][0].data)


def test_the_last_snapshot_is_written_once(make) -> None:
    written: list[int] = []
    for snapshot in (0, 2, 3):
        solver = make(f'snapshot: {snapshot} snapshot_prefix: "s" max_iter: 4')
        solver.listeners.append(lambda event, fields: event == "snapshot" and written.append(fields["iter"]))
        solver.solve()
    assert written == [4, 2, 4, 3, 4]


def test_snapshot_names_begin_with_the_prefix_a_folder_or_the_solvers_name(make) -> None:
    Path("folder").mkdir()
    assert make('snapshot_prefix: "folder/x"').snapshot_prefix == "folder/x"
    assert make('snapshot_prefix: "folder"').snapshot_prefix == "folder/solver"
    assert make().snapshot_prefix == "solver"


def test_what_pycaffe_lets_one_set_in_param_has_effect(make) -> None:
    solver = make("display: 100 max_iter: 100 snapshot_after_train: false")
    solver.param.base_lr, solver.param.max_iter, solver.param.display = 0.5, 2, 1
    solver.param.layer_wise_reduce = False
    shown: list[float] = []
    solver.listeners.append(lambda event, fields: event == "train" and shown.append(fields["lr"]))
    solver.solve()
    assert solver.iter == 2 and shown == [0.5, 0.5]


def test_each_solver_class_is_built_from_a_file_whatever_its_type_says(make) -> None:
    make(type='"Nesterov"')
    for kind in ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"):
        solver = registry.solvers.get(kind)("solver.prototxt")
        assert type(solver).__name__ == f"{kind}Solver" and solver.net.name == "mlp"
    assert type(caffe.get_solver("solver.prototxt")).__name__ == "NesterovSolver"
