"""The layers that apply one function without parameter blobs to every element (PReLU: test_prelu.py)."""

from __future__ import annotations

import warnings

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import caffe_lite
from caffe_lite import gradient_check, neuron
from caffe_lite.errors import NetError
from tests.layers.layer_case import LayerCase

ODD_VALUES = "zeros, infinities, nan"


class NeuronCase(LayerCase):
    no_gradient = (ODD_VALUES,)
    low, high = -3.0, 3.0  # where test_any_shape draws x from

    def bottoms(self, rng):
        return {
            "random": [rng.normal(size=(2, 3, 4, 5))],
            "large": [rng.uniform(-60, 60, size=(3, 40))],
            "no elements": [np.zeros((0, 3))],
            "no axes": [np.array(-0.7)],
            ODD_VALUES: [np.array([0.0, -0.0, np.inf, -np.inf, np.nan])],
        }

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(shape=st.lists(st.integers(0, 4), max_size=5), seed=st.integers(0, 2**32 - 1), data=st.data())
    def test_any_shape(self, device, shape, seed, data):
        """Forward equals the definition, and backward its derivative, whatever the shape."""
        variant = data.draw(st.sampled_from(sorted(self._layers())))
        x = np.random.default_rng(seed).uniform(self.low, self.high, shape)
        layer, bottoms, tops = self.build(device, [x], variant)
        layer.forward(bottoms, tops)
        self.assert_close(device.to_host(tops[0].data), self.expected(x), f"{variant} {shape}")
        if self.propagate_down is not False and np.abs(x).min(initial=1) > 1e-4:  # away from the kink
            for row in gradient_check.check_layer(layer, bottoms, tops):
                assert row.error <= gradient_check.TOLERANCE, str(row)

    def outcome(self, device, line, x, dy, dtype="float64", in_place=False):
        """(y, dx) of the layer ``line``."""
        self.layer = line
        layer, bottoms, tops = self.build(device, [np.asarray(x, dtype)], dtype=dtype, in_place=in_place)
        layer.forward(bottoms, tops)
        y = device.to_host(tops[0].data).copy()
        tops[0].diff[...] = device.xp.asarray(dy)
        layer.backward(tops, [True], bottoms)
        return y, device.to_host(bottoms[0].diff)

    def refuse(self, device, line, message, **kwargs):
        self.layer = line
        with pytest.raises(NetError, match=message):
            self.build(device, [np.zeros((2, 3))], **kwargs)


class TestAbsVal(NeuronCase):
    layer = 'type: "AbsVal"'
    golden = ["absval"]
    exact = True

    def expected(self, x):
        return np.abs(x)

    def test_gradient_at_zero_is_zero(self, device):
        _, dx = self.outcome(device, self.layer, [-2.0, -0.0, 0.0, 3.0], [5.0, 6.0, 7.0, 8.0])
        np.testing.assert_array_equal(dx, [-5, 0, 0, 8])

    def test_not_in_place(self, device):
        self.refuse(device, self.layer, r"layer 'layer' \(AbsVal\): cannot run in place", in_place=True)


class TestBNLL(NeuronCase):
    layer = 'type: "BNLL"'
    golden = ["bnll"]

    def expected(self, x):
        with np.errstate(invalid="ignore"):
            return np.logaddexp(0, x)

    def test_float32_keeps_its_digits_where_y_is_small(self, device):
        x = np.linspace(-80, 0, 1000, dtype="float32")
        y, dx = self.outcome(device, self.layer, x, np.ones(1000), "float32")
        np.testing.assert_allclose(y, np.logaddexp(0, x.astype("float64")), rtol=5e-7)
        np.testing.assert_allclose(dx, 1 / (1 + np.exp(-x.astype("float64"))), rtol=5e-7)


class TestClip(NeuronCase):
    layer = {
        "both sides": 'type: "Clip" clip_param { min: -0.5 max: 1.25 }',
        "one value": 'type: "Clip" clip_param { min: 2 max: 2 }',
        "never": 'type: "Clip" clip_param { min: -inf max: inf }',
    }
    exact = True

    def expected(self, x):
        p = self.param.clip_param
        return np.where(x < p.min, p.min, np.where(x > p.max, p.max, x))

    @pytest.mark.parametrize("in_place", [False, True])
    def test_gradient_passes_at_the_bounds_and_between_them(self, device, in_place):
        line = 'type: "Clip" clip_param { min: -1 max: 2 }'
        x = [-2.0, -1.0, 0.5, 2.0, 2.5, np.nan]
        y, dx = self.outcome(device, line, x, [1, 2, 3, 4, 5, 6], in_place=in_place)
        np.testing.assert_array_equal(y, [-1, -1, 0.5, 2, 2, np.nan])
        np.testing.assert_array_equal(dx, [0, 2, 3, 4, 0, 0])

    @pytest.mark.parametrize("low, high", [("1", "0.5"), ("nan", "1")])
    def test_bounds_out_of_order(self, device, low, high):
        line = f'type: "Clip" clip_param {{ min: {low} max: {high} }}'
        self.refuse(device, line, f"min must be <= max, got min {low} and max {high}")

    def test_no_bounds(self, device):
        self.refuse(device, 'type: "Clip"', "needs its bounds: clip_param")


