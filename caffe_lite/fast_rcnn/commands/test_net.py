"""Test a Fast R-CNN network."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from caffe_lite.fast_rcnn.commands._options import (
    add_dataset_options,
    add_proposals,
    add_settings,
    choose_proposals,
    load_test_net,
    set_up,
)

EXAMPLES = """examples:
  fast-rcnn test-net --def models/VGG16/test.prototxt --data ~/data \\
      --net output/default/voc_2007_trainval/vgg16_fast_rcnn_iter_40000.caffemodel
  fast-rcnn test-net --def my/test.prototxt --net my.caffemodel --imdb voc_2007_test --data my/data --comp

Prints the average precision of each class and saves all detections as detections.npz.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("--def", required=True, dest="prototxt", metavar="FILE", help="test.prototxt")
    parser.add_argument("--net", required=True, metavar="FILE", help="weights, a .caffemodel")
    add_dataset_options(parser, "voc_2007_test")
    add_proposals(parser)
    parser.add_argument("--comp", action="store_true", help="competition mode: keep the results files")
    parser.add_argument(
        "--wait", nargs="?", const=True, default=False, type=_truth, metavar="BOOL",
        help="wait until the --net file exists, looking every 10 s",
    )  # fmt: skip
    add_settings(parser)


def run(args: Any) -> None:
    set_up(args)
    from caffe_lite.data.config import get_output_dir
    from caffe_lite.data.factory import get_imdb
    from caffe_lite.fast_rcnn.detector import share_memory
    from caffe_lite.fast_rcnn.test import test_net

    if args.wait:
        _wait_for(args.net)
    imdb = get_imdb(args.imdb, data=args.data)
    choose_proposals(args, imdb)
    imdb.check_testable()
    imdb.competition_mode(args.comp)
    net = load_test_net(args)
    share_memory(net)
    output_dir = args.out or get_output_dir(imdb, net)
    test_net(net, imdb, output_dir)
    print(f"wrote {os.path.join(output_dir, 'detections.npz')}")


def _wait_for(path: str) -> None:
    while not os.path.exists(path):
        print(f"waiting for {path} to exist...", flush=True)
        time.sleep(10)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"must be True or False, got {text!r}")
    return text.lower() in ("true", "1")
