"""Layers that users write in Python, in nets and with parameters of their own (see also tests/layers/test_python.py)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import caffe_lite as caffe

LAYERS = '''
import numpy as np
import caffe_lite as caffe

class Factor(caffe.Layer):
    def setup(self, bottom, top):
        self.factor = float(self.param_str or 10)
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        top[0].data[...] = self.factor * bottom[0].data
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.factor * top[0].diff

class Failing(Factor):
    def setup(self, bottom, top):
        raise RuntimeError

class FailingLater(Factor):
    def forward(self, bottom, top):
        raise ZeroDivisionError("in forward")

class WithParameter(Factor):
    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs.add_blob(2, 3)
        self.blobs[0].data[0] = 0
    def forward(self, bottom, top):
        pass
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[0] = 1

class Phase(caffe.Layer):
    def setup(self, bottom, top):
        pass
    def reshape(self, bottom, top):
        top[0].reshape()
    def forward(self, bottom, top):
        top[0].data[()] = self.phase

class EuclideanLoss(caffe.Layer):
    """Half the mean squared distance, as Caffe's."""
    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("Need two inputs to compute distance.")
    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise Exception("Inputs must have the same dimension.")
        self.diff = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)
    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2.0
    def backward(self, top, propagate_down, bottom):
        for i in range(2):
            if not propagate_down[i]:
                continue
            sign = 1 if i == 0 else -1
            bottom[i].diff[...] = sign * self.diff / bottom[i].num
'''
INPUT = 'force_backward: true input: "data" input_shape { dim: 4 dim: 3 dim: 2 }\n'


@pytest.fixture
def write(tmp_path: Path, monkeypatch):
    (tmp_path / "users_layers.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(text: str) -> str:
        (tmp_path / "net.prototxt").write_text(text)
        return str(tmp_path / "net.prototxt")

    yield make
    sys.modules.pop("users_layers", None)


def layer(name: str, bottom: str, cls: str, more: str = "") -> str:
    bottoms = " ".join(f'bottom: "{b}"' for b in bottom.split())
    python = f'python_param {{ module: "users_layers" layer: "{cls}" {more} }}'
    return f'layer {{ type: "Python" name: "{name}" {bottoms} top: "{name}" {python} }}\n'


@pytest.fixture
def chain(write) -> caffe.Net:
    two = layer("two", "one", "Factor", 'param_str: "0.5"')
    return caffe.Net(write(INPUT + layer("one", "data", "Factor") + two), caffe.TRAIN)


def test_forward_and_backward(chain: caffe.Net) -> None:
    chain.blobs["data"].data[...] = 8
    chain.forward()
    assert (chain.blobs["two"].data == 40).all()
    chain.blobs["two"].diff[...] = 6
    assert (chain.backward()["data"] == 30).all()


def test_reshape(chain: caffe.Net) -> None:
    chain.blobs["data"].reshape(5, 5, 5, 5)
    chain.forward()
    assert [blob.data.shape for blob in chain.blobs.values()] == [(5, 5, 5, 5)] * 3


def test_layers_are_the_users_objects(chain: caffe.Net) -> None:
    assert chain.layers[2] is chain.layer_dict["two"] and chain.layers[2].factor == 0.5
    chain.layers[2].factor = 3
    chain.blobs["data"].data[...] = 1
    assert (chain.forward()["two"] == 30).all()


def test_exceptions_reach_the_caller(write) -> None:
    with pytest.raises(RuntimeError):
        caffe.Net(write(INPUT + layer("one", "data", "Failing")), caffe.TEST)
    with pytest.raises(ValueError, match="could not convert"):
        caffe.Net(write(INPUT + layer("one", "data", "Factor", 'param_str: "x"')), caffe.TEST)
    net = caffe.Net(write(INPUT + layer("one", "data", "FailingLater")), caffe.TEST)
    with pytest.raises(ZeroDivisionError, match="in forward"):
        net.forward()


def test_parameters_are_saved_copied_and_shared(write, tmp_path: Path) -> None:
    prototxt = write(INPUT + layer("layer", "data", "WithParameter"))
    net = caffe.Net(prototxt, caffe.TRAIN)
    assert [blob.data.shape for blob in net.params["layer"]] == [(1,), (2, 3)]
    net.forward()
    net.backward()
    mine = net.layers[list(net._layer_names).index("layer")]
    assert (mine.blobs[0].data[0], mine.blobs[0].diff[0]) == (0, 1)
    mine.blobs[0].data[0] += mine.blobs[0].diff[0]
    net.save(str(tmp_path / "net.caffemodel"))
    mine.blobs[0].data[0] = -1
    assert net.params["layer"][0].data[0] == -1
    net.copy_from(str(tmp_path / "net.caffemodel"))
    assert mine.blobs[0].data[0] == 1
    other = caffe.Net(prototxt, caffe.TRAIN)
    other.share_with(net)
    mine.blobs[0].data[0] = 5
    assert other.layer_dict["layer"].blobs[0].data[0] == 5


@pytest.mark.parametrize("attribute", ["param", "check", "state", "loss_weights", "device", "where", "layer"])
def test_layers_call_their_own_attributes_what_they_like(write, tmp_path: Path, monkeypatch, attribute: str) -> None:
    net_file = write(INPUT + layer("one", "data", "Factor"))
    import users_layers  # written by the fixture

    def setup(self, bottom, top):
        setattr(self, attribute, {"mine": 1})
        self.factor = 2

    monkeypatch.setattr(users_layers.Factor, "setup", setup)
    net = caffe.Net(net_file, caffe.TRAIN)
    net.blobs["data"].data[...] = 3
    assert (net.forward()["one"] == 6).all() and getattr(net.layers[1], attribute)
    net.backward()
    net.save(str(tmp_path / "net.caffemodel"))
    net.copy_from(str(tmp_path / "net.caffemodel"))


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_phase(write, phase: int) -> None:
    assert caffe.Net(write(layer("phase", "", "Phase")), phase).forward()["phase"] == phase


def test_a_loss_in_python_has_the_gradient_of_the_built_in_one(write) -> None:
    heads = 'input: "a" input: "b" input_shape { dim: 4 dim: 3 } input_shape { dim: 4 dim: 3 } force_backward: true\n'
    ours = caffe.Net(
        write(heads + layer("loss", "a b", "EuclideanLoss").replace("python_param", "loss_weight: 1 python_param")),
        caffe.TRAIN,
    )
    built_in = caffe.Net(
        write(heads + 'layer { type: "EuclideanLoss" name: "loss" bottom: "a" bottom: "b" top: "loss" }'), caffe.TRAIN
    )
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(4, 3)) for name in "ab"}
    losses = [float(net.forward(**values)["loss"].item()) for net in (ours, built_in)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for net in (ours, built_in):
        net.backward()
    for name in "ab":
        np.testing.assert_allclose(ours.blobs[name].diff, built_in.blobs[name].diff, rtol=1e-4, atol=1e-6)
