"""What ``classify`` and ``detect`` share: the net and how images are prepared for it, with Caffe's flags."""

from __future__ import annotations

import argparse
from typing import Any

from caffe_lite.console import add_compute_option, check_compute, positive

ILSVRC_MEAN = (104.00698793, 116.66876762, 122.67891434)  # B, G, R: the mean of ILSVRC 2012's training images
DEFAULT_NET = "models/classification/CaffeNet/deploy.prototxt"


def add_preparation_options(parser: Any) -> None:
    """Caffe's flags of both commands, for :func:`build` and :func:`preparation`."""
    net = parser.add_argument_group("net")
    net.add_argument(
        "--model_def", default=DEFAULT_NET, metavar="FILE", help=f"deploy.prototxt (default: {DEFAULT_NET})"
    )
    net.add_argument("--pretrained_model", required=True, metavar="FILE", help="its weights, a .caffemodel")
    net.add_argument("--gpu", action="store_true", help="use the GPU (default: the CPU)")
    add_compute_option(net)
    net.add_argument("--threads", type=positive, metavar="N", help="threads that compute (default: the processors)")
    images = parser.add_argument_group("preparation of images; an empty value '' leaves a step out")
    images.add_argument(
        "--mean_file", metavar="FILE",
        help="mean to subtract, .npy or .binaryproto (default: ILSVRC 2012's by channel, 104.007 116.669 122.679)",
    )  # fmt: skip
    images.add_argument("--input_scale", type=float, metavar="X", help="factor after the mean is subtracted")
    images.add_argument("--raw_scale", type=float, default=255.0, metavar="X", help="factor before (default: 255)")
    images.add_argument(
        "--channel_swap", type=integers, default=(2, 1, 0), metavar="N,N,N", help="order of channels (default: 2,1,0)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar; errors only")


def integers(text: str) -> tuple[int, ...] | None:
    """An argparse type: whole numbers with commas between them, None for an empty text."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else None
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers with commas between them, got {text!r}") from None


def preparation(args: Any, mean_of_channels: bool = False) -> dict[str, Any]:
    """The settings of Classifier and Detector that the options give.

    ``mean_of_channels``: of a mean image each channel's mean is taken, since windows have any size.
    """
    return {
        "mean": _mean(args.mean_file, mean_of_channels),
        "input_scale": args.input_scale,
        "raw_scale": args.raw_scale,
        "channel_swap": args.channel_swap,
    }


def _mean(path: str | None, of_channels: bool) -> Any:
    import numpy as np

    from caffe_lite.weights import read_mean

    if path is None:
        return np.array(ILSVRC_MEAN)
    if not path:
        return None
    mean = read_mean(path)
    mean = mean[0] if mean.ndim == 4 else mean  # a .binaryproto has (1, C, H, W)
    return mean.mean(axis=(1, 2)) if of_channels and mean.ndim == 3 else mean


def build(make: Any, args: Any, **settings: Any) -> Any:
    """``make``, which is Classifier or Detector, on the net, weights and device of the options."""
    import caffe_lite
    from caffe_lite import models
    from caffe_lite.errors import ShapeError

    check_compute(args.compute, args.gpu)
    if args.gpu:
        caffe_lite.set_compute(args.compute)
        caffe_lite.set_mode_gpu()
    if args.threads is not None:
        caffe_lite.set_num_threads(args.threads)
    try:
        return make(models.resolve(args.model_def), args.pretrained_model, **settings)
    except ShapeError as error:
        if not str(error).startswith(("the mean of", "channel swap of")):
            raise
        raise ShapeError(f"{error}; see --mean_file and --channel_swap, '' leaves either out") from error