class TestELU(NeuronCase):
    layer = {
        "plain": 'type: "ELU"',
        "alpha 0.3": 'type: "ELU" elu_param { alpha: 0.3 }',
        "alpha 0": 'type: "ELU" elu_param { alpha: 0 }',
        "alpha below 0": 'type: "ELU" elu_param { alpha: -1.5 }',
    }

    def expected(self, x):
        return np.maximum(x, 0) + np.float64(self.param.elu_param.alpha) * np.expm1(np.minimum(x, 0))

    def test_gradient_at_zero_is_alpha(self, device):
        _, dx = self.outcome(device, 'type: "ELU" elu_param { alpha: 0.5 }', [-0.0, 0.0, 1.0], [1.0, 2.0, 4.0])
        np.testing.assert_array_equal(dx, [0.5, 1, 4])


class TestExp(NeuronCase):
    layer = {
        "plain": 'type: "Exp"',
        "base e": 'type: "Exp" exp_param { base: -1 scale: 0.5 shift: 1.5 }',
        "base 2": 'type: "Exp" exp_param { base: 2 }',
        "base 2 scaled": 'type: "Exp" exp_param { base: 2 scale: -0.7 shift: -2 }',
        "base below 1": 'type: "Exp" exp_param { base: 0.25 scale: 0.5 }',
        "base 1": 'type: "Exp" exp_param { base: 1 shift: 3 }',
    }
    golden = ["exp"]
    # Only in logarithmic terms are the large ones close: an error of x grows with x.
    tolerance = {"float32": 2e-5, "float64": 1e-10}
    no_gradient = (ODD_VALUES, "large")

    def expected(self, x):
        p = self.param.exp_param
        with np.errstate(over="ignore", invalid="ignore"):
            base = np.e if p.base == -1 else p.base
            return np.exp(p.scale * np.log(base) * x) * base**p.shift

    @pytest.mark.parametrize("base", ["0", "-2", "inf", "nan"])
    def test_base(self, device, base):
        self.refuse(device, f'type: "Exp" exp_param {{ base: {base} }}', f"or -1 for e, got {base}$")


class TestLog(NeuronCase):
    layer = {
        "plain": 'type: "Log"',
        "scaled": 'type: "Log" log_param { scale: 3 shift: 0.25 }',
        "base 2": 'type: "Log" log_param { base: 2 }',
        "base below 1": 'type: "Log" log_param { base: 0.5 scale: 0.1 }',
        "base 10 scaled": 'type: "Log" log_param { base: 10 scale: 2 shift: 1 }',
    }
    golden = ["log"]
    low, high = 0.5, 5.0

    def bottoms(self, rng):
        return {
            "random": [rng.uniform(0.1, 5, size=(2, 3, 4, 5))],
            "small and large": [np.array([1e-6, 1e6, 1.0])],
            "no elements": [np.zeros((0, 3))],
            ODD_VALUES: [np.array([0.0, -20.0, np.inf, -np.inf, np.nan])],
        }

    no_gradient = (ODD_VALUES, "small and large")

    def expected(self, x):
        p = self.param.log_param
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(p.scale * x + p.shift) / (1 if p.base == -1 else np.log(p.base))

    @pytest.mark.parametrize("base", ["0", "-2", "1", "inf", "nan"])
    def test_base(self, device, base):
        self.refuse(device, f'type: "Log" log_param {{ base: {base} }}', f"or -1 for e, got {base}$")

    def test_a_scale_of_zero_is_a_constant(self, device):
        y, dx = self.outcome(device, 'type: "Log" log_param { scale: 0 shift: 2 }', [1.0, -3.0], [1.0, 1.0])
        np.testing.assert_allclose(y, np.log(2))
        np.testing.assert_array_equal(dx, 0)


