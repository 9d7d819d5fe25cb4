"""Show or repeat the evaluation of saved detections."""

from __future__ import annotations

from typing import Any

from caffe_lite.fast_rcnn.commands._options import add_settings, set_up

EXAMPLES = """examples:
  fast-rcnn reval output/default/voc_2007_test/vgg16_fast_rcnn_iter_40000 --data ~/data
  fast-rcnn reval output/default/voc_2007_test/vgg16_fast_rcnn_iter_40000 --data ~/data \\
      --rerun --comp --set TEST.NMS 0.4

Shows AP by the metrics of VOC 2007 (11 points) and of later years (area) from the curves that test-net
left; --rerun makes those anew from detections.npz, NMS included.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("output_dir", metavar="DIR", help="the output folder of test-net")
    parser.add_argument("--rerun", action="store_true", help="NMS and evaluation again, from the detections")
    parser.add_argument("--imdb", default="voc_2007_test", metavar="NAME", help="dataset (default: voc_2007_test)")
    parser.add_argument("--data", metavar="DIR", help="folder that holds VOCdevkit2007 (default: $CAFFE_LITE_DATA)")
    parser.add_argument("--comp", action="store_true", help="competition mode: keep the results files")
    add_settings(parser)


def run(args: Any) -> None:
    set_up(args)
    from caffe_lite.data.factory import get_imdb
    from caffe_lite.data.pascal_voc import PascalVoc
    from caffe_lite.errors import DataError
    from caffe_lite.fast_rcnn.reval import curve_table, from_curves, from_detections

    imdb = get_imdb(args.imdb, data=args.data)
    has_curves = isinstance(imdb, PascalVoc) and imdb.has_gt
    if args.rerun:
        imdb.competition_mode(args.comp)
        from_detections(args.output_dir, imdb)
    elif not has_curves:
        raise DataError(f"{imdb.name}: its evaluation leaves no curves to show; evaluate again with --rerun")
    if has_curves:
        print(curve_table(from_curves(args.output_dir, imdb.classes)))
