"""Score a model: the mean of its outputs over some batches."""

from __future__ import annotations

from typing import Any

from caffe_lite.commands._net import add_net_options, build_net
from caffe_lite.console import choose_device

EXAMPLES = """examples:
  caffe-lite test --model train_val.prototxt --weights net.caffemodel --iterations 100
  caffe-lite test -model train_val.prototxt -weights net.caffemodel -gpu 0

The prototxt has a data layer; as many images are seen as iterations times its batch size.
"""
OWN_QUIET = True


def add_arguments(parser: Any) -> None:
    add_net_options(parser, weights_required=True)
    parser.add_argument("--quiet", action="store_true", help="only the means")


def run(args: Any) -> None:
    import caffe_lite
    from caffe_lite import glog
    from caffe_lite.scoring import score

    with glog.logging_to():
        choose_device(args)
        score(build_net(args, caffe_lite.TEST), args.iterations, each_batch=not args.quiet)
