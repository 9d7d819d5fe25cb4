"""RecurrentCase: what LSTM and RNN are both tested for."""

from __future__ import annotations

import numpy as np
import pytest

from caffe_lite.blob import Blob
from caffe_lite.device import CPU
from caffe_lite.errors import NetError, ShapeError
from tests.layers.layer_case import LayerCase

D = 3


class RecurrentCase(LayerCase):
    doubles = False  # T is fixed
    has_static = False
    exposed = 0

    def bottoms(self, rng):
        def case(t, n, *inputs, first=None):
            cont = rng.integers(0, 2, (t, n)).astype(float)
            if first is not None:
                cont[0] = first
            x = [rng.normal(size=(t, n, *inputs)), cont]
            x += [rng.normal(size=(n, 2, 2))] if self.has_static else []
            return x + [rng.normal(size=(1, n, D)) for _ in range(self.exposed)]

        begins = None if self.exposed else 0  # or two forwards would start from different states
        return {
            "sequences": case(5, 3, 4, first=begins),
            "one step": case(1, 2, 2, 3, first=begins),
            "one stream": case(4, 1, 1, first=begins),
            "no streams": case(3, 0, 2),
            "x has two axes": case(3, 2, first=begins),
            "goes on": case(4, 3, 2, first=1),
        }

    @property
    def no_gradient(self):
        return () if self.exposed else ("goes on",)

    @property
    def propagate_down(self):
        return [True, False] + [True] * (self.has_static + self.exposed)

    def split(self, bottoms):
        """(x (T, N, I), cont (T, N, 1), x_static (N, S) or None, states (N, D) before the first step)."""
        x, cont, *rest = bottoms
        static = rest.pop(0).reshape(x.shape[1], 4) if self.has_static else None
        inputs = int(np.prod(x.shape[2:]))
        return x.reshape(*x.shape[:2], inputs), cont[:, :, None], static, [state[0] for state in rest]


class PlainCase(RecurrentCase):
    """Of the layer without x_static and exposed states."""

    def test_goes_on_from_the_forward_before(self, device):
        """One sequence of six steps, and the same in two forwards of three."""
        rng = np.random.default_rng(4)
        x, cont = rng.normal(size=(6, 2, 3)), np.ones((6, 2))
        cont[4, 0] = 0
        layer, bottoms, tops = self.build(device, [x, cont])
        whole = self._run(layer, bottoms, tops)[0]
        layer, bottoms, tops = self.build(device, [x[:3], cont[:3]])
        parts = [self._run(layer, bottoms, tops)[0]]
        for blob, values in zip(bottoms, (x[3:], cont[3:]), strict=True):
            blob.data[...] = device.xp.asarray(values)
        parts.append(self._run(layer, bottoms, tops)[0])
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-12)
        layer.forget()
        afresh = self._run(layer, bottoms, tops)[0]
        assert np.abs(afresh[0] - whole[3]).max() > 1e-3
        cont[3] = 0
        layer, bottoms, tops = self.build(device, [x[3:], cont[3:]])
        np.testing.assert_allclose(afresh, self._run(layer, bottoms, tops)[0], atol=1e-12)

    def test_number_of_streams_may_change(self, device):
        rng = np.random.default_rng(5)
        two, four = ([rng.normal(size=(3, n, 2)), np.ones((3, n))] for n in (2, 4))
        fresh = self._run(*self.build(device, two))[0]
        layer, bottoms, tops = self.build(device, two)
        for arrays in (four, two):  # the states begin at zero again
            for blob, values in zip(bottoms, arrays, strict=True):
                blob.reshape(values.shape)
                blob.data[...] = device.xp.asarray(values)
            got = self._run(layer, bottoms, tops)[0]
        np.testing.assert_array_equal(got, fresh)

    @pytest.mark.parametrize("wanted", range(-1, 5))
    def test_only_wanted_parameter_gradients(self, device, wanted):
        layer, bottoms, tops = self.build(device, next(iter(self._cases().values())))
        layer.param_propagate_down = [i == wanted for i in range(len(layer.blobs))]
        self._run(layer, bottoms, tops)
        self._backward(layer, bottoms, tops, [True, False])
        assert [bool(device.to_host(b.diff).any()) for b in layer.blobs] == layer.param_propagate_down

    def test_cont_has_no_gradient(self):
        layer, bottoms, tops = self.build(CPU, next(iter(self._cases().values())))
        assert [layer.allow_force_backward(i) for i in range(3)] == [True, False, True]
        self._run(layer, bottoms, tops)
        with pytest.raises(NetError, match="cont .bottom 1. has no gradient"):
            layer.backward(tops, [True, True], bottoms)

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            ([(4,), (4,)], r"x \(bottom 0\) must have shape \(T, N, ...\) with T > 0, got \(4,\)"),
            ([(0, 2, 3), (0, 2)], r"with T > 0, got \(0, 2, 3\)"),
            ([(4, 2, 3), (4, 3)], r"cont \(bottom 1\) must have shape \(4, 2\), got \(4, 3\)"),
            ([(4, 2, 3), (4, 2), ()], r"x_static \(bottom 2\) must have shape \(N, ...\), got \(\)"),
            ([(4, 2, 3), (4, 2), (3, 5)], r"must have shape \(2, ...\) with 5 inputs, got \(3, 5\)"),
        ],
    )
    def test_bad_shapes(self, shapes, message):
        with pytest.raises(ShapeError, match=r"layer 'layer' \(\w+\): .*" + message):
            self.build(CPU, [np.zeros(shape) for shape in shapes])

    def test_what_is_fixed(self):
        layer, bottoms, tops = self.build(CPU, [np.zeros((4, 2, 3)), np.zeros((4, 2))])
        for shape in ((5, 2, 3), (4, 2, 4)):
            with pytest.raises(ShapeError, match=r"the layer is built for \(4, N, ...\) with 3 inputs"):
                layer.reshape([Blob(shape), Blob(shape[:2])], tops)

    @pytest.mark.parametrize("count", [1, 4])
    def test_number_of_bottoms(self, count):
        with pytest.raises(NetError, match="needs .* bottom"):
            self.build(CPU, [np.zeros((4, 2, 3)), *[np.zeros((4, 2))] * (count - 1)])

    def test_num_output(self):
        self.layer = next(iter(self._layers().values())).replace("num_output: 3", "num_output: 0")
        with pytest.raises(NetError, match="num_output must be > 0, got 0"):
            self.build(CPU, [np.zeros((4, 2, 3)), np.zeros((4, 2))])


class ExposedCase(RecurrentCase):
    def test_states_need_their_bottoms_and_shape(self):
        cases = self._cases()["sequences"]
        with pytest.raises(NetError, match=r"bottoms \(x, cont, h_0.*\), or \d with x_static after cont, got 2"):
            self.build(CPU, cases[:2])
        with pytest.raises(ShapeError, match=rf"a state \(bottom {len(cases) - 1}\) must have shape \(1, 3, 3\)"):
            self.build(CPU, [*cases[:-1], np.zeros((1, 2, 3))])

    def test_number_of_tops(self):
        self.tops += 1
        with pytest.raises(NetError, match=rf"needs {1 + self.exposed} top blob"):
            self.build(CPU, self._cases()["sequences"])
