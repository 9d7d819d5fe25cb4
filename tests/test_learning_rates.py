"""Learning-rate policies: Caffe's formulas, and what an iteration takes of them."""

from __future__ import annotations

import pytest

from caffe_lite import registry
from caffe_lite.proto import caffe_pb2


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


def test_two_stepvalues_at_once_take_two_iterations_displayed_or_not(make) -> None:
    solver = make("gamma: 0.5 stepvalue: 1 stepvalue: 1 display: 1", lr_policy='"multistep"')
    rates = []
    solver.listeners.append(lambda event, fields: event == "train" and rates.append(fields["lr"]))
    solver.step(3)
    assert rates == pytest.approx([0.1, 0.05, 0.025])


def test_poly_beyond_max_iter_stays_at_zero(make) -> None:
    solver = make("power: 0.5 max_iter: 2", lr_policy='"poly"')
    solver.iter = 5
    assert solver.learning_rate() == 0
