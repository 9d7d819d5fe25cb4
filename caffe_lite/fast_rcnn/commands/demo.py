"""Make data, train, test and draw, all by itself."""

from __future__ import annotations

from typing import Any

from caffe_lite.console import add_device_options, choose_device, positive

EXAMPLES = """example:
  fast-rcnn demo

Takes a few minutes on two cores. Everything is put into output/: the weights, the drawn detections,
the loss curve. Run again, it prints the same numbers.
"""


def add_arguments(parser: Any) -> None:
    add_device_options(parser, threads="1")
    parser.add_argument("--out", default="output", metavar="DIR", help="output folder (default: output)")
    parser.add_argument("--seed", type=int, metavar="N", help="another dataset and other draws (default: 3)")
    parser.add_argument("--iters", type=positive, metavar="N", help="training iterations")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE", help="settings, as of train-net")


def run(args: Any) -> None:
    choose_device(args)
    from caffe_lite.fast_rcnn.demo import run_demo

    run_demo(args.out, args.seed, args.iters, settings=args.set, num_threads=args.threads or 1)
