"""Train or test SPPnet, in its stages: features, fine-tuning, SVMs, box regressors."""

from __future__ import annotations

from typing import Any

from caffe_lite.errors import DataError
from caffe_lite.fast_rcnn.commands._stages import add_stage_arguments, run_stages

EXAMPLES = """examples:
  the small net, its convolutions those of the R-CNN that fast-rcnn rcnn train has written:
    fast-rcnn sppnet train --weights output/rcnn/features.caffemodel --cfg models/mini/sppnet/sppnet.yml \\
        --imdb synthetic_trainval --data output/demo/data-v2-3-320-80 --out output/sppnet
    fast-rcnn sppnet test --model output/sppnet --cfg models/mini/sppnet/sppnet.yml \\
        --imdb synthetic_test --data output/demo/data-v2-3-320-80

  CaffeNet on VOC 2007, from ImageNet weights, at the paper's five scales:
    fast-rcnn sppnet train --def models/CaffeNet/sppnet --weights CaffeNet.v2.caffemodel --iters 40000 \\
        --cfg models/cfgs/sppnet.yml --data ~/data

Needs scikit-learn: pip install 'caffe-lite[svm]'. Features stay in the output folder, so that a second run with the
same net does not compute them again.
"""


def add_arguments(parser: Any) -> None:
    add_stage_arguments(parser, "models/mini/sppnet")


def run(args: Any) -> None:
    if args.action == "train" and args.weights is None:
        raise DataError("train: --weights: give the weights of the convolutions, which SPPnet does not train")
    run_stages(args, "sppnet")
