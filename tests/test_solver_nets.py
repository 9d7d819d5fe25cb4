"""A solver's nets: where train and test nets come from, their states and weights, and when test nets run."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import caffe_lite as caffe
from tests.small_net import MLP, feed

STAGED = MLP.replace(
    'name: "accuracy"', 'name: "extra" type: "Silence" bottom: "data" include { phase: TEST stage: "more" min_level: 2 } }\n'
    'layer { name: "accuracy"'
)  # fmt: skip


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


def layers(solver) -> list[bool]:
    return ["extra" in net.layer_dict for net in (solver.net, *solver.test_nets)]


def test_states_by_rising_precedence(make) -> None:
    two = "test_iter: 1 test_iter: 1 test_interval: 1"
    states = f'{two} test_state {{ stage: "more" level: 2 }} test_state {{ stage: "more" }}'
    assert layers(make(states, layers=STAGED)) == [False, True, False]
    own = "state { level: 2 }\n" + STAGED
    assert layers(make(states, layers=own)) == [False, True, True], "the net's own level, where the solver gives none"
    assert layers(make(two, layers=own)) == [False, False, False]
    as_test = 'train_state { phase: TEST stage: "more" level: 3 }'
    assert layers(make(as_test, layers=STAGED)) == [True], "train_state beats the solver's default"


def test_test_nets_in_their_order(make) -> None:
    def named(name: str) -> str:
        return MLP.replace('name: "mlp"', f'name: "{name}"')

    Path("file.prototxt").write_text(named("file"))
    inner = named("inner").replace("\n", " ")
    fields = f'test_net: "file.prototxt" test_net_param {{ {inner} }} test_interval: 1'
    solver = make(f"{fields} test_iter: 1 test_iter: 1 test_iter: 1 test_iter: 1", layers=named("shared"))
    assert [net.name for net in solver.test_nets] == ["inner", "file", "shared", "shared"]


@pytest.mark.parametrize("field", ["train_net", "net", "train_net_param", "net_param"])
def test_the_train_net_in_all_ways(make, field: str, caplog) -> None:
    Path("mlp.prototxt").write_text(MLP)
    is_file = field in ("net", "train_net")
    given = f'{field}: "mlp.prototxt"' if is_file else f"{field} {{ {MLP} }}"
    Path("solver.prototxt").write_text(f'base_lr: 0.1 lr_policy: "fixed" {given}')
    with caplog.at_level(logging.INFO, "caffe_lite"):
        solver = caffe.get_solver("solver.prototxt")
    assert solver.net.name == "mlp" and solver.net.phase == caffe.TRAIN
    source = f"from {field} file: mlp.prototxt" if is_file else f"specified in {field}."
    assert f"Creating training net {source}" in caplog.messages


def test_weights_go_into_all_nets_in_their_order(make) -> None:
    make(random_seed="1").net.save("one.caffemodel")
    ip2 = MLP.replace('"ip1"', '"other"')
    last = make(layers=ip2, random_seed="2")
    last.net.save("two.caffemodel")
    solver = make('weights: "one.caffemodel, two.caffemodel" test_iter: 1 test_interval: 1')
    for net in (solver.net, *solver.test_nets):
        np.testing.assert_array_equal(net.params["ip1"][0].data, make(random_seed="1").net.params["ip1"][0].data)
        np.testing.assert_array_equal(net.params["ip2"][0].data, last.net.params["ip2"][0].data)


def test_the_mean_is_over_test_iter_batches_and_the_loss_on_request(make, caplog) -> None:
    solver = make("test_iter: 3 test_interval: 1 test_compute_loss: true")
    (net,) = solver.test_nets
    forward, batches = net.forward, []

    def next_batch():
        feed(net, seed=len(batches))
        outputs = forward()
        batches.append({name: float(value) for name, value in outputs.items()})
        return outputs

    net.forward = next_batch
    with caplog.at_level(logging.INFO, "caffe_lite"):
        means = solver.test(0, net)
    for name in ("accuracy", "loss"):
        assert means[name] == pytest.approx(np.mean([b[name] for b in batches]), rel=1e-6)
    assert len(batches) == 3 and f"Test loss: {means['loss']:.6g}" in caplog.messages


@pytest.mark.parametrize(("initialization", "tested"), [("true", [0, 2, 4]), ("false", [2, 4])])
def test_when_tests_run(make, initialization: str, tested: list[int]) -> None:
    fields = "test_iter: 1 test_interval: 2 max_iter: 4 snapshot_after_train: false"
    solver = make(f"{fields} test_initialization: {initialization}")
    seen: list[int] = []
    solver.listeners.append(lambda event, fields: event == "test" and seen.append(fields["iter"]))
    solver.solve()
    assert seen == tested and not list(Path().glob("*.caffemodel"))
