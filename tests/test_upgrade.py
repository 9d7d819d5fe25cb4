"""Old nets and solvers become what Caffe's own upgrade makes of them."""

from __future__ import annotations

import pytest

from caffe_lite import prototxt, upgrade
from caffe_lite.errors import NetError, SolverError
from caffe_lite.proto import caffe_pb2


def read(text, message_class=caffe_pb2.NetParameter):
    message = message_class()
    return message, prototxt.parse(text, message, "n.prototxt")


def upgraded(text):
    message, positions = read(text)
    upgrade.upgrade_net(message, positions)
    return message


def same(old, new):
    assert prototxt.write(upgraded(old)) == prototxt.write(read(new)[0])


def test_a_net_of_today_is_left_alone():
    text = """name: 'n' layer { name: 'a' type: 'BatchNorm' param { lr_mult: 1 } }
              layer { type: 'Data' data_param { scale: 2 } }"""
    message, positions = read(text)
    assert upgrade.upgrade_net(message, positions) is positions
    assert message == read(text)[0]


# ---- V1


def test_v1_layer_becomes_a_v2_layer():
    same(
        """
        name: "n" force_backward: true
        layers {
          name: "conv1" type: CONVOLUTION bottom: "data" bottom: "more" top: "conv1"
          blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
          include { phase: TRAIN } exclude { stage: "s" } loss_weight: 0.5
          blobs { shape { dim: 2 } data: [1, 2] }
          convolution_param { num_output: 96 kernel_size: 11 stride: 4 weight_filler { type: "gaussian" std: 0.01 } }
        }
        layers { name: "loss" type: SOFTMAX_LOSS bottom: "conv1" bottom: "label" loss_param { ignore_label: 3 } }
        """,
        """
        name: "n" force_backward: true
        layer {
          name: "conv1" type: "Convolution" bottom: "data" bottom: "more" top: "conv1"
          param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
          include { phase: TRAIN } exclude { stage: "s" } loss_weight: 0.5
          blobs { shape { dim: 2 } data: [1, 2] }
          convolution_param { num_output: 96 kernel_size: 11 stride: 4 weight_filler { type: "gaussian" std: 0.01 } }
        }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv1" bottom: "label" loss_param { ignore_label: 3 } }
        """,
    )


def test_v1_parameter_lists_of_different_length():
    same(
        """layers { type: INNER_PRODUCT param: "w" param: "b" blob_share_mode: [PERMISSIVE]
                    blobs_lr: [1, 2, 3] weight_decay: 0 }""",
        """layer { type: "InnerProduct"
                   param { name: "w" share_mode: PERMISSIVE lr_mult: 1 decay_mult: 0 }
                   param { name: "b" lr_mult: 2 } param { lr_mult: 3 } }""",
    )


@pytest.mark.parametrize(
    ("enum", "type_name", "field"),
    [
        ("DATA", "Data", "data_param"),
        ("IMAGE_DATA", "ImageData", "image_data_param"),
        ("WINDOW_DATA", "WindowData", "window_data_param"),
    ],
)
def test_v1_data_layers_get_a_transform_param(enum, type_name, field):
    same(
        f"""layers {{ type: {enum} transform_param {{ scale: 9 mean_value: 7 }}
                     {field} {{ source: "s" scale: 0.5 mean_file: "m" crop_size: 227 mirror: true }} }}""",
        f"""layer {{ type: "{type_name}" {field} {{ source: "s" }}
                    transform_param {{ scale: 0.5 mean_file: "m" crop_size: 227 mirror: true mean_value: 7 }} }}""",
    )
    same(f"layers {{ type: {enum} {field} {{ }} }}", f"layer {{ type: '{type_name}' {field} {{ }} }}")


def test_v1_data_fields_of_another_type_stay():
    same("layers { type: RELU data_param { scale: 2 } }", "layer { type: 'ReLU' data_param { scale: 2 } }")


def test_v1_types():
    types = caffe_pb2.V1LayerParameter.LayerType
    assert set(upgrade.V1_TYPES) == set(types.keys())
    same("layers { type: NONE }", "layer { type: '' }")
    same("layers { name: 'typeless' }", "layer { name: 'typeless' }")
    names = [upgrade.V1_TYPES[name] for name in types.keys()]
    assert len(set(names)) == len(names)
    for name in types.keys():  # the letters never change, only case and underscores, but for one
        folded = {"SOFTMAX_LOSS": "softmaxwithloss", "NONE": ""}.get(name, name.replace("_", "").lower())
        assert upgrade.V1_TYPES[name].lower() == folded


def test_every_v1_field_has_a_place_in_v2():
    new = prototxt._fields_of(caffe_pb2.LayerParameter.DESCRIPTOR)
    special = {"layer", "type", *upgrade._PARAM_FIELDS}
    for name, field in prototxt._fields_of(caffe_pb2.V1LayerParameter.DESCRIPTOR).items():
        if name not in special:
            assert new[name][1:] == field[1:], name


def test_both_forms_in_one_net_are_refused():
    message, positions = read("layers { name: 'a' }\nlayer { name: 'b' }")
    with pytest.raises(NetError, match=r"^n\.prototxt:2:1: layer 'b' is written 'layer'.*same form"):
        upgrade.upgrade_net(message, positions)
    with pytest.raises(NetError, match="^layer 'b' is written"):
        upgrade.upgrade_net(message)