class TestPower(NeuronCase):
    layer = {
        f"({b} + {a} x)^{power}": f'type: "Power" power_param {{ power: {power} scale: {a} shift: {b} }}'
        for power in (-2, 0, 0.5, 1, 1.75, 2, 3, 65)
        for a, b in ((1, 0), (0.25, 0), (0.125, 1.5), (0, 1.25))
    }
    golden = ["power"]
    low, high = 0.5, 2.0

    def bottoms(self, rng):
        return {"random": [rng.uniform(0.5, 1.5, size=(2, 3, 4))], "no elements": [np.zeros((0, 3))]}

    def expected(self, x):
        p = self.param.power_param
        return (p.shift + p.scale * x) ** p.power

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("in_place", [False, True])
    @pytest.mark.parametrize("power", [-3, -1, 0, 0.5, 1, 1.5, 2, 3, 7, 64, 67])
    def test_negative_zero_and_infinite(self, device, power, in_place, dtype):
        """As C's pow; the gradient as the formula has it."""
        x = np.array([-1.5, -1.0, -0.0, 0.0, 1.25, np.inf, -np.inf, np.nan])
        line = f'type: "Power" power_param {{ power: {power} }}'
        y, dx = self.outcome(device, line, x, np.full(x.shape, 2.0), dtype, in_place)
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(y, x**power, rtol=1e-5)
            np.testing.assert_allclose(dx, 2 * power * x ** (power - 1) if power else 0 * np.ones(8), rtol=1e-5)

    def test_constants(self, device):
        """Power or scale 0 hide x, even a NaN, and let no gradient through."""
        for line, value in (
            ("power: 0", 1),
            ("power: 0 shift: 5", 1),
            ("power: 2 scale: 0 shift: -3", 9),
            ("power: 0.5 scale: 0 shift: -3", np.nan),
            ("power: -1 scale: 0", np.inf),
        ):
            line = f'type: "Power" power_param {{ {line} }}'
            y, dx = self.outcome(device, line, [1.0, 0.0, np.nan], [1.0, 1.0, np.nan])
            np.testing.assert_array_equal(y, np.full(3, value), err_msg=line)
            np.testing.assert_array_equal(dx, np.zeros(3), err_msg=line)


class TestSigmoid(NeuronCase):
    layer = {"plain": 'type: "Sigmoid"', "engine": 'type: "Sigmoid" sigmoid_param { engine: CAFFE }'}
    golden = ["sigmoid"]

    def expected(self, x):
        return 0.5 * np.tanh(0.5 * x) + 0.5

    def test_float32_keeps_its_digits_where_y_is_small(self, device):
        """So that the logarithm of a sigmoid is finite, as in Caffe."""
        x = np.linspace(-80, 0, 1000, dtype="float32")
        y, _ = self.outcome(device, 'type: "Sigmoid"', x, np.ones(1000), "float32")
        np.testing.assert_allclose(y, 1 / (1 + np.exp(-x.astype("float64"))), rtol=5e-7)


class TestSwish(NeuronCase):
    layer = {
        "plain": 'type: "Swish"',
        "steep": 'type: "Swish" swish_param { beta: 1.5 }',
        "beta 0": 'type: "Swish" swish_param { beta: 0 }',
        "beta below 0": 'type: "Swish" swish_param { beta: -0.5 }',
    }

    def expected(self, x):
        with np.errstate(over="ignore", invalid="ignore"):
            return x / (1 + np.exp(-self.param.swish_param.beta * x))


class TestTanH(NeuronCase):
    layer = {"plain": 'type: "TanH"', "engine": 'type: "TanH" tanh_param { engine: CAFFE }'}
    golden = ["tanh"]

    def expected(self, x):
        return np.tanh(x)


class TestThreshold(NeuronCase):
    layer = {"at 0": 'type: "Threshold"', "at 0.5": 'type: "Threshold" threshold_param { threshold: 0.5 }'}
    exact = True
    propagate_down = False

    def expected(self, x):
        return np.where(x > self.param.threshold_param.threshold, 1.0, 0.0)

    def test_the_threshold_itself_is_not_above_it(self, device):
        self.layer = 'type: "Threshold" threshold_param { threshold: 0.5 }'
        layer, bottoms, tops = self.build(device, [np.array([0.5, np.nextafter(0.5, 1)])])
        layer.forward(bottoms, tops)
        np.testing.assert_array_equal(device.to_host(tops[0].data), [0, 1])

    def test_no_gradient(self, device):
        layer, bottoms, tops = self.build(device, [np.zeros(2)])
        assert not layer.allow_force_backward(0)
        layer.backward(tops, [False], bottoms)
        with pytest.raises(NetError, match=r"layer 'layer' \(Threshold\): has no gradient"):
            layer.backward(tops, [True], bottoms)


