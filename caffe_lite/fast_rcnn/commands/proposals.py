"""Compute region proposals of a dataset."""

from __future__ import annotations

from typing import Any

from caffe_lite.fast_rcnn.commands._options import add_proposal_options, proposal_options

EXAMPLES = """examples:
  fast-rcnn proposals --imdb voc_2007_trainval+voc_2012_trainval --data ~/data
  fast-rcnn proposals --imdb voc_2007_test --data ~/data --method ss_quality:2000
  fast-rcnn proposals --imdb voc_2007_test --data ~/data --method edge_boxes:2000 --edge-model model.yml.gz
  fast-rcnn proposals --imdb voc_2007_test --data my/data --method ss:2000+dense:10000 --out voc_2007_test.mat

Boxes are kept in the dataset folder (cache/proposals), where training and testing find those of
selective search. With --out they are written as the original's .mat file too: put into
DATA/selective_search_data under the name of year and set, voc_2007_test.mat, it is used instead of
selective search.
"""


def add_arguments(parser: Any) -> None:
    add_proposal_options(parser)
    parser.add_argument(
        "--method", default="ss", metavar="METHOD",
        help="ss, ss_quality, edge_boxes, gradient_edge_boxes, dense, nearest_dense; METHOD:COUNT; "
        "METHOD+METHOD (default: ss)",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="a .mat file to write the boxes to")


def run(args: Any) -> None:
    import numpy as np

    from caffe_lite.data.factory import get_imdb
    from caffe_lite.data.proposal_methods import propose
    from caffe_lite.data.proposals import write_dataset_mat

    imdb = get_imdb(args.imdb, data=args.data)
    paths = [imdb.image_path_at(i) for i in range(imdb.num_images)]
    boxes = propose(args.method, paths, proposal_options(args, imdb))
    counts = [len(of_image) for of_image in boxes]
    print(
        f"{imdb.name}: {args.method}: {sum(counts)} boxes in {len(counts)} images, "
        f"{np.mean(counts):.1f} an image ({min(counts)} to {max(counts)}); {counts.count(0)} images without any"
    )
    if args.out:
        write_dataset_mat(args.out, imdb.image_index, boxes)
        print(f"wrote {args.out}")
