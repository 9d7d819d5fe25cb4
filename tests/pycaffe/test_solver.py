"""Solvers as pycaffe's users drive them."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

import caffe_lite as caffe

NET = """
layer { name: "data" type: "DummyData" top: "x" top: "y"
        dummy_data_param { shape { dim: 8 dim: 4 } shape { dim: 8 } data_filler { type: "gaussian" } data_filler {} } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "scores" param { lr_mult: 1 } param { lr_mult: 2 }
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "y" top: "loss" }
"""
CLASSES = {
    "SGD": caffe.SGDSolver,
    "Nesterov": caffe.NesterovSolver,
    "AdaGrad": caffe.AdaGradSolver,
    "RMSProp": caffe.RMSPropSolver,
    "AdaDelta": caffe.AdaDeltaSolver,
    "Adam": caffe.AdamSolver,
}
# The weight after one update from 0 by a gradient of 1, base_lr 0.01, from the papers' formulas.
FIRST_STEP = {
    "SGD": -0.01,
    "Nesterov": -0.01 * 1.9,
    "AdaGrad": -0.01,
    "RMSProp": -0.01 / np.sqrt(0.01),
    "AdaDelta": -0.01 * np.sqrt(1e-8 / (0.1 + 1e-8)),
    "Adam": -0.01,
}


@pytest.fixture
def solver_file(tmp_path: Path):
    (tmp_path / "net.prototxt").write_text(NET)

    def make(more: str = "") -> str:
        path = tmp_path / "solver.prototxt"
        momentum = "" if "AdaGrad" in more or "RMSProp" in more else "momentum: 0.9"
        path.write_text(f"""net: "{tmp_path}/net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 12 {momentum}
            test_iter: 2 test_interval: 5 snapshot_after_train: false snapshot_prefix: "{tmp_path}/model" {more}""")
        return str(path)

    return make


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_makes_one_update_of_its_rule(solver_file, name: str) -> None:
    solver = CLASSES[name](solver_file(f'type: "{name}"'))
    data = solver.net.params["ip"][0].data[...]
    data[...] = 0
    solver.net.params["ip"][0].diff[...] = 1
    solver.net.params["ip"][1].diff[...] = 0
    solver.apply_update()
    np.testing.assert_allclose(data, FIRST_STEP[name], rtol=1e-3)
    assert isinstance(caffe.get_solver(solver_file(f'type: "{name}"')), CLASSES[name])


def test_a_class_does_not_ask_for_the_prototxts_type(solver_file) -> None:
    assert type(caffe.NesterovSolver(solver_file('type: "SGD"'))) is caffe.NesterovSolver


def test_attributes(solver_file) -> None:
    solver = caffe.SGDSolver(solver_file())
    assert solver.iter == 0 and solver.lr == pytest.approx(0.01)
    assert list(solver.net.blobs) == ["x", "y", "scores", "loss"] and len(solver.test_nets) == 1
    assert solver.param.max_iter == 12 and solver.param.base_lr == pytest.approx(0.01)
    solver.param.base_lr = 0.5
    solver.param.max_iter = 3
    assert solver.lr == 0.5
    solver.solve()
    assert solver.iter == 3


def test_step_solve_and_callbacks(solver_file) -> None:
    solver = caffe.SGDSolver(solver_file())
    seen: list[tuple[str, int]] = []
    solver.add_callback(lambda: seen.append(("start", solver.iter)), lambda: seen.append(("ready", solver.iter)))
    solver.step(2)
    assert solver.iter == 2 and seen == [("start", 0), ("ready", 0), ("start", 1), ("ready", 1)]
    solver.solve()
    assert solver.iter == 12 and len(seen) == 24


def test_snapshot_and_restore(solver_file, tmp_path: Path) -> None:
    solver = caffe.SGDSolver(solver_file())
    solver.step(3)
    solver.snapshot()
    assert (tmp_path / "model_iter_3.caffemodel").is_file() and (tmp_path / "model_iter_3.solverstate").is_file()
    other = caffe.get_solver(solver_file())
    other.restore(str(tmp_path / "model_iter_3.solverstate"))
    assert other.iter == 3
    np.testing.assert_array_equal(other.net.params["ip"][0].data, solver.net.params["ip"][0].data)
    resumed = caffe.get_solver(solver_file())
    resumed.solve(str(tmp_path / "model_iter_3.solverstate"))
    assert resumed.iter == 12
    with pytest.raises(RuntimeError, match="missing"):
        solver.restore("missing.solverstate")
    with pytest.raises(RuntimeError, match="missing"):
        caffe.get_solver("missing.prototxt")


def test_share_weights(solver_file, tmp_path: Path) -> None:
    solver = caffe.SGDSolver(solver_file())
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    solver.share_weights(net)
    solver.step(1)
    np.testing.assert_array_equal(net.params["ip"][0].data, solver.net.params["ip"][0].data)
    assert np.shares_memory(net.params["ip"][0].data, solver.net.params["ip"][0].data)


def test_nets_outlive_their_solver(solver_file) -> None:
    solver = caffe.SGDSolver(solver_file())
    nets = [solver.net, *solver.test_nets]
    del solver
    gc.collect()
    for net in nets:
        assert np.isfinite(net.forward()["loss"])
