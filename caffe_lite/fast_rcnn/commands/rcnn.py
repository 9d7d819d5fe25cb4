"""Train or test R-CNN, in its stages: fine-tuning, features, SVMs, box regressors."""

from __future__ import annotations

from typing import Any

from caffe_lite.fast_rcnn.commands._stages import add_stage_arguments, run_stages

EXAMPLES = """examples:
  the small net, on the data that fast-rcnn demo has made:
    fast-rcnn rcnn train --imdb synthetic_trainval --data output/demo/data-v2-3-320-80 --out output/rcnn
    fast-rcnn rcnn test --model output/rcnn --imdb synthetic_test --data output/demo/data-v2-3-320-80

  CaffeNet on VOC 2007, from ImageNet weights (the features take hundreds of gigabytes):
    fast-rcnn rcnn train --def models/CaffeNet/rcnn --weights CaffeNet.v2.caffemodel --iters 70000 --data ~/data

Needs scikit-learn: pip install 'caffe-lite[svm]'. Features stay in the output folder, so that a second run with the
same net does not compute them again.
"""


def add_arguments(parser: Any) -> None:
    add_stage_arguments(parser, "models/mini/rcnn")


def run(args: Any) -> None:
    run_stages(args, "rcnn")
