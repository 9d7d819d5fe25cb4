"""Nets of 2013: padding layers, one message for all types, V0's names; what becomes of them is Caffe's rule."""

from __future__ import annotations

import pytest

from caffe_lite import prototxt, upgrade, upgrade_v0
from caffe_lite.errors import NetError
from caffe_lite.proto import caffe_pb2

# The ImageNet net of 2012 as it was written in 2013, its repetitive middle left out.
IMAGENET_2013 = """
name: "CaffeNet"
layers {
  layer { name: "data" type: "data" source: "train-leveldb" meanfile: "mean.binaryproto"
          batchsize: 256 cropsize: 227 mirror: true scale: 0.5 rand_skip: 3 }
  top: "data" top: "label"
}
layers {
  layer { name: "conv1" type: "conv" num_output: 96 kernelsize: 11 stride: 4
          weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" value: 0. }
          blobs_lr: 1. blobs_lr: 2. weight_decay: 1. weight_decay: 0. }
  bottom: "data" top: "conv1"
}
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: MAX kernelsize: 3 stride: 2 } bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 5 alpha: 0.0001 beta: 0.75 } bottom: "pool1" top: "norm1" }
layers { layer { name: "pad2" type: "padding" pad: 2 } bottom: "norm1" top: "pad2" }
layers {
  layer { name: "conv2" type: "conv" num_output: 256 group: 2 kernelsize: 5 biasterm: false }
  bottom: "pad2" top: "conv2"
}
layers { layer { name: "pad3" type: "padding" pad: 1 } bottom: "conv2" top: "pad3" }
layers { layer { name: "pool3" type: "pool" pool: AVE kernelsize: 3 } bottom: "pad3" top: "pool3" }
layers { layer { name: "fc6" type: "innerproduct" num_output: 4096 } bottom: "pool3" top: "fc6" }
layers { layer { name: "drop6" type: "dropout" dropout_ratio: 0.5 } bottom: "fc6" top: "fc6" }
layers { layer { name: "loss" type: "softmax_loss" } bottom: "fc6" bottom: "label" }
"""
IMAGENET_TODAY = """
name: "CaffeNet"
layer {
  name: "data" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.5 mean_file: "mean.binaryproto" crop_size: 227 mirror: true }
  data_param { source: "train-leveldb" batch_size: 256 rand_skip: 3 }
}
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 96 kernel_size: 11 stride: 4
    weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" value: 0 } }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 } }
layer {
  name: "conv2" type: "Convolution" bottom: "norm1" top: "conv2"
  convolution_param { num_output: 256 bias_term: false pad: 2 kernel_size: 5 group: 2 }
}
layer { name: "pool3" type: "Pooling" bottom: "conv2" top: "pool3" pooling_param { pool: AVE kernel_size: 3 pad: 1 } }
layer { name: "fc6" type: "InnerProduct" bottom: "pool3" top: "fc6" inner_product_param { num_output: 4096 } }
layer { name: "drop6" type: "Dropout" bottom: "fc6" top: "fc6" dropout_param { dropout_ratio: 0.5 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label" }
"""


def read(text):
    message = caffe_pb2.NetParameter()
    return message, prototxt.parse(text, message, "n.prototxt")


def upgraded(text):
    message, positions = read(text)
    report = upgrade.UpgradeReport()
    upgrade.upgrade_net(message, positions, report)
    return message, report.lost


def refused(text):
    message, positions = read(text)
    with pytest.raises(NetError) as error:
        upgrade.upgrade_net(message, positions)
    return str(error.value)


def test_the_imagenet_net_of_2013():
    message, lost = upgraded(IMAGENET_2013)
    assert prototxt.write(message) == prototxt.write(read(IMAGENET_TODAY)[0])
    assert lost == []


def test_the_same_from_a_binary_file():
    binary = caffe_pb2.NetParameter.FromString(read(IMAGENET_2013)[0].SerializeToString())
    upgrade.upgrade_net(binary)
    assert binary == read(IMAGENET_TODAY)[0]


