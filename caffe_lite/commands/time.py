"""Time each layer of a net, forward and backward."""

from __future__ import annotations

from typing import Any

from caffe_lite.commands._net import add_net_options, build_net
from caffe_lite.console import choose_device

EXAMPLES = """examples:
  caffe-lite time --model deploy.prototxt --iterations 10 --phase TEST
  caffe-lite time -model models/VGG16/test.prototxt --phase TEST --explain
  caffe-lite time -model train_val.prototxt -gpu 0
"""


def add_arguments(parser: Any) -> None:
    add_net_options(parser, weights_required=False)
    parser.add_argument("--phase", "-phase", choices=("TRAIN", "TEST"), default="TRAIN", help="default: TRAIN")
    parser.add_argument("--explain", action="store_true", help="say how each convolution is computed, and why")


def run(args: Any) -> None:
    import caffe_lite
    from caffe_lite import glog, timing

    with glog.logging_to():
        choose_device(args)
        net = build_net(args, getattr(caffe_lite, args.phase))
        timing.log_timing(timing.measure(net, args.iterations), args.iterations)
    if args.explain:
        print(timing.explain(net))