LINES = {
    "AbsVal": 'type: "AbsVal"',
    "BNLL": 'type: "BNLL"',
    "Clip": 'type: "Clip" clip_param { min: 0 max: 1 }',
    "ELU": 'type: "ELU"',
    "Exp": 'type: "Exp"',
    "Log": 'type: "Log"',
    "Power": 'type: "Power" power_param { power: -1 }',
    "PReLU": 'type: "PReLU"',
    "Sigmoid": 'type: "Sigmoid"',
    "Swish": 'type: "Swish"',
    "TanH": 'type: "TanH"',
    "Threshold": 'type: "Threshold"',
}


@pytest.mark.parametrize("name", LINES)
def test_one_bottom_and_one_top(tmp_path, name):
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "x" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 dim: 3 } } }\n'
        f'layer {{ name: "l" {LINES[name]} bottom: "a" bottom: "b" top: "y" }}\n'
    )
    with pytest.raises(NetError, match=rf"net.prototxt:2:1: layer 'l' \({name}\): needs 1 bottom blob\(s\), got 2"):
        caffe_lite.Net(str(path), caffe_lite.TEST)


@pytest.mark.parametrize("name", [name for name in LINES if name not in ("AbsVal", "Threshold")])
def test_in_place_after_a_reshape(device, name):
    """What the last forward saw counts, not what an earlier one of another size did."""
    case = LayerCase()
    case.layer = LINES[name]
    results = []
    for in_place in (False, True):
        layer, bottoms, tops = case.build(device, [np.ones((2, 3))], in_place=in_place)
        for shape in ((4, 3), (1, 3)):
            bottoms[0].reshape(shape)
            bottoms[0].data[...] = device.xp.asarray(np.random.default_rng(5).uniform(0.2, 2, shape))
            layer.reshape(bottoms, tops)
            layer.forward(bottoms, tops)
        tops[0].diff[...] = device.xp.asarray([[1.0, -2.0, 3.0]])
        layer.backward(tops, [True], bottoms)
        results.append(device.to_host(bottoms[0].diff).copy())
    np.testing.assert_allclose(results[1], results[0], rtol=1e-12)


@pytest.mark.parametrize("name", ["Exp", "Log", "Power"])
def test_infinite_results_raise_no_warning(device, name):
    case = LayerCase()
    case.layer = LINES[name]
    layer, bottoms, tops = case.build(device, [np.array([0.0, -1.0, 1000.0])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer.forward(bottoms, tops)
        tops[0].diff[...] = 0.5
        layer.backward(tops, [True], bottoms)
    assert np.isinf(device.to_host(tops[0].data)).any()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", ["Clip", "Exp", "Log", "Power"])
def test_cutting_into_pieces_changes_nothing(device, monkeypatch, name, in_place):
    case = NeuronCase()
    x, dy = np.random.default_rng(3).uniform(0.1, 2, (2, 3, 17)), np.random.default_rng(4).normal(size=(2, 3, 17))
    whole = case.outcome(device, LINES[name], x, dy, in_place=in_place)
    monkeypatch.setattr(neuron, "PIECE", 7 * 8)  # seven numbers
    for got, want in zip(case.outcome(device, LINES[name], x, dy, in_place=in_place), whole, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


@numba.njit(error_model="numpy")
def _exp_and_log1p(x, exp_x, log1p_x):
    for i in range(x.size):
        exp_x[i], log1p_x[i] = neuron.exp(x[i]), neuron.log1p(x[i])


def exp_and_log1p(x):
    result = np.empty_like(x), np.empty_like(x)
    _exp_and_log1p(x, *result)
    return result


def test_exp_and_log1p_of_kernels():
    ulp = np.finfo("float32").eps
    x = np.concatenate([np.linspace(-87, 88.7, 100_001), [-1e-30, 1e-30, 1e-4]]).astype("float32")
    np.testing.assert_allclose(exp_and_log1p(x)[0], np.exp(x.astype("float64")), rtol=ulp)
    x = np.linspace(-104, -87, 1001).astype("float32")  # subnormal results
    np.testing.assert_allclose(exp_and_log1p(x)[0], np.exp(x.astype("float64")), rtol=0, atol=1.5e-45)
    x = np.array([0.0, -0.0, 89.0, np.inf, -np.inf, -200.0, np.nan], "float32")
    np.testing.assert_array_equal(exp_and_log1p(x)[0], np.array([1, 1, np.inf, np.inf, 0, 0, np.nan], "float32"))

    x = np.concatenate([np.linspace(0, 1, 100_001), np.logspace(-40, -1, 101), [np.nan]]).astype("float32")
    np.testing.assert_allclose(exp_and_log1p(x)[1], np.log1p(x.astype("float64")), rtol=2 * ulp, atol=1.5e-45)

    x = np.array([0.3, 1.0])  # double stays double
    np.testing.assert_allclose(exp_and_log1p(x), [np.exp(x), np.log1p(x)], rtol=1e-15)
