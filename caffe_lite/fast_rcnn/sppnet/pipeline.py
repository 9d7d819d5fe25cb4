"""SPPnet from an imdb to a model: features, fine-tuning behind them, SVMs, box regressors."""

from __future__ import annotations

import os
from typing import Any

import caffe_lite
from caffe_lite.data.roi_data_layer.roidb import prepare_roidb
from caffe_lite.fast_rcnn.rcnn.feature_cache import cache_last, cache_pooled
from caffe_lite.fast_rcnn.rcnn.region_model import RegionModel, load_model, timed, train_heads
from caffe_lite.fast_rcnn.sppnet.finetune import finetune
from caffe_lite.fast_rcnn.sppnet.pyramid import PyramidFeatures
from caffe_lite.fast_rcnn.test import make_output_dir
from caffe_lite.models import resolve

DEFINITION = "models/mini/sppnet"


def train(
    imdb: Any,
    output_dir: str | os.PathLike[str],
    pretrained: str | os.PathLike[str],
    definition: str = DEFINITION,
    iters: int = 1000,
    progress: bool = True,
) -> RegionModel:
    """Train SPPnet on ``imdb`` in all its stages, and save it in ``output_dir``.

    ``pretrained``: weights of the convolutions, which stay as they are: those of a classification net, or of R-CNN's
    fine-tuned one. ``definition`` is a folder with solver.prototxt, whose train net has the inputs ``pooled`` and
    ``labels``, and test.prototxt, which gives the features; scales are cfg.TEST.SCALES. The stages' seconds are in
    ``RegionModel.seconds``: pooled features, fine-tune, last features, SVMs, box regressors. Proposals are computed
    before any of them. Draws come from the generators that the caller has seeded.
    """
    output_dir = make_output_dir(output_dir)
    prepare_roidb(imdb)
    seconds: dict[str, float] = {}
    features = make_features(definition)
    features.copy_from(pretrained, pooled_only=True)
    pooled = cache_pooled(output_dir, features, imdb, progress)
    seconds["pooled features"] = pooled.seconds
    with timed(seconds, "fine-tune"):
        solver = os.path.join(definition, "solver.prototxt")
        weights = finetune(solver, pooled, imdb, output_dir, iters, pretrained, progress)
    features.net.copy_from(weights)  # of the fully connected layers alone
    last = cache_last(output_dir, features, pooled, imdb, progress)
    seconds["last features"] = last.seconds
    model = train_heads(features, pooled, last, imdb, seconds, progress)
    model.save(output_dir)
    return model


def load(folder: str | os.PathLike[str], definition: str = DEFINITION) -> RegionModel:
    """The model that ``train`` saved in ``folder``; cfg.TEST.SCALES must be as in training."""
    return load_model(folder, make_features(definition))


def make_features(definition: str) -> PyramidFeatures:
    """The features of ``definition``'s test.prototxt, at the scales that cfg says now."""
    net = caffe_lite.Net(resolve(os.path.join(definition, "test.prototxt")), caffe_lite.TEST)
    return PyramidFeatures(net)
