"""NetSpec: what is written in Python is the net that the prototxt says."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import caffe_lite as caffe
from caffe_lite import layers as L
from caffe_lite import net_spec, prototxt
from caffe_lite import params as P
from caffe_lite.proto import caffe_pb2


def lenet_tops():
    data, label = L.DummyData(
        shape=[dict(dim=[8, 1, 28, 28]), dict(dim=8)], transform_param=dict(scale=1 / 256), ntop=2
    )
    xavier = dict(type="xavier")
    conv = L.Convolution(data, kernel_size=5, num_output=20, weight_filler=xavier, param=[dict(lr_mult=1)] * 2)
    pool = L.Pooling(conv, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    ip1 = L.InnerProduct(pool, num_output=30, weight_filler=xavier)
    relu = L.ReLU(ip1, in_place=True)
    ip2 = L.InnerProduct(relu, num_output=10, weight_filler=xavier)
    return {
        "data": data, "label": label, "conv1": conv, "pool1": pool, "ip1": ip1, "relu1": relu, "ip2": ip2,
        "loss": L.SoftmaxWithLoss(ip2, label, loss_weight=0.5),
    }  # fmt: skip


def lenet_spec() -> caffe.NetSpec:
    n = caffe.NetSpec()
    for name, top in lenet_tops().items():
        n[name] = top
    return n


LENET = """
layer { name: "data" type: "DummyData" top: "data" top: "label" transform_param { scale: 0.00390625 }
        dummy_data_param { shape { dim: 8 dim: 1 dim: 28 dim: 28 } shape { dim: 8 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 } param { lr_mult: 1 }
        convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
        pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1"
        inner_product_param { num_output: 30 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
        inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" loss_weight: 0.5 }
"""


def parsed(text: str):
    message = caffe_pb2.NetParameter()
    prototxt.parse(text, message)
    return message


def build(proto, tmp_path, phase: int = caffe.TEST) -> caffe.Net:
    path = tmp_path / "net.prototxt"
    path.write_text(str(proto))
    return caffe.Net(str(path), phase)


def test_named_net_is_the_prototxt(tmp_path) -> None:
    assert lenet_spec().to_proto() == parsed(LENET)
    assert len(build(lenet_spec().to_proto(), tmp_path).layers) == 7


def test_attributes_items_and_their_order() -> None:
    n = caffe.NetSpec()
    n.b = L.Input(shape=dict(dim=[1]))
    n["a"] = L.ReLU(n.b)
    assert list(n.tops) == ["b", "a"] and n["b"] is n.b and n.a is n.tops["a"]
    n.c = n.a
    del n.c
    del n["a"]
    assert list(n.tops) == ["b"]
    with pytest.raises(KeyError):
        n.a  # noqa: B018
    assert list(copy.copy(n).tops) == ["b"]


def test_automatic_names_count_by_type(tmp_path) -> None:
    proto = lenet_tops()["loss"].to_proto()
    assert [layer.name for layer in proto.layer] == [
        "DummyData1", "Convolution1", "Pooling1", "InnerProduct1", "ReLU1", "InnerProduct2", "SoftmaxWithLoss1",
    ]  # fmt: skip
    assert list(proto.layer[0].top) == ["DummyData1", "DummyData2"]
    assert proto.layer[4].bottom == proto.layer[4].top == ["InnerProduct1"]
    assert proto == caffe.to_proto(lenet_tops()["loss"])
    assert len(build(proto, tmp_path).layers) == 7


def test_what_is_not_named_is_written_too_and_each_layer_once() -> None:
    n = caffe.NetSpec()
    hidden = L.Input(shape=dict(dim=[2]))
    n.y = L.Eltwise(hidden, hidden)
    n.z = L.Power(hidden, power=2)
    names = [(layer.name, list(layer.bottom)) for layer in n.to_proto().layer]
    assert names == [("Input1", []), ("y", ["Input1", "Input1"]), ("z", ["Input1"])]


def test_layers_without_tops(tmp_path) -> None:
    n = caffe.NetSpec()
    n.a, n.b = L.DummyData(shape=dict(dim=3), ntop=2)
    n.silence_a = L.Silence(n.a, ntop=0)
    n.silence_b = L.Silence(n.b, ntop=0)
    proto = n.to_proto()
    assert [layer.name for layer in proto.layer] == ["a", "silence_a", "silence_b"]
    assert build(proto, tmp_path).forward() == {}


def test_fields_go_to_the_types_parameters_or_to_the_layer() -> None:
    n = caffe.NetSpec()
    n.x = L.Input(shape=dict(dim=[1, 3]))
    n.crop = L.Python(n.x, module="m", layer="Crop", param_str="{}", loss_weight=2, name="mine", propagate_down=True)
    n.loss = L.SigmoidCrossEntropyLoss(n.x, n.crop, loss_param=dict(ignore_label=3), include=dict(phase=caffe.TRAIN))
    n.up = L.Deconvolution(n.x, convolution_param=dict(num_output=2, kernel_size=(4, 4), weight_filler={}))
    _, crop, loss, up = n.to_proto().layer
    assert (crop.python_param.layer, crop.python_param.param_str) == ("Crop", "{}")
    assert crop.name == "mine" and list(crop.top) == ["crop"] and list(crop.loss_weight) == [2]
    assert list(crop.propagate_down) == [True]
    assert loss.loss_param.ignore_label == 3 and loss.include[0].phase == caffe_pb2.TRAIN
    assert list(up.convolution_param.kernel_size) == [4, 4] and up.convolution_param.HasField("weight_filler")


def test_update_changes_a_layer() -> None:
    n = lenet_spec()
    n.update("pool1", dict(stride=3, pool=P.Pooling.AVE))
    pooling = n.to_proto().layer[2].pooling_param
    assert (pooling.stride, pooling.pool, pooling.kernel_size) == (3, caffe_pb2.PoolingParameter.AVE, 2)


def test_numpy_numbers_are_numbers() -> None:
    top = L.Convolution(
        L.Input(), num_output=np.int64(3), kernel_size=[np.int32(2)], weight_filler=dict(std=np.float32(1))
    )
    assert top.to_proto().layer[1].convolution_param.kernel_size == [2]


def test_a_deep_net_does_not_exhaust_the_stack() -> None:
    top = L.Input(shape=dict(dim=[1]))
    for _ in range(3000):
        top = L.Power(top)
    assert len(top.to_proto().layer) == 3001


def test_a_bottom_must_be_a_top() -> None:
    pair = L.DummyData(ntop=2)
    with pytest.raises(TypeError, match=r"^Silence input 0 is not a Top \(type is <class 'tuple'>\)$"):
        L.Silence(pair, ntop=0)
    L.Silence(*pair, ntop=0)
    n = caffe.NetSpec()
    n.pair = pair
    with pytest.raises(TypeError, match="'pair' is not a Top"):
        n.to_proto()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (
            dict(num_outputs=3),
            AttributeError,
            "neither convolution_param nor the layer has .*'num_outputs'; did you mean 'num_output'",
        ),
        (
            dict(weight_filler=dict(typ="xavier")),
            AttributeError,
            "FillerParameter has no field 'typ'; did you mean 'type'",
        ),
        (dict(num_output="many"), TypeError, "layer 'Convolution1' .*field 'num_output'"),
        (dict(num_output=-1), ValueError, "layer 'Convolution1' .*field 'num_output'"),
    ],
)
def test_a_wrong_field_is_named(fields: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        L.Convolution(L.Input(), **fields).to_proto()


def test_params_are_the_enums_of_the_messages() -> None:
    assert P.Pooling.MAX == 0 and P.Pooling.AVE == 1 and P.Eltwise.PROD == 0 and P.Data.LMDB == 1
    with pytest.raises(AttributeError, match="did you mean 'Pooling'"):
        P.Poling.MAX  # noqa: B018


def test_param_name_dict() -> None:
    names = net_spec.param_name_dict()
    assert {
        "InnerProduct": "inner_product",
        "HDF5Data": "hdf5_data",
        "ReLU": "relu",
        "LRN": "lrn",
    }.items() <= names.items()


def test_layers_are_functions_of_the_layers_package_too() -> None:
    top = L.ReLU(L.Input())
    assert isinstance(top, net_spec.Top) and top.fn.type_name == "ReLU" and top.fn.inputs[0].fn.type_name == "Input"
    with pytest.raises(AttributeError):
        L.no_such_module  # noqa: B018


def test_loss_weight_of_a_spec_reaches_the_net(tmp_path) -> None:
    assert build(lenet_spec().to_proto(), tmp_path, caffe.TRAIN).blob_loss_weights["loss"] == 0.5
