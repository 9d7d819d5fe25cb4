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


# Layers of train.prototxt and test.prototxt; None: there is no such file.
LAYERS = {
    "CaffeNet": (26, 24), "CaffeNet/no_bbox_reg": (24, 23),
    "CaffeNet/piecewise": (26, None), "CaffeNet/compressed": (None, 26),
    "VGG_CNN_M_1024": (26, 24), "VGG_CNN_M_1024/no_bbox_reg": (24, 23), "VGG_CNN_M_1024/coco": (24, 22),
    "VGG_CNN_M_1024/piecewise": (26, None), "VGG_CNN_M_1024/compressed": (None, 26),
    "VGG16": (42, 40), "VGG16/no_bbox_reg": (40, 39), "VGG16/coco": (40, 38),
    "VGG16/piecewise": (42, None), "VGG16/compressed": (None, 42),
    "VGG16/fc_only": (42, None), "VGG16/conv2_1": (42, None),
    "mini": (18, 16), "mini/no_bbox_reg": (16, 15), "mini/piecewise": (18, None), "mini/compressed": (None, 17),
}  # fmt: skip
TRAINED = [name for name, (train, _) in LAYERS.items() if train]
TESTED = [name for name, (_, test) in LAYERS.items() if test]


@pytest.mark.parametrize("name", LAYERS)
def test_layer_counts(name: str) -> None:
    """As the originals' (mini is ours); each folder holds these files and, to train, a solver."""
    counts = []
    for phase in ("train", "test"):
        file = models.path("mini/test.prototxt").parents[1] / name / f"{phase}.prototxt"
        counts.append(len(prototxt.read_net(str(file))[0].layer) if file.exists() else None)
    assert tuple(counts) == LAYERS[name]
    assert (file.parent / "solver.prototxt").exists() == (name in TRAINED)


@pytest.mark.parametrize("name", [name for name in TRAINED if "/" in name])
def test_a_variant_differs_from_its_net_only_in_what_it_is_for(name: str) -> None:
    """Same layers, wiring and sizes, but for heads that are absent, dropout, classes and multipliers."""
    net, variant = name.split("/")
    sides = []
    for folder in (net, name):
        layers = []
        for p in read(f"{folder}/train.prototxt").layer:
            del p.param[:]
            if p.name in ("data", "loss_cls") or (variant == "coco" and p.type in ("InnerProduct", "Dropout")):
                continue
            if variant != "no_bbox_reg" or "bbox" not in p.name:
                layers.append(p.SerializeToString(deterministic=True))
        sides.append(layers)
    assert sides[0] == sides[1]


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


def is_frozen(name: str, layer: str) -> bool:
    """Is a layer with weights not trained? By the original's rules, and the paper's Table 5 for conv2_1."""
    net, _, variant = name.partition("/")
    if variant == "piecewise":
        return layer != "bbox_pred"
    if variant == "fc_only":
        return layer.startswith("conv")
    if variant == "conv2_1":
        return layer.startswith("conv1")
    return layer.startswith(("conv1", "conv2") if net == "VGG16" else "conv1")


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in ("mini", "mini/no_bbox_reg")])
def test_multipliers(name: str) -> None:
    """Weights 1/1, biases 2/0; 0/0 for both where a layer is frozen."""
    for layer in read(f"{name}/train.prototxt").layer:
        if layer.type not in ("Convolution", "InnerProduct"):
            assert not layer.param
            continue
        expected = [(0, 0), (0, 0)] if is_frozen(name, layer.name) else [(1, 1), (2, 0)]
        assert [(p.lr_mult, p.decay_mult) for p in layer.param] == expected, layer.name


@pytest.mark.parametrize("name", TRAINED)
def test_heads_and_losses(name: str) -> None:
    by_name = {p.name: p for p in read(f"{name}/train.prototxt").layer}
    classes = 7 if name.startswith("mini") else 81 if name.endswith("coco") else 21
    assert by_name["data"].python_param.param_str == f"'num_classes': {classes}"
    assert by_name["cls_score"].inner_product_param.num_output == classes
    assert by_name["cls_score"].inner_product_param.weight_filler.std == pytest.approx(0.01)
    assert list(by_name["loss_cls"].loss_weight) == [0 if name.endswith("piecewise") else 1]
    if name.endswith("no_bbox_reg"):
        assert list(by_name["data"].top) == ["data", "rois", "labels"] and "bbox_pred" not in by_name
        return
    assert list(by_name["data"].top) == ["data", "rois", "labels", "bbox_targets", "bbox_loss_weights"]
    assert by_name["bbox_pred"].inner_product_param.num_output == 4 * classes
    assert by_name["bbox_pred"].inner_product_param.weight_filler.std == pytest.approx(0.001)
    assert list(by_name["loss_bbox"].loss_weight) == [1]
    assert list(by_name["loss_bbox"].bottom) == ["bbox_pred", "bbox_targets", "bbox_loss_weights"]


@pytest.mark.parametrize("name", [n for n in (*TRAINED, *TESTED) if not n.startswith("mini")])
def test_fillers_are_the_heads_alone(name: str) -> None:
    """All else is zero until weights are loaded, as in the original."""
    for phase in ("train", "test"):
        if LAYERS[name][phase == "test"] is None:
            continue
        for p in read(f"{name}/{phase}.prototxt").layer:
            holder = p.convolution_param if p.type == "Convolution" else p.inner_product_param
            is_head = p.name in ("cls_score", "bbox_pred")
            assert holder.HasField("weight_filler") == is_head == holder.HasField("bias_filler"), p.name


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


