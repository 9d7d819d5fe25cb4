"""Every solver type against its formula in float64, with clipping, iter_size, decay and multipliers in play."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe_lite.device import Device
from caffe_lite.solver import Solver
from tests.small_net import MLP
from tests.solver_maker import gradients, make_solver, values

M, M2, D, EPS, CLIP = 0.9, 0.99, 0.8, 0.01, 0.5


def sgd(g, rate, t, h, _):
    h = M * h + rate * g
    return h, h, None


def nesterov(g, rate, t, h, _):
    new = M * h + rate * g
    return (1 + M) * new - M * h, new, None


def ada_grad(g, rate, t, h, _):
    h = h + g**2
    return rate * g / (np.sqrt(h) + EPS), h, None


def rms_prop(g, rate, t, h, _):
    h = D * h + (1 - D) * g**2
    return rate * g / (np.sqrt(h) + EPS), h, None


def ada_delta(g, rate, t, h, s):
    h = M * h + (1 - M) * g**2
    u = g * np.sqrt((s + EPS) / (h + EPS))
    return rate * u, h, M * s + (1 - M) * u**2


def adam(g, rate, t, m, v):
    m, v = M * m + (1 - M) * g, M2 * v + (1 - M2) * g**2
    return rate * np.sqrt(1 - M2**t) / (1 - M**t) * m / (np.sqrt(v) + EPS), m, v


RULES = {
    "SGD": (sgd, f"momentum: {M}"),
    "Nesterov": (nesterov, f"momentum: {M}"),
    "AdaGrad": (ada_grad, f"delta: {EPS}"),
    "RMSProp": (rms_prop, f"rms_decay: {D} delta: {EPS}"),
    "AdaDelta": (ada_delta, f"momentum: {M} delta: {EPS}"),
    "Adam": (adam, f"momentum: {M} momentum2: {M2} delta: {EPS}"),
}
COMMON = f"clip_gradients: {CLIP} iter_size: 2 weight_decay: 0.02"
MULTIPLIERS = MLP.replace(
    'name: "ip1" type', 'name: "ip1" param { lr_mult: 2 decay_mult: 3 } param { decay_mult: 0 } type'
).replace('name: "ip2" type', 'name: "ip2" param { lr_mult: 0 } type')


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def norm_of_two(g):
    """L2 norm of the sum of two equal gradients."""
    return np.sqrt(sum(((2 * x.astype(np.float64)) ** 2).sum() for x in g))


def step_by_formula(rule, w, g, slots, t):
    """(new parameters, changes): clip the sum over iter_size, divide by iter_size, decay, rule."""
    scale = min(1.0, CLIP / norm_of_two(g))
    lr_mult, decay_mult = (2, 1, 0, 1), (3, 0, 1, 1)
    new, changes = [], []
    for i, (weight, gradient) in enumerate(zip(w, g, strict=True)):
        full = 2 * gradient.astype(np.float64) * scale / 2 + 0.02 * decay_mult[i] * weight
        change, *slots[i] = rule(full, 0.1 * lr_mult[i], t, *slots[i])
        new.append(weight - change)
        changes.append(change)
    return new, changes


@pytest.mark.parametrize("kind", RULES)
def test_five_steps_by_the_formula(kind: str) -> None:
    rule, fields = RULES[kind]
    solver = make_solver(f"{fields} {COMMON}", layers=MULTIPLIERS, type=f'"{kind}"')
    slots = [[np.zeros(w.shape), np.zeros(w.shape)] for w in values(solver)]
    clipped = False
    for t in range(1, 6):
        before, g = values(solver), gradients(solver)
        clipped |= bool(norm_of_two(g) > CLIP)
        expected, changes = step_by_formula(rule, before, g, slots, t)
        solver.step(1)
        for i, blob in enumerate(b for blobs in solver.net.params.values() for b in blobs):
            np.testing.assert_allclose(blob.data, expected[i], rtol=0, atol=2e-6, err_msg=f"step {t}, parameter {i}")
            np.testing.assert_allclose(blob.diff, changes[i], rtol=0, atol=2e-6, err_msg=f"step {t}, diff {i}")
    assert clipped
    np.testing.assert_array_equal(values(solver)[2], before[2])  # lr_mult 0: decay or not, it stays


def test_apply_update_alone_takes_the_diffs_as_they_are_and_counts(device: Device) -> None:
    solver = make_solver()
    layer = solver.net.params["ip1"]
    layer[0].data[...], layer[0].diff[...] = 0, 1
    solver.apply_update()
    np.testing.assert_allclose(layer[0].data, -solver.lr, rtol=1e-6)
    assert solver.iter == 1


def test_an_infinite_rate_is_an_error_not_a_parameter() -> None:
    solver = make_solver("gamma: 10", lr_policy='"exp"')
    solver.iter = 400
    with pytest.raises(RuntimeError, match="iteration 400: lr_policy 'exp' gives an infinite rate .gamma 10"):
        solver.lr  # noqa: B018


def test_gradients_whose_squares_overflow_float32_are_clipped_not_refused() -> None:
    solver: Solver = make_solver("clip_gradients: 1")
    solver.net.clear_param_diffs()
    blob = solver.net.params["ip1"][0]
    before = np.array(blob.data)
    blob.diff[...] = 1e25
    solver.apply_update()
    np.testing.assert_allclose(before - np.array(blob.data), 0.1 / np.sqrt(blob.count), rtol=1e-4)