def test_old_forms_are_logged_as_by_caffe(caplog):
    caplog.set_level("INFO")
    for text, level in (
        ("layers { type: RELU }", "WARNING"),
        ("layers { type: DATA data_param { scale: 2 } }", "WARNING"),
        ("layers { layer { type: 'relu' } }", "WARNING"),
        ("input: 'x' input_shape { dim: 1 }", "INFO"),
        ("layer { type: 'BatchNorm' param { } param { } param { } }", "INFO"),
    ):
        caplog.clear()
        upgraded(text)
        assert caplog.records and {record.levelname for record in caplog.records} == {level}
        assert all(record.getMessage().startswith("n.prototxt: upgraded ") for record in caplog.records)
    caplog.clear()
    upgraded("layer { type: 'BatchNorm' param { lr_mult: 0 decay_mult: 0 } }")
    assert not caplog.records


# ---- inputs


def test_input_shape_becomes_the_first_layer():
    same(
        """input: "data" input_shape { dim: [1, 3, 8, 9] } input: "rois" input_shape { dim: 5 }
           layer { name: "a" } layer { name: "b" }""",
        """layer { name: "input" type: "Input" top: "data" top: "rois"
                   input_param { shape { dim: [1, 3, 8, 9] } shape { dim: 5 } } }
           layer { name: "a" } layer { name: "b" }""",
    )


def test_input_dim_becomes_the_first_layer():
    same(
        "input: 'x' input: 'y' input_dim: [1, 2, 3, 4, 5, 6, 7, 8] layers { name: 'a' type: RELU }",
        """layer { name: "input" type: "Input" top: "x" top: "y"
                   input_param { shape { dim: [1, 2, 3, 4] } shape { dim: [5, 6, 7, 8] } } }
           layer { name: "a" type: "ReLU" }""",
    )


def test_inputs_without_dims_are_dropped():
    same("input: 'x' layer { name: 'a' }", "layer { name: 'a' }")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("input: 'x'\ninput_dim: [1, 2, 3]", "n.prototxt:2:1: 1 input and 3 input_dim: give four"),
        ("input: 'x' input: 'y' input_shape { }", "n.prototxt:1:23: 2 input and 1 input_shape: give one"),
    ],
)
def test_inputs_with_the_wrong_number_of_dims(text, says):
    message, positions = read(text)
    with pytest.raises(NetError) as error:
        upgrade.upgrade_net(message, positions)
    assert str(error.value).startswith(says)


# ---- BatchNorm


def test_batch_norm_statistics_take_no_gradient():
    same(
        "layer { type: 'BatchNorm' param { lr_mult: 1 } param { name: 'v' } param { decay_mult: 2 } }",
        """layer { type: 'BatchNorm' param { lr_mult: 0 decay_mult: 0 } param { name: 'v' lr_mult: 0 decay_mult: 0 }
                   param { lr_mult: 0 decay_mult: 0 } }""",
    )
    for others in (
        "layer { type: 'BatchNorm' param { } param { } }",
        "layer { type: 'Scale' param { } param { } param { } }",
    ):
        same(others, others)


# ---- positions


def test_layers_keep_their_places():
    message, old = read("input: 'x'\nlayers { name: 'a' }\n layers { name: 'b' bottom: 'x' }\ninput_dim: [1, 1, 1, 1]")
    new = upgrade.upgrade_net(message, old)
    assert [part.name for part in message.layer] == ["input", "a", "b"]
    assert new.at(("layer", 0)) == "n.prototxt:1:1"
    assert new.at(("layer", 1)) == "n.prototxt:2:1" and new.at(("layer", 2)) == "n.prototxt:3:2"
    assert new.at(("layer", 2, "bottom", 0)) == "n.prototxt:3:21"
    assert old.at(("layers", 1)) == "n.prototxt:3:2"  # the old ones still hold for the message as it was


# ---- solvers


@pytest.mark.parametrize("old", ["SGD", "NESTEROV", "ADAGRAD", "RMSPROP", "ADADELTA", "ADAM"])
def test_solver_type(old):
    message, positions = read(f"base_lr: 1 solver_type: {old}", caffe_pb2.SolverParameter)
    new = upgrade.upgrade_solver(message, positions)
    assert new.type.upper() == old and not new.HasField("solver_type") and new.base_lr == 1
    assert upgrade.SOLVER_TYPES["ADADELTA"] == "AdaDelta" and upgrade.SOLVER_TYPES["NESTEROV"] == "Nesterov"


def test_a_solver_without_the_enum_is_left_alone():
    for text in ("", "type: 'Adam'"):
        message, _ = read(text, caffe_pb2.SolverParameter)
        assert upgrade.upgrade_solver(message) == read(text, caffe_pb2.SolverParameter)[0]


def test_both_solver_types_are_refused():
    message, positions = read("type: 'Adam'\nsolver_type: SGD", caffe_pb2.SolverParameter)
    with pytest.raises(SolverError, match=r"^n\.prototxt:2:1: solver_type: SGD and type: 'Adam' are both given"):
        upgrade.upgrade_solver(message, positions)
