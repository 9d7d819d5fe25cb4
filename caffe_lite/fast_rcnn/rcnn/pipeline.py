"""R-CNN from an imdb to a model: fine-tuning, features, SVMs, box regressors."""

from __future__ import annotations

import os
from typing import Any

import caffe_lite
from caffe_lite.fast_rcnn.rcnn.feature_cache import cache_last, cache_pooled
from caffe_lite.fast_rcnn.rcnn.features import WindowFeatures
from caffe_lite.fast_rcnn.rcnn.finetune import finetune, window_layer
from caffe_lite.fast_rcnn.rcnn.region_model import RegionModel, load_model, timed, train_heads
from caffe_lite.fast_rcnn.test import make_output_dir
from caffe_lite.fast_rcnn.train import read_solver
from caffe_lite.models import resolve
from caffe_lite.solver_nets import train_net_param

DEFINITION = "models/mini/rcnn"


def train(
    imdb: Any,
    output_dir: str | os.PathLike[str],
    definition: str = DEFINITION,
    iters: int = 1000,
    pretrained: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> RegionModel:
    """Train R-CNN on ``imdb`` in all its stages, and save it in ``output_dir``.

    ``definition`` is a folder with solver.prototxt, whose train net has a WindowData layer, and test.prototxt, which
    gives the features of warped windows. ``pretrained``: weights to start from; random without. The stages' seconds
    are in ``RegionModel.seconds``: fine-tune, pooled features, last features, SVMs, box regressors. Proposals are
    computed before any of them. Draws come from the generators that the caller has seeded.
    """
    output_dir = make_output_dir(output_dir)
    _ = imdb.roidb
    seconds: dict[str, float] = {}
    with timed(seconds, "fine-tune"):
        solver = os.path.join(definition, "solver.prototxt")
        weights = finetune(solver, imdb, output_dir, iters, pretrained, progress)
    features = make_features(definition)
    features.copy_from(weights)
    pooled = cache_pooled(output_dir, features, imdb, progress)
    seconds["pooled features"] = pooled.seconds
    last = cache_last(output_dir, features, pooled, imdb, progress)
    seconds["last features"] = last.seconds
    model = train_heads(features, pooled, last, imdb, seconds, progress)
    model.save(output_dir)
    return model


def load(folder: str | os.PathLike[str], definition: str = DEFINITION) -> RegionModel:
    """The model that ``train`` saved in ``folder``."""
    return load_model(folder, make_features(definition))


def make_features(definition: str) -> WindowFeatures:
    """The features of ``definition``'s test.prototxt, windows warped as its train net's."""
    param, origin = read_solver(os.path.join(definition, "solver.prototxt"))
    windows = window_layer(train_net_param(param, origin)[0], origin)
    net = caffe_lite.Net(resolve(os.path.join(definition, "test.prototxt")), caffe_lite.TEST)
    return WindowFeatures(net, windows)
