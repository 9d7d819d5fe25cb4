"""Compress a network's fully connected layers by truncated SVD."""

from __future__ import annotations

import argparse
import os
from typing import Any

from caffe_lite.console import positive
from caffe_lite.fast_rcnn.commands._options import add_settings, load_test_net, set_up

EXAMPLES = """examples:
  as the paper, fc6 to 1024 and fc7 to 256 singular values:
    fast-rcnn compress-net --def models/VGG16/test.prototxt --def-svd models/VGG16/compressed/test.prototxt \\
        --net output/default/voc_2007_trainval/vgg16_fast_rcnn_iter_40000.caffemodel

  any layers at any ranks, with mAP before and after, here on what fast-rcnn demo left:
    fast-rcnn compress-net --def models/mini/test.prototxt --cfg models/mini/mini.yml --layer fc6=48 \\
        --net output/demo/mini_fast_rcnn_iter_2000.caffemodel --imdb synthetic_test \\
        --data output/demo/data-v2-3-320-80

Writes NET_svd_LAYER_RANK.caffemodel, and the prototxt beside it where --layer says the ranks.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("--def", required=True, dest="prototxt", metavar="FILE", help="test.prototxt of the net")
    parser.add_argument("--net", required=True, metavar="FILE", help="weights, a .caffemodel")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--def-svd", dest="prototxt_svd", metavar="FILE", help="test.prototxt of the compressed net")
    what.add_argument(
        "--layer", action="append", type=_rank, metavar="NAME=RANK", help="a layer and its rank; may be repeated"
    )
    parser.add_argument("-o", "--out", metavar="DIR", help="output folder (default: that of --net)")
    parser.add_argument("--randomized", action="store_true", help="randomized SVD: faster, not quite as close")
    parser.add_argument("--rois", type=positive, default=2000, metavar="N", help="regions to time (default: 2000)")
    parser.add_argument("--imdb", metavar="NAME", help="dataset to test both nets on")
    parser.add_argument("--data", metavar="DIR", help="folder that holds the dataset (default: $CAFFE_LITE_DATA)")
    add_settings(parser)


def run(args: Any) -> None:
    set_up(args)
    from caffe_lite.fast_rcnn.compress import compress_net
    from caffe_lite.models import resolve

    ranks = dict(args.layer) if args.layer else None
    svd_file = resolve(args.prototxt_svd) if args.prototxt_svd else None
    made = compress_net(resolve(args.prototxt), args.net, ranks, svd_file, args.out, args.randomized)
    print(f"wrote {made.weights}")
    if svd_file is None:
        print(f"wrote {made.prototxt}")
    before = load_test_net(args)
    args.prototxt, args.net = made.prototxt, made.weights
    after = load_test_net(args)
    _report(made, before, after, args.rois)
    if args.imdb:
        _compare(before, after, args)


def _report(made: Any, before: Any, after: Any, regions: int) -> None:
    """Parameters, lost norm and time of each factored layer, before and after."""
    from caffe_lite.fast_rcnn.compress import layer_times
    from caffe_lite.fast_rcnn.report import table

    names = [factored.layer for factored in made.layers]
    old = layer_times(before, names, regions)
    new = layer_times(after, [name + suffix for name in names for suffix in ("_L", "_U")], regions)
    rows = [("layer", "rank", "parameters", "after", "lost norm", f"ms at {regions} RoIs", "after")]
    for f in made.layers:
        both = new[f"{f.layer}_L"] + new[f"{f.layer}_U"]
        rows.append(
            (f.layer, str(f.rank), f"{f.before:,}", f"{f.after:,}", f"{100 * f.lost:.1f} %",
             f"{1e3 * old[f.layer]:.1f}", f"{1e3 * both:.1f}")
        )  # fmt: skip
    rows.append(("whole net", "", f"{made.parameters[0]:,}", f"{made.parameters[1]:,}", "", "", ""))
    print(table(rows))


def _compare(before: Any, after: Any, args: Any) -> None:
    """mAP of both nets on --imdb."""
    from caffe_lite.data.factory import get_imdb
    from caffe_lite.data.voc_eval import mean_ap
    from caffe_lite.fast_rcnn.test import test_net

    found = []
    for net in (before, after):
        imdb = get_imdb(args.imdb, data=args.data)
        out = os.path.join(args.out, imdb.name, net.name) if args.out else None
        found.append(mean_ap(test_net(net, imdb, out)))
    print(f"mAP before {100 * found[0]:.1f} %, after {100 * found[1]:.1f} %")


def _rank(text: str) -> tuple[str, int]:
    name, _, rank = text.rpartition("=")
    if not name or not rank.isdigit() or int(rank) < 1:
        raise argparse.ArgumentTypeError(f"expected NAME=RANK, such as fc6=1024, got {text!r}")
    return name, int(rank)
