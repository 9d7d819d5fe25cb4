"""Fine-tuning of SPPnet: the fully connected layers learn to classify cached features of regions.

He et al. (2014), section 4.1: what lies below the pyramid is not trained. Rows are drawn from all images at once, by
``cfg.TRAIN``: BATCH_SIZE of them, FG_FRACTION foreground (overlap >= FG_THRESH) and the rest background (overlap in
[BG_THRESH_LO, BG_THRESH_HI)).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from caffe_lite.data.config import cfg
from caffe_lite.data.roi_data_layer.minibatch import sampling_indices
from caffe_lite.errors import DataError
from caffe_lite.fast_rcnn.rcnn.feature_cache import FeatureCache
from caffe_lite.fast_rcnn.rcnn.finetune import run_solver
from caffe_lite.fast_rcnn.train import check_num_classes, read_solver
from caffe_lite.solver_nets import train_net_param


def finetune(
    solver_prototxt: str | os.PathLike[str],
    pooled: FeatureCache,
    imdb: Any,
    output_dir: str,
    iters: int,
    pretrained: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> str:
    """Train for ``iters`` iterations on pooled features of ``imdb``'s prepared roidb; the path of the .caffemodel.

    The train net has the inputs ``pooled`` (n, P) and ``labels`` (n,). ``pretrained``: weights to start from.
    """
    param, origin = read_solver(solver_prototxt)
    check_num_classes(train_net_param(param, origin)[0], imdb.num_classes, param.train_net or origin)
    return run_solver(param, origin, output_dir, iters, pretrained, progress, feeder(pooled, imdb))


def feeder(pooled: FeatureCache, imdb: Any) -> Callable[[Any], None]:
    """A function that fills a net's ``pooled`` and ``labels`` with a new batch, foreground first.

    Draws from numpy's legacy generator, foreground then background, each without repetition if there are enough.

    Raises DataError if there is no foreground or no background.
    """
    overlaps = np.concatenate([entry["max_overlaps"] for entry in imdb.roidb])
    classes = np.concatenate([entry["max_classes"] for entry in imdb.roidb])
    fg, bg = sampling_indices(overlaps)
    if not len(fg) or not len(bg):
        raise DataError(
            f"{imdb.name}: {len(fg)} foreground and {len(bg)} background regions by TRAIN.FG_THRESH "
            f"{cfg.TRAIN.FG_THRESH} and TRAIN.BG_THRESH_LO, _HI {cfg.TRAIN.BG_THRESH_LO}, {cfg.TRAIN.BG_THRESH_HI}: "
            "a batch needs both"
        )
    count = cfg.TRAIN.BATCH_SIZE
    num_fg = int(np.round(cfg.TRAIN.FG_FRACTION * count))

    def fill(net: Any) -> None:
        chosen = [
            np.random.choice(rows, size=size, replace=size > len(rows))
            for rows, size in ((fg, num_fg), (bg, count - num_fg))
        ]
        rows = np.concatenate(chosen)
        net.blobs["pooled"].reshape(count, pooled.all.shape[1])
        net.blobs["labels"].reshape(count)
        net.blobs["pooled"].data[...] = pooled.all[rows]
        net.blobs["labels"].data[...] = np.where(np.arange(count) < num_fg, classes[rows], 0)

    return fill
