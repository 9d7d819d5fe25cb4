"""Weights and states in HDF5: Caffe's layout, and files that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caffe_lite import hdf5_weights, snapshot
from caffe_lite.device import Device
from caffe_lite.errors import WeightsError
from tests.small_net import assert_same, net_of, parameters

SHARED = """
layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
        inner_product_param { num_output: 3 weight_filler { type: "gaussian" } } }
layer { name: "in/b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
        inner_product_param { num_output: 3 weight_filler { type: "gaussian" } } }
"""


def test_hdf5_weights_have_caffes_layout(tmp_path: Path, device: Device) -> None:
    """A group for every layer, a shared parameter with its owner only, gradients of all."""
    net = net_of(tmp_path, SHARED)
    net.params["a"][0].diff[...] = 2
    net.save_hdf5(tmp_path / "w.caffemodel.h5", write_diff=True)
    with h5py.File(tmp_path / "w.caffemodel.h5") as file:
        assert set(file) == {"data", "diff"}
        assert set(file["data"]) == {"data", "a", "in"} and not len(file["data/data"])
        assert set(file["data/a"]) == {"0", "1"} and set(file["data/in/b"]) == {"1"}
        assert set(file["diff/in/b"]) == {"0", "1"}
        assert file["data/a/0"].dtype == "<f4" and file["data/a/0"].shape == (3, 3)
        np.testing.assert_array_equal(file["data/a/0"], net.params["a"][0].data)
        np.testing.assert_array_equal(file["diff/in/b/0"], np.full((3, 3), 2))
    other = net_of(tmp_path, SHARED, seed=2)
    report = other.copy_from(tmp_path / "w.caffemodel.h5")
    assert report.copied == ["a", "in/b"] and not report.ignored and not report.untouched
    assert_same(parameters(net), parameters(other))
    other = net_of(tmp_path, SHARED, seed=2)
    other.load_hdf5(tmp_path / "w.caffemodel.h5")
    assert_same(parameters(net), parameters(other))
    net.save_hdf5(tmp_path / "w.caffemodel.h5")
    with h5py.File(tmp_path / "w.caffemodel.h5") as file:
        assert set(file) == {"data"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data/a/0": np.zeros((3, 3)), "data/a/1": np.zeros(4)}, r"layer 'a', parameter 1: shape \(4,\) in the file"),
        ({"data/a/1": np.zeros(3)}, r"layer 'a' has parameter blob\(s\) \[1\] in the file, 2 in the net"),
        ({"data/in/b/2": np.zeros(3)}, r"layer 'in/b' has parameter blob\(s\) \[2\]"),
        ({"data/a/x": np.zeros(3)}, "/data/a/x is no parameter"),
        ({"data/a/0": "text"}, "must hold numbers"),
        ({"weights/a/0": np.zeros(3)}, "has no 'data'"),
    ],
)
def test_hdf5_weights_that_do_not_fit_change_nothing(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    net = net_of(tmp_path, SHARED)
    before = parameters(net)
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        for name, array in content.items():
            file[name] = array
    with pytest.raises(WeightsError, match=f"^{path}: .*{message}"):
        net.copy_from(path)
    assert_same(before, parameters(net))


def test_hdf5_weights_of_other_layers_and_in_double(tmp_path: Path) -> None:
    net = net_of(tmp_path, SHARED)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["data/a/0"], file["data/a/1"] = np.full((3, 3), 1.5), np.full(3, 2.5)
        file["data/elsewhere/0"] = np.zeros(3)
    report = net.copy_from(tmp_path / "w.h5")
    assert (report.copied, report.ignored, report.untouched) == (["a"], ["elsewhere"], ["in/b"])
    assert (net.params["in/b"][0].data == 1.5).all(), "shared"


def test_hdf5_states_have_caffes_layout(tmp_path: Path) -> None:
    history = [np.arange(6, dtype="f4").reshape(2, 3), np.float32([7])]
    content = hdf5_weights.state_bytes(hdf5_weights.State(12, "a.caffemodel.h5", history, 3))
    path = tmp_path / "s.solverstate.h5"
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert set(file) == {"iter", "learned_net", "current_step", "history"} and set(file["history"]) == {"0", "1"}
        for name, value in (("iter", 12), ("current_step", 3)):
            assert (file[name].shape, file[name].dtype, file[name][0]) == ((1,), np.int32, value)
        kind = file["learned_net"].id.get_type()
        assert (kind.get_size(), kind.get_strpad(), kind.is_variable_str()) == (16, h5py.h5t.STR_NULLTERM, False)
    state = snapshot.read_state(path)
    assert (state.iter, state.learned_net, state.current_step) == (12, "a.caffemodel.h5", 3)
    for got, want in zip(state.history, history, strict=True):
        np.testing.assert_array_equal(got, want)