def test_what_stands_outside_the_layers_is_kept():
    message, _ = upgraded(
        """input: "x" input_dim: [1, 2, 3, 4] force_backward: true state { phase: TRAIN stage: "s" }
           layers { layer { name: "a" type: "relu" } bottom: "x" top: "y" }"""
    )
    assert message.force_backward and message.state.stage == ["s"]
    assert [layer.type for layer in message.layer] == ["Input", "ReLU"]
    assert list(message.layer[0].input_param.shape[0].dim) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("type_name", "given", "expected"),
    [
        ("window_data", "source: 's' batchsize: 8", "window_data_param { source: 's' batch_size: 8 }"),
        (
            "window_data",
            "det_fg_threshold: 0.6 det_bg_threshold: 0.4 det_fg_fraction: 0.3 det_context_pad: 16 det_crop_mode: 'square'",
            """window_data_param { fg_threshold: 0.6 bg_threshold: 0.4 fg_fraction: 0.3 context_pad: 16
               crop_mode: 'square' }""",
        ),
        (
            "images",
            "source: 's' batchsize: 8 rand_skip: 2 shuffle_images: true new_height: 5 new_width: 6",
            "image_data_param { source: 's' batch_size: 8 rand_skip: 2 shuffle: true new_height: 5 new_width: 6 }",
        ),
        ("hdf5_data", "source: 's' batchsize: 8", "hdf5_data_param { source: 's' batch_size: 8 }"),
        ("hdf5_output", "hdf5_output_param { file_name: 'f' }", "hdf5_output_param { file_name: 'f' }"),
        ("infogain_loss", "source: 's'", "infogain_loss_param { source: 's' }"),
        ("concat", "concat_dim: 0", "concat_param { concat_dim: 0 }"),
        ("lrn", "k: 2", "lrn_param { k: 2 }"),
        ("pool", "pool: STOCHASTIC pad: 3", "pooling_param { pool: STOCHASTIC pad: 3 }"),
        ("innerproduct", "biasterm: false", "inner_product_param { bias_term: false }"),
        ("conv", "pad: 3", "convolution_param { pad: 3 }"),
        ("images", "meanfile: 'm' cropsize: 5 mirror: true scale: 2",
         "transform_param { mean_file: 'm' crop_size: 5 mirror: true scale: 2 }"),
    ],
)  # fmt: skip
def test_each_parameter_has_its_place(type_name, given, expected):
    message, lost = upgraded(f"layers {{ layer {{ type: '{type_name}' {given} }} }}")
    layer = message.layer[0]
    layer.ClearField("type")
    assert message == read(f"layer {{ {expected} }}")[0] and lost == []


def test_every_field_of_v0_is_treated():
    known = {"name", "type", "hdf5_output_param", *upgrade_v0._KEPT, *upgrade_v0._FIELDS, *upgrade_v0._TRANSFORM_FIELDS}
    assert known == set(caffe_pb2.V0LayerParameter.DESCRIPTOR.fields_by_name)


def test_every_type_of_v0():
    assert len(upgrade_v0.V0_TYPES) == 24
    for name, kind in upgrade_v0.V0_TYPES.items():
        message, _ = upgraded(f"layers {{ layer {{ type: '{name}' }} }}")
        assert message.layer[0].type == upgrade.V1_TYPES[kind.v1]
        renamed = {"conv": "convolution", "images": "image_data", "innerproduct": "inner_product", "pool": "pooling"}
        assert kind.v1.lower() == renamed.get(name, name)


def test_parameters_that_a_type_does_not_have_are_left_out_and_told(caplog):
    message, lost = upgraded(
        "layers { layer { name: 'r' type: 'relu'\n num_output: 3 } }\nlayers { layer { type: 'conv' new_num: 1 } }"
    )
    assert [layer.type for layer in message.layer] == ["ReLU", "Convolution"]
    assert not message.layer[0].HasField("inner_product_param")
    assert lost == [
        "n.prototxt:2:2: layer 'r' (relu): this type has no num_output; left out",
        "n.prototxt:3:31: layer '' (conv): this type has no new_num; left out",
    ]
    message, positions = read("layers { layer { name: 'r' type: 'relu' num_output: 3 } }")
    upgrade.upgrade_net(message, positions)
    assert "this type has no num_output" in caplog.text and "layers of 2013" in caplog.text