@pytest.mark.parametrize("name", [name for name in TRAINED if not name.startswith("mini")])
def test_solver_is_the_originals(name: str) -> None:
    param, _ = prototxt.read_solver(str(models.path(f"{name}/solver.prototxt")))
    assert param.train_net == f"models/{name}/train.prototxt"
    assert param.snapshot_prefix == f"{name.split('/')[0].lower()}_fast_rcnn"
    step = {"VGG16/coco": 160000, "VGG_CNN_M_1024/coco": 200000}.get(name, 30000)
    assert (param.lr_policy, param.stepsize, param.display, param.average_loss) == ("step", step, 20, 100)
    found = [param.base_lr, param.gamma, param.momentum, param.weight_decay]
    assert found == pytest.approx([0.001, 0.1, 0.9, 0.0005])
    assert param.HasField("snapshot") and param.snapshot == 0
    for unset in ("iter_size", "max_iter", "solver_mode", "net"):
        assert not param.HasField(unset)


# Up to fc7: VGG16's 138,357,544 and CaffeNet's 60,965,224 published parameters without fc8's 4,097,000.
TRUNK = {"CaffeNet": 56_868_224, "VGG_CNN_M_1024": 86_225_536, "VGG16": 134_260_544}


@pytest.mark.parametrize("name", [name for name in TESTED if not name.startswith("mini")])
def test_parameter_counts_and_output_shapes(name: str) -> None:
    net, _, variant = name.partition("/")
    built = caffe_lite.Net(str(models.path(f"{name}/test.prototxt")), caffe_lite.TEST)
    counts = {layer: sum(math.prod(b.shape) for b in blobs) for layer, blobs in built.params.items()}
    width = 1024 if net == "VGG_CNN_M_1024" else 4096
    classes = 81 if variant == "coco" else 21
    assert counts.pop("cls_score") == classes * (width + 1)
    outputs = {"cls_prob": (1, classes)}
    if variant != "no_bbox_reg":
        assert counts.pop("bbox_pred") == 4 * classes * (width + 1)
        outputs["bbox_pred"] = (1, 4 * classes)
    expected = TRUNK[net]
    if variant == "compressed":  # W (4096, in) and W (width, 4096) become t (in + out)
        pooled = built.blobs["pool5"].count
        assert counts["fc6_L"] == 1024 * pooled and counts["fc6_U"] == 4096 * 1024 + 4096
        expected += 1024 * (pooled + 4096) - 4096 * pooled + 256 * (4096 + width) - width * 4096
    assert sum(counts.values()) == expected
    assert built.inputs == ["data", "rois"]
    assert {blob: built.blobs[blob].shape for blob in built.outputs} == outputs


def test_regions_are_pooled_into_pool5() -> None:
    for net, side, channels in (("CaffeNet", 6, 256), ("VGG_CNN_M_1024", 6, 512), ("VGG16", 7, 512)):
        built = caffe_lite.Net(str(models.path(f"{net}/test.prototxt")), caffe_lite.TEST)
        assert built.blobs["pool5"].shape == (1, channels, side, side)


SCALES = (480, 576, 688, 864, 1200)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fc_only", {"EXP_DIR": "fc_only", "TRAIN.SNAPSHOT_INFIX": "fc_only"}),
        ("conv2_1", {"EXP_DIR": "conv2_1", "TRAIN.SNAPSHOT_INFIX": "conv2_1"}),
        (
            "multiscale",
            {
                "EXP_DIR": "multiscale", "TRAIN.SNAPSHOT_INFIX": "multiscale",
                "TRAIN.SCALES": SCALES, "TRAIN.MAX_SIZE": 2000, "TEST.SCALES": SCALES, "TEST.MAX_SIZE": 2000,
            },
        ),
        (
            "no_bbox_reg",
            {
                "EXP_DIR": "no_bbox_reg", "TRAIN.SNAPSHOT_INFIX": "no_bbox_reg",
                "TRAIN.BBOX_REG": False, "TEST.BBOX_REG": False,
            },
        ),
        ("piecewise", {"EXP_DIR": "piecewise", "TRAIN.SNAPSHOT_INFIX": "piecewise"}),
        ("svm", {"EXP_DIR": "svm", "TRAIN.USE_FLIPPED": False, "TEST.SVM": True}),
        ("coco", {"EXP_DIR": "coco_baseline", "TRAIN.SNAPSHOT_ITERS": 20000}),
    ],
)  # fmt: skip
def test_settings_of_the_experiments(name: str, expected: dict[str, Any]) -> None:
    """What a file sets, and that it sets nothing else."""
    with preserved_cfg():
        before = flat(cfg)
        cfg_from_file(models.path(f"cfgs/{name}.yml"))
        changed = {key: value for key, value in flat(cfg).items() if repr(value) != repr(before[key])}
    assert changed == expected


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """{"TRAIN.SCALES": ..., ...}"""
    found = {}
    for key, value in settings.items():
        found.update(flat(value, f"{key}.") if isinstance(value, dict) else {prefix + key: value})
    return found


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
