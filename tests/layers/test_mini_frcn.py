"""A small Fast R-CNN: all layers at once, forward and backward, against what Caffe computed."""

from __future__ import annotations

import numpy as np

import caffe_lite
from caffe_lite.gradient_check import check_net
from tests.layers.layer_case import GOLDEN, check_golden


def test_golden(device):
    check_golden("mini_frcn")


def test_gradients_of_each_layer(device):
    net = caffe_lite.Net(str(GOLDEN / "mini_frcn.prototxt"), caffe_lite.TRAIN, dtype="float64")
    recorded = np.load(GOLDEN / "mini_frcn.npz")
    for key in recorded:
        if key.startswith("in:"):
            net.blobs[key[3:]].data[...] = recorded[key]
        elif key.startswith("param:"):
            _, layer, index = key.split(":")
            net.params[layer][int(index)].data[...] = recorded[key]
    rows = check_net(net)
    assert {row.layer for row in rows} >= {"conv1", "pool1", "norm1", "roi_pool", "fc6", "loss_cls", "loss_bbox"}
    wrong = [str(row) for row in rows if row.verdict not in ("ok", "by rule")]
    assert not wrong, "\n".join(wrong)
    # Reversed regions, and probabilities that are zero in float32, are among the recorded inputs.
    assert {row.layer for row in rows if row.verdict == "by rule"} == {"roi_pool", "loss_cls"}
