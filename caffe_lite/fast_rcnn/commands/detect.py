"""Detect objects on one image and draw them."""

from __future__ import annotations

import os
from typing import Any

from caffe_lite.console import positive
from caffe_lite.fast_rcnn.commands._options import add_settings, load_test_net, set_up

EXAMPLES = """examples:
  fast-rcnn detect --def models/VGG16/test.prototxt --net vgg16_fast_rcnn_iter_40000.caffemodel --image photo.jpg
  fast-rcnn detect --def models/CaffeNet/test.prototxt --image 000004.jpg --boxes 000004_boxes.mat

Without --boxes the regions are computed by selective search. Without --net the weights are random:
the net runs end to end, and what it finds means nothing.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("--def", required=True, dest="prototxt", metavar="FILE", help="test.prototxt")
    parser.add_argument("--net", metavar="FILE", help="weights, a .caffemodel (default: random ones)")
    parser.add_argument("--image", required=True, metavar="FILE", help="the image")
    parser.add_argument("--boxes", metavar="FILE", help="regions, .mat or .npz (default: selective search)")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="names of the classes without the background")
    parser.add_argument("--conf", type=float, default=0.8, metavar="P", help="least score shown (default: 0.8)")
    parser.add_argument("--top", type=positive, default=20, metavar="N", help="show at most N (default: 20)")
    parser.add_argument("--nms", type=float, default=0.3, metavar="IOU", help="overlap suppressed (default: 0.3)")
    parser.add_argument("--out", metavar="PNG", help="drawing (default: output/detect/IMAGE.png)")
    add_settings(parser)


def run(args: Any) -> None:
    set_up(args)
    from caffe_lite.data.config import cfg
    from caffe_lite.fast_rcnn import detect, draw
    from caffe_lite.fast_rcnn.detector import share_memory
    from caffe_lite.fast_rcnn.report import detection_table
    from caffe_lite.fast_rcnn.test import make_output_dir

    stem = os.path.splitext(os.path.basename(args.image))[0]
    out = args.out or os.path.join(cfg.ROOT_DIR, "output", "detect", f"{stem}.png")
    make_output_dir(os.path.dirname(out) or ".")
    net = load_test_net(args)
    share_memory(net)
    if args.net is None:
        print("no --net: the weights are random, and what is found means nothing")
        detect.random_weights(net, cfg.RNG_SEED)
    classes = ["__background__", *args.classes] if args.classes else None
    found = detect.detect_file(net, args.image, args.boxes, classes, args.conf, args.nms, top=args.top)
    print(f"{net.name}: {found.regions} regions in {found.seconds:.2f} s on {net.device}")
    if found.best_only:
        print(f"nothing scores {args.conf:g} or more; the best:")
    print(detection_table(found.dets, found.classes))
    if found.left_out:
        print(f"and {found.left_out} more that score {args.conf:g} or more; --top shows them")
    draw.save_png(out, draw.draw_detections(found.image, found.dets, found.classes))
    print(f"wrote {out}")
