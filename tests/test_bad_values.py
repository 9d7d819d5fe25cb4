"""NaN and infinity during training: what is named, what stops, what is skipped."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe_lite as caffe
from caffe_lite.device import Device
from caffe_lite.errors import SolverError
from caffe_lite.solver import Solver
from tests.small_net import feed
from tests.solver_maker import BATCH_NORM, history, make_solver, same, values

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def spoil_data(solver: Solver, value: float = np.nan) -> None:
    solver.net.blobs["data"].data[1, 2] = value


def spoil_gradient(solver: Solver, layer: str = "ip1", value: float = np.nan) -> None:
    """Let every backward of ``layer`` make a bad diff, after a forward that is fine."""
    broken = solver.net.layer_dict[layer]
    backward = broken.backward

    def bad_backward(top, propagate_down, bottom):
        backward(top, propagate_down, bottom)
        broken.blobs[0].diff[0, 0] = value

    broken.backward = bad_backward


@pytest.mark.parametrize(("value", "loss"), [(np.nan, "nan"), (-np.inf, "nan|inf")])
def test_a_bad_input_is_named_and_nothing_changes(value: float, loss: str) -> None:
    solver = make_solver("momentum: 0.9 weight_decay: 0.1", layers=BATCH_NORM)
    solver.step(1)
    before, slots = values(solver), history(solver)
    spoil_data(solver, value)
    message = rf"iteration 1: the loss is ({loss}); first seen in layer 'data' \(Input\), top 'data'"
    with pytest.raises(SolverError, match=message):
        solver.step(1)
    assert solver.iter == 1 and same(values(solver), before) and same(history(solver), slots)


def test_a_bad_parameter_is_named_before_the_top_that_it_spoils() -> None:
    solver = make_solver()
    solver.net.params["ip2"][1].data[0] = np.nan
    with pytest.raises(SolverError, match=r"first seen in layer 'ip2' \(InnerProduct\), parameter 1;"):
        solver.step(1)


def test_images_are_named_where_the_data_layer_knows_them() -> None:
    solver = make_solver()
    solver.net.layers[0].minibatch_images = ["a.jpg", "b.jpg"]
    spoil_data(solver)
    with pytest.raises(SolverError, match="images of the minibatch: a.jpg, b.jpg; try a smaller base_lr .now 0.1"):
        solver.step(1)


def test_layers_that_read_ahead_know_the_images_of_the_batch_in_their_tops(tmp_path: Path) -> None:
    for i in range(5):
        cv2.imwrite(f"{i}.png", np.full((3, 3, 3), 50 * i, np.uint8))
    Path("list.txt").write_text("".join(f"{i}.png {i % 3}\n" for i in range(5)))
    layers = """
    layer { name: "data" type: "ImageData" top: "data" top: "label"
            image_data_param { source: "list.txt" batch_size: 2 } transform_param { scale: 1e38 } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
            inner_product_param { num_output: 3 weight_filler { type: "constant" value: 1 } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
    """
    Path("net.prototxt").write_text(layers)
    Path("solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed"')
    solver = caffe.get_solver("solver.prototxt")
    solver.on_nan = "skip"
    with pytest.raises(SolverError, match="images of the minibatch: 2.png, 3.png; try"):
        solver.step(1)
        solver.on_nan = "stop"
        solver.step(1)


def test_of_many_images_the_first_are_named() -> None:
    solver = make_solver()
    solver.net.layers[0].minibatch_images = [f"{i}.jpg" for i in range(20)]
    spoil_data(solver)
    with pytest.raises(SolverError, match=r"minibatch: 0.jpg, .*, 15.jpg and 4 more;"):
        solver.step(1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bad_gradient_is_named_and_nothing_changes(value: float) -> None:
    solver = make_solver("momentum: 0.9")
    solver.step(1)
    before, slots = values(solver), history(solver)
    spoil_gradient(solver, value=value)
    wanted = r"iteration 1: a gradient is NaN or infinite; first seen in layer 'ip1' .*, diff of parameter 0;"
    with pytest.raises(SolverError, match=wanted):
        solver.step(1)
    assert solver.iter == 1 and same(values(solver), before) and same(history(solver), slots)


def test_the_first_bad_gradient_is_that_of_the_last_layer_that_has_one() -> None:
    solver = make_solver()
    loss = solver.net.layer_dict["loss"]
    backward = loss.backward

    def bad_backward(top, propagate_down, bottom):
        backward(top, propagate_down, bottom)
        bottom[0].diff[0, 0] = np.nan

    loss.backward = bad_backward
    with pytest.raises(SolverError, match=r"layer 'loss' \(SoftmaxWithLoss\), diff of bottom 'ip2'"):
        solver.step(1)


@pytest.mark.parametrize("spoil", [spoil_data, spoil_gradient])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_skip_leaves_every_bit_and_counts(spoil, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    solver = make_solver("momentum: 0.9 weight_decay: 0.1 iter_size: 2", layers=BATCH_NORM, type=f'"{kind}"')
    solver.on_nan = "skip"
    solver.step(2)
    before, slots = values(solver), history(solver)
    spoil(solver)
    with caplog.at_level(logging.WARNING, "caffe_lite"):
        solver.step(3)
    assert solver.iter == 5
    assert same(values(solver), before), "parameters, BatchNorm's statistics among them"
    assert same(history(solver), slots)
    assert [m.split(":")[0] for m in caplog.messages] == ["Iteration 2", "Iteration 3", "Iteration 4"]
    assert all(m.endswith("; the update is skipped") for m in caplog.messages)


def test_after_a_skip_training_goes_on_as_if_it_had_not_been() -> None:
    straight, skipping = (
        make_solver("momentum: 0.9", layers=BATCH_NORM),
        make_solver("momentum: 0.9", layers=BATCH_NORM),
    )
    skipping.on_nan = "skip"
    straight.step(3)
    skipping.step(2)
    spoil_data(skipping)
    skipping.step(1)
    feed(skipping.net)
    skipping.step(1)
    assert (
        skipping.iter == 4 and same(values(skipping), values(straight)) and same(history(skipping), history(straight))
    )


def test_a_skipped_loss_is_not_smoothed() -> None:
    solver = make_solver("average_loss: 3", base_lr="1e-9")
    solver.on_nan = "skip"

    def spoil_the_third() -> None:
        feed(solver.net, seed=solver.iter)
        if solver.iter == 2:
            spoil_data(solver)

    solver.add_callback(spoil_the_third, None)
    losses: list[float] = []
    solver.listeners.append(lambda event, fields: losses.append(fields["loss"]))
    solver.step(6)
    assert np.isnan(losses[2])
    assert solver.smoothed_loss == pytest.approx(np.mean([losses[i] for i in (3, 4, 5)]), rel=1e-6)
    alone = make_solver()
    alone.on_nan = "skip"
    spoil_data(alone)
    alone.step(1)
    assert np.isnan(alone.smoothed_loss), "there is nothing else to show"


def test_a_recurrent_state_that_went_bad_is_forgotten() -> None:
    lstm = """
    layer { name: "data" type: "Input" top: "data" top: "cont" top: "label"
            input_param { shape { dim: 2 dim: 3 dim: 4 } shape { dim: 2 dim: 3 } shape { dim: 2 dim: 3 } } }
    layer { name: "rnn" type: "LSTM" bottom: "data" bottom: "cont" top: "h"
            recurrent_param { num_output: 3 weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "h" bottom: "label" top: "loss" softmax_param { axis: 2 } }
    """
    solver = make_solver(layers=lstm)
    solver.net.blobs["cont"].data[...] = 1  # the sequence goes on from batch to batch
    solver.on_nan = "skip"
    solver.net.blobs["data"].data[...] = np.nan
    solver.step(1)
    feed(solver.net)
    before = values(solver)
    solver.step(1)
    assert not same(values(solver), before) and np.isfinite(solver.smoothed_loss)


def test_another_word_for_on_nan_is_refused() -> None:
    with pytest.raises(SolverError, match="on_nan must be 'stop' or 'skip', got 'ignore'"):
        make_solver().on_nan = "ignore"