def test_trained_parameters_are_kept():
    message, _ = upgraded(
        "layers { layer { name: 'ip' type: 'innerproduct' blobs { num: 1 channels: 1 height: 1 width: 2 data: [1, 2] } } }"
    )
    assert list(message.layer[0].blobs[0].data) == [1, 2]


# ---- padding


def conv(name, bottom, kind="conv", more=""):
    return f"layers {{ layer {{ name: '{name}' type: '{kind}' {more} }} bottom: '{bottom}' top: '{name}' }}\n"


def test_padding_goes_to_every_layer_that_reads_it_and_replaces_its_pad():
    message, _ = upgraded(
        "input: 'x'\n" + conv("p", "x", "padding", "pad: 2") + conv("a", "p", more="pad: 9") + conv("b", "p", "pool")
    )
    assert [layer.name for layer in message.layer] == ["a", "b"]
    assert all(list(layer.bottom) == ["x"] for layer in message.layer)
    assert list(message.layer[0].convolution_param.pad) == [2] and message.layer[1].pooling_param.pad == 2


def test_the_last_layer_that_makes_a_blob_counts():
    message, _ = upgraded(
        "input: 'x'\n"
        + conv("p", "x", "padding", "pad: 2")
        + "layers { layer { name: 'r' type: 'relu' } bottom: 'x' top: 'p' }\n"
        + conv("a", "p")
    )
    assert list(message.layer[1].bottom) == ["p"] and not message.layer[1].convolution_param.pad


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (conv("p", "x", "padding") + conv("r", "p", "relu"), "3:1: layer 'r' (relu) reads padding layer 'p': only conv and pool"),
        (conv("p", "x", "padding") + conv("q", "p", "padding"), "3:1: layer 'q' (padding) reads padding layer 'p'"),
        (conv("p", "x", "padding") + "layers { layer { name: 'c' type: 'conv' } bottom: 'p' bottom: 'x' }",
         "3:1: layer 'c', which is padded, must have one bottom, got 2"),
        ("layers { layer { name: 'p' type: 'padding' } bottom: 'x' bottom: 'x' top: 'p' }\n" + conv("c", "p"),
         "3:1: padding layer 'p' must have one bottom, got 2"),
        ("layers { layer { name: 'p' type: 'padding' } bottom: 'x' top: 'p' top: 'q' }\n" + conv("c", "p"),
         "3:1: padding layer 'p' must have one top, got 2"),
        (conv("c", "y"), "2:44: layer 'c': unknown bottom 'y'"),
        (conv("c", "x", "convolution"), "2:28: layer 'c': unknown V0 type 'convolution'"),
        (conv("p", "x", "padding", "blobs { }"), "2:1: padding layer 'p' has parameter blobs"),
    ],
)  # fmt: skip
def test_what_caffe_refuses(text, says):
    assert refused("input: 'x'\n" + text).startswith(f"n.prototxt:{says}")


def test_unknown_types_have_a_near_miss():
    assert refused("layers { layer { type: 'pooll' } }").endswith("did you mean 'pool'?")


def test_both_forms_in_one_net_are_refused():
    mixed = "layers { layer { name: 'a' type: 'relu' } }\nlayers { name: 'b' type: RELU }"
    assert refused(mixed).startswith("n.prototxt:2:1: layer 'b' has name and type in a net of 2013")
    assert refused("layers { layer { name: 'a' type: 'relu' } blobs_lr: 1 }").startswith(
        "n.prototxt:1:1: layer 'a' has blobs_lr"
    )
    assert "has no layer { }" in refused("layers { layer { type: 'relu' } }\nlayers { bottom: 'x' }")


def test_layers_keep_their_places():
    text = "input: 'x'\n" + conv("p", "x", "padding") + conv("c", "p") + conv("r", "c", "relu")
    message, old = read(text)
    new = upgrade.upgrade_net(message, old)
    assert [layer.name for layer in message.layer] == ["c", "r"]
    assert new.at(("layer", 0)) == "n.prototxt:3:1" and new.at(("layer", 1)) == "n.prototxt:4:1"
