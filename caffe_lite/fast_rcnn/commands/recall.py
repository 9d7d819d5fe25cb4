"""Measure how well proposals cover the objects of a dataset."""

from __future__ import annotations

from typing import Any

from caffe_lite.console import positive
from caffe_lite.fast_rcnn.commands._options import add_proposal_options, proposal_options

EXAMPLES = """examples:
  fast-rcnn recall --imdb voc_2007_test --data ~/data --proposals ss --top 1000 2000
  fast-rcnn recall --imdb synthetic_test --data my/data --proposals ss gradient_edge_boxes dense --top 100 1000
  fast-rcnn recall --imdb voc_2007_test --data ~/data --proposals ss:2000 ss:2000+dense:2000 ss:2000+dense:45000

Prints a table of boxes an image, average recall (AR, over IoU 0.5 to 1) and recall at three overlaps,
and draws both as recall.png.
"""


def add_arguments(parser: Any) -> None:
    add_proposal_options(parser)
    parser.add_argument(
        "--proposals", nargs="+", default=["ss"], metavar="METHOD",
        help="ss, ss_quality, edge_boxes, gradient_edge_boxes, dense, nearest_dense; METHOD:COUNT; "
        "METHOD+METHOD (default: ss)",
    )  # fmt: skip
    parser.add_argument("--top", nargs="+", type=positive, metavar="N", help="boxes an image (default: all)")
    parser.add_argument("--out", default="recall.png", metavar="FILE", help="the drawing (default: recall.png)")


def run(args: Any) -> None:
    from caffe_lite.data.factory import get_imdb
    from caffe_lite.data.recall import draw_recall, measure_recall, recall_table

    imdb = get_imdb(args.imdb, data=args.data)
    rows = measure_recall(imdb, args.proposals, args.top or (None,), proposal_options(args, imdb))
    print(f"{imdb.name}: {imdb.num_images} images, {len(rows[0].recall.gt_overlaps)} objects")
    print(recall_table(rows))
    draw_recall(args.out, rows, f"Proposals on {imdb.name}")
    print(f"wrote {args.out}")
