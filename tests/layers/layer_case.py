"""LayerCase: what every layer is tested for, on every device. A test states the mathematics.

A subclass says which layer, which bottoms, and what comes out, written slowly and obviously::

    class TestReLU(LayerCase):
        layer = {"plain": 'type: "ReLU"', "leaky": 'type: "ReLU" relu_param { negative_slope: 0.1 }'}
        exact = True                                   # nothing is summed: equal to the last bit
        golden = ["relu", "relu_leaky"]                # tests/golden/layers/NAME.{prototxt,npz}

        def bottoms(self, rng):
            return {
                "random": [rng.normal(size=(2, 3, 4, 5))],
                "zeros and nan": [np.array([0.0, -0.0, np.nan])],
                "no elements": [np.zeros((0, 3))],
            }

        def expected(self, x):                         # float64 arrays in, an array or a tuple of them out
            return np.where(x > 0, x, self.param.relu_param.negative_slope * x)

and gets, for each layer and each device (cpu, cuda-on-host, gpu), with all bottoms or with the first [1]; on
cuda-on-host forward and backward fail if they wait for the device:

    test_forward            float32 and float64 against ``expected``; bottoms are left as they were
    test_gradient           float64, central differences along random directions
    test_diffs [1]          bottom diffs are overwritten, parameter diffs added to, two runs the same bits
    test_propagate_down [1] a bottom whose gradient is not wanted keeps its diff
    test_in_place           if the class says ``in_place``: top is bottom gives the same
    test_reshape [1]        the same layer on twice the batch, then on this one again
    test_golden             the net NAME.prototxt against what Caffe computed

What a subclass may set:

    layer           prototxt of a LayerParameter (name, bottoms, tops and phase are added), or {name: prototxt}
    phase           TRAIN (the default) or TEST
    tops            how many tops (1)
    differentiable  a bool for each top: does it take part in gradients ([True] * tops; masks: False)
    propagate_down  a bool for each bottom: has it a gradient (labels, rois: False); False alone: the layer has none
    no_gradient     names of bottoms where no derivative exists (ties, NaN), or which are checked for forward only
    exact           forward is equal to the last bit; if not, max |difference| <= tolerance * max(1, max |expected|)
    tolerance       2e-5 in float32, 1e-10 in float64
    doubles         False if twice the batch makes no sense (test_reshape is skipped)

``expected`` may read ``self.param`` (the LayerParameter), ``self.weights`` (the parameters as float64 arrays) and
``self.rng_seed``. Parameters are filled with normal random values, the same in every test; override
``fill_params(self, blobs, rng)`` for others. For tests of one's own: ``self.build(device, bottoms)`` gives
(layer, bottom blobs, top blobs), and plain methods ``test_...(self, device)`` work as usual.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe_lite
from caffe_lite import gradient_check, prototxt, registry
from caffe_lite.blob import Blob
from caffe_lite.device import Device
from caffe_lite.layer import Layer
from caffe_lite.proto import caffe_pb2
from tests import strict_device

MARGIN = 4096  # NaNs behind every array of a test: whoever reads or writes too far is found out
GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "layers"


class LayerCase:
    layer: str | dict[str, str] = ""
    phase = caffe_lite.TRAIN
    tops = 1
    differentiable: list[bool] | None = None
    propagate_down: list[bool] | bool | None = None
    no_gradient: tuple[str, ...] = ()
    exact = False
    tolerance = {"float32": 2e-5, "float64": 1e-10}
    doubles = True
    golden: list[str] = []
    rng_seed = 20150430

    # set by build()
    param: Any
    weights: list[np.ndarray]
    _margins: list[tuple[Any, Any]]

    # ---- what a subclass writes

    def bottoms(self, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
        """The bottoms by name of case."""
        raise NotImplementedError

    def expected(self, *bottoms: np.ndarray) -> Any:
        """The tops for float64 ``bottoms``."""
        raise NotImplementedError

    def fill_params(self, blobs: list[Blob], rng: np.random.Generator) -> None:
        for blob in blobs:
            blob.data[...] = blob.device.xp.asarray(rng.normal(size=blob.shape))

    # ---- machinery

    def __init_subclass__(cls) -> None:
        """Leave out the tests that do not apply, rather than skip them."""
        super().__init_subclass__()
        if not cls.layer:
            return
        case = cls()
        layer_class = registry.layers.get(case._parse(next(iter(case._layers()))).type)
        has_gradient = cls.propagate_down is not False
        for name, applies in {
            "test_golden": bool(cls.golden),
            "test_in_place": layer_class.in_place,
            "test_reshape": cls.doubles,
            "test_gradient": has_gradient and bool(case._names("test_gradient")),
            "test_diffs": has_gradient,
            "test_propagate_down": has_gradient,
        }.items():
            if name not in cls.__dict__:
                setattr(cls, name, getattr(LayerCase, name) if applies else None)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if "variant" in metafunc.fixturenames:
            metafunc.parametrize("variant", list(self._layers()))
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", self._names(metafunc.function.__name__))
        if "golden_name" in metafunc.fixturenames:
            metafunc.parametrize("golden_name", self.golden)

    def _names(self, test: str) -> list[str]:
        names = list(self._cases())
        if test in ("test_diffs", "test_propagate_down", "test_reshape"):
            return names[:1]
        return [name for name in names if test != "test_gradient" or name not in self.no_gradient]

    def _layers(self) -> dict[str, str]:
        return self.layer if isinstance(self.layer, dict) else {"": self.layer}

    def _cases(self) -> dict[str, list[np.ndarray]]:
        return self.bottoms(np.random.default_rng(self.rng_seed))

    def _parse(self, variant: str) -> Any:
        param = caffe_pb2.LayerParameter()
        prototxt.parse(f'name: "layer" {self._layers()[variant]}', param)
        return param

    def build(
        self,
        device: Device,
        bottoms: list[np.ndarray],
        variant: str | None = None,
        dtype: str = "float64",
        in_place: bool = False,
    ) -> tuple[Layer, list[Blob], list[Blob]]:
        """(layer, bottom blobs, top blobs), set up and with its parameters filled, forward not yet run."""
        self.param = self._parse(variant if variant is not None else next(iter(self._layers())))
        self.param.phase = self.phase
        self.param.bottom.extend(f"b{i}" for i in range(len(bottoms)))
        self.param.top.extend(f"t{i}" for i in range(self.tops))
        blobs = [self._blob(device, dtype, a) for a in bottoms]
        tops = blobs[:1] if in_place else [Blob((), dtype, device) for _ in range(self.tops)]
        layer = registry.layers.get(self.param.type).create(self.param, self.phase, device, dtype, "")
        layer.set_up(blobs, tops)
        self._margins = [_add_margin(blob._data, blob.count) for blob in (*blobs, *tops, *layer.blobs)]
        self.fill_params(layer.blobs, np.random.default_rng(self.rng_seed + 1))
        layer.param_propagate_down = [True] * len(layer.blobs)
        self.weights = [device.to_host(b.data).astype(np.float64) for b in layer.blobs]
        return layer, blobs, tops

    def _check_margins(self) -> None:
        for storage, flat in self._margins:
            if storage.flat is flat:  # else a layer has asked for more memory, or for other memory
                behind = storage.device.to_host(flat[-MARGIN:])
                assert np.isnan(behind).all(), f"written behind the end of an array of {flat.size - MARGIN} elements"

    @staticmethod
    def _blob(device: Device, dtype: str, values: np.ndarray) -> Blob:
        blob = Blob(np.shape(values), dtype, device)
        blob.data[...] = device.xp.asarray(values, dtype=dtype)
        return blob

    def _run(self, layer: Layer, bottoms: list[Blob], tops: list[Blob]) -> list[np.ndarray]:
        layer.device.rng.bit_generator.state = np.random.default_rng(self.rng_seed + 2).bit_generator.state
        layer.reshape(bottoms, tops)
        with strict_device.closed():
            layer.forward(bottoms, tops)
        return [layer.device.to_host(t.data).copy() for t in tops]

    def _wanted(self, count: int) -> list[bool]:
        if isinstance(self.propagate_down, (list, tuple)):
            return list(self.propagate_down)
        return [self.propagate_down is not False] * count

    def _backward(self, layer: Layer, bottoms: list[Blob], tops: list[Blob], wanted: list[bool]) -> None:
        rng = np.random.default_rng(self.rng_seed + 3)
        for i, top in enumerate(tops):
            takes_part = self.differentiable is None or self.differentiable[i]
            top.diff[...] = layer.xp.asarray(rng.normal(size=top.shape) * takes_part)
        with strict_device.closed():
            layer.backward(tops, wanted, bottoms)

    def assert_close(self, got: np.ndarray, want: np.ndarray, what: str, exact: bool | None = None) -> None:
        """Same shape, NaN and infinities at the same places, and the rest equal or within the tolerance."""
        want = np.asarray(want)
        assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
        if self.exact if exact is None else exact:
            np.testing.assert_array_equal(got, want.astype(got.dtype), err_msg=what)
            return
        finite = np.isfinite(want)
        np.testing.assert_array_equal(got[~finite], want[~finite].astype(got.dtype), err_msg=what)
        allowed = self.tolerance[got.dtype.name] * max(1.0, float(np.abs(want[finite]).max(initial=0)))
        worst = float(np.abs(got[finite] - want[finite]).max(initial=0))
        assert worst <= allowed, f"{what}: off by {worst:.2e}, allowed {allowed:.2e}"

    # ---- the tests

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_forward(self, device: Device, variant: str, case: str, dtype: str) -> None:
        layer, bottoms, tops = self.build(device, self._cases()[case], variant, dtype)
        before = [device.to_host(b.data).copy() for b in bottoms]
        got = self._run(layer, bottoms, tops)
        want = self.expected(*(b.astype(np.float64) for b in before))
        want = want if isinstance(want, (tuple, list)) else (want,)
        assert len(got) == len(want)
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            assert g.dtype == dtype
            self.assert_close(g, w, f"top {i}")
        for i, (blob, was) in enumerate(zip(bottoms, before, strict=True)):
            np.testing.assert_array_equal(device.to_host(blob.data), was, err_msg=f"forward changed bottom {i}")
        self._check_margins()

    def test_gradient(self, device: Device, variant: str, case: str) -> None:
        layer, bottoms, tops = self.build(device, self._cases()[case], variant)
        rows = gradient_check.check_layer(
            layer, bottoms, tops, propagate_down=self._wanted(len(bottoms)), differentiable_tops=self.differentiable
        )
        for row in rows:
            assert row.error <= gradient_check.TOLERANCE, str(row)

    def test_diffs(self, device: Device, variant: str, case: str) -> None:
        layer, bottoms, tops = self.build(device, self._cases()[case], variant)
        wanted = self._wanted(len(bottoms))
        self._margins += [_add_margin(blob._diff, blob.count) for blob in (*bottoms, *tops, *layer.blobs)]
        runs = []
        for start in (0.0, 0.0, 3.0):
            for blob in (*bottoms, *layer.blobs):
                blob.diff[...] = start
            self._run(layer, bottoms, tops)
            self._backward(layer, bottoms, tops, wanted)
            runs.append([device.to_host(b.diff).copy() for b in (*bottoms, *layer.blobs)])
        self._check_margins()
        first, again, other = runs
        for i, (a, b) in enumerate(zip(first, again, strict=True)):
            np.testing.assert_array_equal(a, b, err_msg=f"two runs differ, blob {i}")
        for i, (a, b) in enumerate(zip(first, other, strict=True)):
            if i >= len(bottoms):
                np.testing.assert_allclose(b - 3.0, a, rtol=1e-9, atol=1e-9, err_msg="parameter diffs must be added to")
            elif wanted[i]:
                np.testing.assert_array_equal(a, b, err_msg=f"the diff of bottom {i} must be overwritten")

    def test_propagate_down(self, device: Device, variant: str, case: str) -> None:
        """Whatever subset of gradients is wanted, those are right and the other diffs untouched."""
        layer, bottoms, tops = self.build(device, self._cases()[case], variant)
        wanted = self._wanted(len(bottoms))
        self._run(layer, bottoms, tops)
        for blob in layer.blobs:
            blob.diff[...] = 0
        self._backward(layer, bottoms, tops, wanted)
        full = [device.to_host(b.diff).copy() for b in bottoms]
        for skipped in range(len(bottoms)):
            for blob in bottoms:
                blob.diff[...] = 7.0
            self._run(layer, bottoms, tops)
            subset = [w and i != skipped for i, w in enumerate(wanted)]
            self._backward(layer, bottoms, tops, subset)
            for i, blob in enumerate(bottoms):
                want = full[i] if subset[i] else np.full(blob.shape, 7.0)
                np.testing.assert_array_equal(device.to_host(blob.diff), want, err_msg=f"bottom {i}, wanted {subset}")

    def test_in_place(self, device: Device, variant: str, case: str) -> None:
        arrays = self._cases()[case]
        apart, bottoms, tops = self.build(device, arrays, variant)
        same, in_place, in_place_tops = self.build(device, arrays, variant, in_place=True)
        assert in_place_tops[0] is in_place[0]
        want, got = self._run(apart, bottoms, tops), self._run(same, in_place, in_place_tops)
        self.assert_close(got[0], want[0], "forward in place", exact=False)
        if self.propagate_down is not False:
            self._backward(apart, bottoms, tops, self._wanted(len(bottoms)))
            self._backward(same, in_place, in_place_tops, self._wanted(len(bottoms)))
            self.assert_close(
                device.to_host(in_place[0].diff), device.to_host(bottoms[0].diff), "backward in place", exact=False
            )

    def test_reshape(self, device: Device, variant: str, case: str) -> None:
        arrays = self._cases()[case]
        fresh = self._run(*self.build(device, arrays, variant))
        layer, bottoms, tops = self.build(device, arrays, variant)
        for values in ([np.concatenate([a, a]) if a.ndim else a for a in arrays], arrays):
            for blob, array in zip(bottoms, values, strict=True):
                blob.reshape(array.shape)
                blob.data[...] = device.xp.asarray(array)
            result = self._run(layer, bottoms, tops)
        for i, (got, want) in enumerate(zip(result, fresh, strict=True)):
            np.testing.assert_array_equal(got, want, err_msg=f"top {i}")

    def test_golden(self, device: Device, golden_name: str) -> None:
        check_golden(golden_name)


def _add_margin(storage: Any, count: int) -> tuple[Any, Any]:
    """Put NaNs behind the ``count`` elements of a blob's memory; (storage, its new array)."""
    storage.reserve(count)
    xp = storage.device.xp
    storage.flat = xp.concatenate([storage.flat[:count], xp.full(MARGIN, np.nan)]).astype(storage.dtype)
    return storage, storage.flat


