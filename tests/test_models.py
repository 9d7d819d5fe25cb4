"""The shipped prototxts: they parse strictly, and are the nets of the paper."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import caffe_lite
from caffe_lite import models, prototxt, upgrade
from caffe_lite.data.config import cfg, cfg_from_file, preserved_cfg

NETS = ("CaffeNet", "VGG_CNN_M_1024", "VGG16", "mini")
ORIGINALS = NETS[:3]
TRAIN_ONLY = {"data", "loss_cls", "loss_bbox"}


def read(name: str) -> Any:
    param, positions = prototxt.read_net(str(models.path(name)))
    upgrade.upgrade_net(param, positions)
    return param


@pytest.mark.parametrize(
    ("net", "train", "test"), [("CaffeNet", 26, 24), ("VGG_CNN_M_1024", 26, 24), ("VGG16", 42, 40)]
)
def test_layer_counts_are_the_originals(net: str, train: int, test: int) -> None:
    assert len(prototxt.read_net(str(models.path(f"{net}/train.prototxt")))[0].layer) == train
    assert len(prototxt.read_net(str(models.path(f"{net}/test.prototxt")))[0].layer) == test


@pytest.mark.parametrize("net", NETS)
def test_train_and_test_have_the_same_trunk(net: str) -> None:
    """Weights pass from one to the other by layer name, so names, wiring and sizes must agree."""
    sides = []
    for phase in ("train", "test"):
        trunk = [p for p in read(f"{net}/{phase}.prototxt").layer if p.name not in TRAIN_ONLY | {"input", "cls_prob"}]
        for param in trunk:
            del param.param[:]
            for holder in (param.convolution_param, param.inner_product_param):
                holder.ClearField("weight_filler")
                holder.ClearField("bias_filler")
        sides.append([(p.name, p.type, list(p.bottom), list(p.top), p.SerializeToString()) for p in trunk])
    assert sides[0] == sides[1]


def test_caffenet_is_in_the_originals_order() -> None:
    names = [p.name for p in read("CaffeNet/train.prototxt").layer]
    assert " ".join(names) == (
        "data conv1 relu1 pool1 norm1 conv2 relu2 pool2 norm2 conv3 relu3 conv4 relu4 conv5 relu5 roi_pool5 "
        "fc6 relu6 drop6 fc7 relu7 drop7 cls_score bbox_pred loss_cls loss_bbox"
    )


def test_vgg_m_normalises_before_it_pools() -> None:
    names = [p.name for p in read("VGG_CNN_M_1024/test.prototxt").layer]
    assert names[1:9] == ["conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"]


@pytest.mark.parametrize("net", ORIGINALS)
def test_multipliers(net: str) -> None:
    """Weights 1/1, biases 2/0; frozen below conv2 (below conv3_1 for VGG16) with 0/0."""
    for layer in read(f"{net}/train.prototxt").layer:
        if layer.type not in ("Convolution", "InnerProduct"):
            assert not layer.param
            continue
        frozen = layer.name.startswith(("conv1", "conv2") if net == "VGG16" else "conv1")
        expected = [(0, 0), (0, 0)] if frozen else [(1, 1), (2, 0)]
        assert [(p.lr_mult, p.decay_mult) for p in layer.param] == expected, layer.name


@pytest.mark.parametrize("net", NETS)
def test_heads_and_losses(net: str) -> None:
    by_name = {p.name: p for p in read(f"{net}/train.prototxt").layer}
    classes = 7 if net == "mini" else 21
    assert by_name["data"].python_param.param_str == f"'num_classes': {classes}"
    assert by_name["cls_score"].inner_product_param.num_output == classes
    assert by_name["bbox_pred"].inner_product_param.num_output == 4 * classes
    assert by_name["cls_score"].inner_product_param.weight_filler.std == pytest.approx(0.01)
    assert by_name["bbox_pred"].inner_product_param.weight_filler.std == pytest.approx(0.001)
    assert list(by_name["loss_cls"].loss_weight) == list(by_name["loss_bbox"].loss_weight) == [1]
    assert list(by_name["loss_bbox"].bottom) == ["bbox_pred", "bbox_targets", "bbox_loss_weights"]


@pytest.mark.parametrize("net", NETS)
def test_spatial_scale_is_one_over_the_stride(net: str) -> None:
    param = read(f"{net}/test.prototxt")
    stride = 1
    for layer in param.layer:
        if layer.type == "Convolution":
            stride *= layer.convolution_param.stride[0] if layer.convolution_param.stride else 1
        elif layer.type == "Pooling":
            stride *= layer.pooling_param.stride
    assert next(p for p in param.layer if p.type == "ROIPooling").roi_pooling_param.spatial_scale == 1 / stride


@pytest.mark.parametrize("net", ORIGINALS)
def test_solver_is_the_originals(net: str) -> None:
    param, _ = prototxt.read_solver(str(models.path(f"{net}/solver.prototxt")))
    assert param.train_net == f"models/{net}/train.prototxt"
    assert param.snapshot_prefix == f"{net.lower()}_fast_rcnn"
    assert (param.lr_policy, param.stepsize, param.display, param.average_loss) == ("step", 30000, 20, 100)
    found = [param.base_lr, param.gamma, param.momentum, param.weight_decay]
    assert found == pytest.approx([0.001, 0.1, 0.9, 0.0005])
    assert param.HasField("snapshot") and param.snapshot == 0
    for unset in ("iter_size", "max_iter", "solver_mode", "net"):
        assert not param.HasField(unset)


# Up to fc7: VGG16's 138,357,544 and CaffeNet's 60,965,224 published parameters without fc8's 4,097,000.
TRUNK = {"CaffeNet": 56_868_224, "VGG_CNN_M_1024": 86_225_536, "VGG16": 134_260_544}


@pytest.mark.parametrize("net", ORIGINALS)
def test_parameter_counts(net: str) -> None:
    built = caffe_lite.Net(str(models.path(f"{net}/test.prototxt")), caffe_lite.TEST)
    counts = {name: sum(math.prod(b.shape) for b in blobs) for name, blobs in built.params.items()}
    width = 1024 if net == "VGG_CNN_M_1024" else 4096
    assert counts.pop("cls_score") == 21 * (width + 1)
    assert counts.pop("bbox_pred") == 84 * (width + 1)
    assert sum(counts.values()) == TRUNK[net]
    assert built.inputs == ["data", "rois"]
    assert built.outputs == ["bbox_pred", "cls_prob"]


def test_mini_settings_are_valid() -> None:
    with preserved_cfg():
        cfg_from_file(models.path("mini/mini.yml"))
        assert cfg.EXP_DIR == "mini"


def test_resolve_prefers_the_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "models/mini/train.prototxt"
    assert models.resolve(name) == models.path("mini/train.prototxt")
    mine = tmp_path / name
    mine.parent.mkdir(parents=True)
    mine.write_text("")
    assert models.resolve(name).resolve() == mine.resolve()
    assert models.resolve("models/mini/absent.prototxt") == Path("models/mini/absent.prototxt")
    assert models.resolve("mini/train.prototxt") == Path("mini/train.prototxt")
    with pytest.raises(FileNotFoundError, match="VGG16/test.prototxt"):
        models.path("VGG16/tset.prototxt")
