"""Net and Blob as pycaffe's users meet them: names, kwargs, batches, views, callbacks."""

from __future__ import annotations

import gc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

import caffe_lite as caffe

SMALL = """
name: "small" force_backward: true
layer { name: "noise" type: "DummyData" top: "x" top: "label"
        dummy_data_param { shape { dim: 4 dim: 2 dim: 5 dim: 3 } shape { dim: 4 }
                           data_filler { type: "gaussian" } data_filler { type: "constant" } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
        convolution_param { num_output: 6 kernel_size: 2 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "scores"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } bias_filler { value: 0.5 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" loss_weight: 2 }
"""
DEPLOY = """
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


@pytest.fixture
def write(tmp_path: Path):
    def make(text: str) -> str:
        path = tmp_path / "net.prototxt"
        path.write_text(text)
        return str(path)

    return make


@pytest.fixture
def small(write) -> caffe.Net:
    net = caffe.Net(write(SMALL), caffe.TRAIN)
    net.blobs["label"].data[...] = [0, 1, 2, 1]
    return net


@pytest.fixture
def deploy(write) -> caffe.Net:
    return caffe.Net(write(DEPLOY), caffe.TEST)


def test_names(small: caffe.Net) -> None:
    assert small.inputs == [] and small.outputs == ["loss"]
    assert list(small.layer_dict) == list(small._layer_names) == ["noise", "conv", "ip", "loss"]
    assert [small.layer_dict[name].type for name in small._layer_names] == [layer.type for layer in small.layers]
    assert small.top_names == OrderedDict(
        [("noise", ["x", "label"]), ("conv", ["conv"]), ("ip", ["scores"]), ("loss", ["loss"])]
    )
    assert small.bottom_names == OrderedDict(
        [("noise", []), ("conv", ["x"]), ("ip", ["conv"]), ("loss", ["scores", "label"])]
    )
    assert list(small.blobs) == ["x", "label", "conv", "scores", "loss"]
    assert list(small.params) == ["conv", "ip"]
    assert small.blob_loss_weights == OrderedDict(x=0, label=0, conv=0, scores=0, loss=2)


def test_numbers_behind_the_names(small: caffe.Net) -> None:
    assert list(small._blob_names) == list(small.blobs) and list(small._blobs) == list(small.blobs.values())
    assert list(small._inputs) == [] and list(small._outputs) == [4]
    assert list(small._top_ids(0)) == [0, 1] and list(small._bottom_ids(3)) == [3, 1]
    assert list(small._blob_loss_weights) == [0, 0, 0, 0, 2]


def test_blob(deploy: caffe.Net) -> None:
    blob = deploy.blobs["data"]
    assert list(blob.shape) == [4, 3] and blob.count == 12
    assert (blob.num, blob.channels, blob.height, blob.width) == (4, 3, 1, 1)
    assert blob.data.dtype == blob.diff.dtype == np.float32 and blob.data.shape == blob.diff.shape == (4, 3)
    held = blob.data
    held[1, 2] = 7
    assert blob.data[1, 2] == 7, "the same memory"
    blob.reshape(2, 2, 1, 3)
    assert blob.data.shape == (2, 2, 1, 3) and (blob.num, blob.channels, blob.height, blob.width) == (2, 2, 1, 3)
    with pytest.raises(RuntimeError, match="GPU"):
        blob._gpu_data_ptr  # noqa: B018 - a property


def test_a_scalar_blob_is_an_array_without_axes(small: caffe.Net) -> None:
    loss = small.forward()["loss"]
    assert loss.shape == () and isinstance(loss, np.ndarray) and float(loss) > 0


def test_blobs_outlive_their_net(small: caffe.Net) -> None:
    params = [blob for blobs in small.params.values() for blob in blobs]
    blobs = list(small.blobs.values())
    expected = [blob.data.copy() for blob in params + blobs]
    del small
    gc.collect()
    for blob, values in zip(params + blobs, expected, strict=True):
        np.testing.assert_array_equal(blob.data, values)
        assert np.isfinite(blob.diff).all()


def test_parts_run_by_name_and_return_their_blobs(small: caffe.Net) -> None:
    rng = np.random.default_rng(0)
    weight, bias = (blob.data for blob in small.params["ip"])
    conv = rng.uniform(size=small.blobs["conv"].data.shape).astype(np.float32)
    small.blobs["conv"].data[:] = conv
    result = small.forward(start="ip", end="ip")
    assert list(result) == ["scores"] and np.shares_memory(result["scores"], small.blobs["scores"].data)
    np.testing.assert_allclose(result["scores"], conv.reshape(4, -1) @ weight.T + bias, rtol=1e-4, atol=1e-5)
    gradient = rng.uniform(size=(4, 3)).astype(np.float32)
    small.blobs["scores"].diff[:] = gradient
    result = small.backward(start="ip", end="ip")
    np.testing.assert_allclose(result["conv"].reshape(4, -1), gradient @ weight, rtol=1e-4, atol=1e-5)


def test_clear_param_diffs(small: caffe.Net) -> None:
    small.forward()
    small.backward()
    diff = small.params["conv"][0].diff
    assert diff.any()
    small.clear_param_diffs()
    assert not diff.any(), "the array held from before is the net's"


def test_kwargs_are_the_inputs_or_the_outputs(deploy: caffe.Net) -> None:
    x = np.arange(12).reshape(4, 3)
    out = deploy.forward(blobs=["ip"], data=x)
    assert set(out) == {"prob", "ip"}
    np.testing.assert_array_equal(deploy.blobs["data"].data, x)
    diffs = deploy.backward(diffs=["ip"], prob=np.ones((4, 2)))
    assert set(diffs) == {"data", "ip"}
    np.testing.assert_allclose(diffs["data"], 0, atol=1e-6)  # of a softmax: its outputs sum to 1
    for wrong in ({"data": x, "more": x}, {"prob": x}, {"data": x[:3]}):
        with pytest.raises(Exception):  # noqa: B017 - pycaffe raises Exception itself
            deploy.forward(**wrong)
    with pytest.raises(Exception):  # noqa: B017
        deploy.backward(data=x)
    with pytest.raises(KeyError, match="no blob 'probe'; did you mean 'prob'"):
        deploy.forward(blobs=["probe"])
    with pytest.raises(ValueError, match="no layer 'pro'"):
        deploy.forward(end="pro")


@pytest.mark.parametrize("items", [4, 8, 6, 1])
def test_forward_all_runs_batches_and_drops_what_fills_the_last(deploy: caffe.Net, items: int) -> None:
    x = np.random.default_rng(1).normal(size=(items, 3)).astype(np.float32)
    out = deploy.forward_all(blobs=["ip"], data=x)
    weight, bias = (blob.data for blob in deploy.params["ip"])
    ip = np.maximum(x @ weight.T + bias, 0)
    assert set(out) == {"prob", "ip"} and len(out["prob"]) == items
    np.testing.assert_allclose(out["ip"], ip, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["prob"], np.exp(ip) / np.exp(ip).sum(axis=1, keepdims=True), rtol=1e-5)
    assert not np.shares_memory(out["ip"], deploy.blobs["ip"].data)


def test_forward_backward_all(deploy: caffe.Net) -> None:
    rng = np.random.default_rng(2)
    x, dy = rng.normal(size=(7, 3)).astype(np.float32), rng.normal(size=(7, 2)).astype(np.float32)
    blobs, diffs = deploy.forward_backward_all(data=x, prob=dy)
    y = blobs["prob"]
    d_ip = (dy - (dy * y).sum(axis=1, keepdims=True)) * y
    weight, bias = (blob.data for blob in deploy.params["ip"])
    d_x = (d_ip * (x @ weight.T + bias > 0)) @ weight
    np.testing.assert_allclose(diffs["data"], d_x, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="equally many"):
        deploy.forward_all(data=x, prob=dy[:3])
    with pytest.raises(ValueError, match="neither an input"):
        deploy.forward_backward_all(dat=x)


def test_batch_pads_with_zeros(deploy: caffe.Net) -> None:
    batches = list(deploy._batch({"data": np.ones((6, 3))}))
    assert [batch["data"].shape for batch in batches] == [(4, 3), (4, 3)]
    assert batches[1]["data"][:2].all() and not batches[1]["data"][2:].any()


def test_an_output_without_items_has_one_value_for_each_batch(write) -> None:
    net = caffe.Net(
        write(
            DEPLOY.replace(
                'layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }',
                'layer { name: "sum" type: "Reduction" bottom: "ip" top: "sum" }',
            )
        ),
        caffe.TEST,
    )
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    out = net.forward_all(data=x, blobs=["ip"])
    np.testing.assert_allclose(out["sum"], out["ip"].reshape(2, -1).sum(axis=1), rtol=1e-5)


def test_set_input_arrays(write, deploy: caffe.Net) -> None:
    net = caffe.Net(
        write("""layer { name: "memory" type: "MemoryData" top: "x" top: "y"
                 memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 } }"""),
        caffe.TEST,
    )
    x, y = np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3), np.arange(4, dtype=np.float32)
    net.set_input_arrays(x, y)
    for start in (0, 2, 0):
        out = net.forward()
        np.testing.assert_array_equal(out["x"], x[start : start + 2])
        np.testing.assert_array_equal(out["y"].ravel(), y[start : start + 2])
    with pytest.raises(RuntimeError, match="multiple of batch_size"):
        net.set_input_arrays(x[:3], y[:3])
    with pytest.raises(RuntimeError, match="must be a MemoryData, 'data' is a Input"):
        deploy.set_input_arrays(x, y)


def test_callbacks_see_each_layer_before_and_after(deploy: caffe.Net) -> None:
    seen: list[tuple] = []
    before_relu = []
    deploy.before_forward(lambda i: seen.append(("before", i)))
    deploy.after_forward(lambda i: seen.append(("after", i)))
    deploy.after_forward(lambda i: before_relu.append(deploy.blobs["ip"].data.copy()) if i == 1 else None)
    x = np.random.default_rng(3).normal(size=(4, 3))
    deploy.forward(data=x)
    assert seen == [(when, i) for i in range(4) for when in ("before", "after")]
    weight, bias = (blob.data for blob in deploy.params["ip"])
    np.testing.assert_allclose(before_relu[0], x @ weight.T + bias, rtol=1e-4, atol=1e-6)
    seen.clear()
    deploy.before_backward(lambda i: seen.append(("before", i)))
    deploy.after_backward(lambda i: seen.append(("after", i)))
    deploy.backward(start="prob", end="relu")
    assert seen == [(when, i) for i in (3, 2) for when in ("before", "after")]


def test_both_constructors_read_what_save_wrote(small: caffe.Net, write, tmp_path: Path) -> None:
    small.save(str(tmp_path / "net.caffemodel"))
    small.save_hdf5(str(tmp_path / "net.h5"))
    prototxt = write(SMALL)
    loaded = caffe.Net(prototxt, caffe.TRAIN)
    loaded.load_hdf5(str(tmp_path / "net.h5"))
    copied = caffe.Net(prototxt, caffe.TEST)
    copied.copy_from(str(tmp_path / "net.caffemodel"))
    shared = caffe.Net(prototxt, caffe.TEST)
    shared.share_with(small)
    for net in (
        caffe.Net(prototxt, str(tmp_path / "net.caffemodel"), caffe.TEST),
        caffe.Net(prototxt, caffe.TEST, weights=str(tmp_path / "net.caffemodel")),
        caffe.Net(network_file=prototxt, phase=np.int64(caffe.TEST), weights=str(tmp_path / "net.h5")),
        loaded,
        copied,
        shared,
    ):
        for name, blobs in small.params.items():
            for mine, theirs in zip(blobs, net.params[name], strict=True):
                np.testing.assert_array_equal(mine.data, theirs.data)
    small.params["ip"][0].data[...] = 3
    assert (shared.params["ip"][0].data == 3).all() and not (copied.params["ip"][0].data == 3).any()


@pytest.mark.parametrize("arguments", [("missing.prototxt", caffe.TEST), ("missing.prototxt", "w.caffemodel", 1)])
def test_a_missing_file_is_a_runtime_error(arguments: tuple) -> None:
    with pytest.raises(RuntimeError, match=r"missing\.prototxt"):
        caffe.Net(*arguments)


def test_missing_weights_are_a_runtime_error(write, deploy: caffe.Net) -> None:
    with pytest.raises(RuntimeError, match=r"none\.caffemodel"):
        caffe.Net(write(DEPLOY), caffe.TEST, weights="none.caffemodel")
    for method in (deploy.copy_from, deploy.load_hdf5):
        with pytest.raises(RuntimeError, match="none"):
            method("none")


def included(name: str, *rules: str) -> str:
    include = " ".join(f"include {{ {rule} }}" for rule in rules)
    return f'layer {{ name: "{name}" type: "Power" bottom: "data" top: "{name}" {include} }}\n'


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["always", "low", "from0", "not A"]),
        ({"level": 1}, ["always", "high", "from0", "from1", "not A"]),
        ({"stages": ["A"]}, ["always", "low", "from0", "A", "A or B"]),
        ({"stages": ["B"]}, ["always", "low", "from0", "not A", "A or B"]),
        ({"stages": ["A", "B"]}, ["always", "low", "from0", "A", "A or B", "A and B"]),
    ],
)
def test_levels_and_stages(write, options: dict, names: list[str]) -> None:
    text = 'layer { name: "in" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 } } }\n'
    text += (
        included("always")
        + included("low", "min_level: 0 max_level: 0")
        + included("high", "min_level: 1 max_level: 1")
    )
    text += included("from0", "min_level: 0") + included("from1", "min_level: 1") + included("A", 'stage: "A"')
    text += included("not A", 'not_stage: "A"') + included("A or B", 'stage: "A"', 'stage: "B"')
    text += included("A and B", 'stage: "A" stage: "B"')
    net = caffe.Net(write(text), caffe.TEST, **options)
    assert [name for name in net.blobs if "data" not in name] == names


def test_reshape_follows_the_inputs(deploy: caffe.Net) -> None:
    deploy.blobs["data"].reshape(9, 3)
    deploy.reshape()
    assert deploy.blobs["prob"].data.shape == (9, 2)


def test_the_automatic_top_of_a_loss_layer_is_a_blob(write) -> None:
    net = caffe.Net(write(SMALL.replace('top: "loss" loss_weight: 2', "")), caffe.TRAIN)
    assert net.top_names["loss"] == ["(automatic)"] and net.outputs == []
    assert net.forward(end="loss")["(automatic)"] > 0 and net.blob_loss_weights["(automatic)"] == 1


def test_users_hang_attributes_on_nets_and_layers(small: caffe.Net) -> None:
    small.name = "vgg16"
    small.roidb = small.layers[0].roidb = [1]
    assert small.name == "vgg16" and small.layers[0].roidb is small.roidb


def test_blobvec(deploy: caffe.Net) -> None:
    vector = deploy.params["ip"]
    assert len(vector) == 2 and [blob.data.shape for blob in vector] == [(2, 3), (2,)]
    assert vector[0] is deploy.layers[1].blobs[0] is deploy.layer_dict["ip"].blobs[0]
    vector[0].data[...] = 4
    assert (deploy.params["ip"][0].data == 4).all()