def check_golden(name: str, tolerance: float = 2e-5) -> None:
    """Net ``name`` on the device in use gives what Caffe computed, within tolerance * max(1, max |recorded|)."""
    recorded = np.load(GOLDEN / f"{name}.npz")
    net = caffe_lite.Net(str(GOLDEN / f"{name}.prototxt"), getattr(caffe_lite, str(recorded["phase"])))

    def compare(key: str, got: Any) -> None:
        want = recorded[key]
        got = np.asarray(got).reshape(want.shape)
        worst = float(np.abs(got - want).max(initial=0))
        assert worst <= tolerance * max(1.0, float(np.abs(want).max(initial=0))), f"{name}: {key} is off by {worst:.2e}"

    def parameter(key: str) -> Any:
        _, layer, index = key.split(":")
        return net.params[layer][int(index)]

    keys = list(recorded)
    for key in keys:
        if key.startswith("in:"):
            net.blobs[key[3:]].data[...] = recorded[key]
        elif key.startswith("param:"):
            parameter(key).data[...] = recorded[key]
    net.forward()
    for key in keys:
        if key.startswith("out:"):
            compare(key, net.blobs[key[4:]].data)
        elif key.startswith("param_after_forward:"):
            compare(key, parameter(key).data)
    if not any(key.startswith(("indiff:", "blobdiff:", "paramdiff:")) for key in keys):
        return
    for key in keys:
        if key.startswith("topdiff:"):
            net.blobs[key[8:]].diff[...] = recorded[key]
    net.clear_param_diffs()
    net.backward()
    for key in keys:
        if key.startswith(("indiff:", "blobdiff:")):
            compare(key, net.blobs[key.partition(":")[2]].diff)
        elif key.startswith("paramdiff:"):
            compare(key, parameter(key).diff)
