"""Make a Fast R-CNN of an image classification net: train, test and solver prototxt, initial weights."""

from __future__ import annotations

from typing import Any

EXAMPLES = """examples:
  caffe-lite surgery models/classification/VGG16/deploy.prototxt VGG16.caffemodel --classes 20 -o my_vgg16
  caffe-lite surgery train_val.prototxt --classes 3 -o my_net --freeze-below conv3
  fast-rcnn train-net --solver my_vgg16/solver.prototxt --weights my_vgg16/initial.caffemodel --data my/data

The last max pooling becomes RoI pooling, the classifier becomes cls_score and bbox_pred, and the inputs
become images and regions. Without --freeze-below, layers whose input has a stride below 4 keep their
weights, as in the paper. --same-padding pads as the published CaffeNet of Fast R-CNN does. Nets that
average before their classifier (NIN, GoogLeNet, SqueezeNet, ResNet) are refused.
"""


def add_arguments(parser: Any) -> None:
    from caffe_lite.console import positive

    parser.add_argument("net", metavar="NET.prototxt", help="deploy or train_val, of any age")
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help="a .caffemodel of it")
    parser.add_argument("--classes", type=positive, required=True, metavar="K", help="without the background")
    parser.add_argument("-o", "--out", required=True, metavar="FOLDER", help="folder to write to")
    parser.add_argument("--freeze-below", metavar="LAYER", help="first layer to train; those before stay as they are")
    parser.add_argument("--same-padding", action="store_true", help="pad each window by (kernel - 1) / 2")
    parser.add_argument("--size", type=positive, metavar="N", help="of the images, where the prototxt does not say")


def run(args: Any) -> None:
    import os

    from caffe_lite import models, surgery

    made = surgery.operate(models.resolve(args.net), args.classes, args.freeze_below, args.same_padding, args.size)
    surgery.write(made, args.out, args.weights)
    height, width = made.pooled
    print(f"{made.name}: {made.pool!r} -> RoI pooling {height} x {width}, spatial_scale 1/{made.stride}")
    print(f"{made.classifier!r} -> cls_score ({args.classes + 1}), bbox_pred ({4 * (args.classes + 1)})")
    print(f"frozen: {', '.join(made.frozen) or 'nothing'}")
    if args.weights:
        print(f"weights of {len(made.copied)} layers taken over; left behind: {', '.join(made.ignored) or 'none'}")
    else:
        print("no weights given: layers without a filler start from zero")
    written = ["train.prototxt", "test.prototxt", "solver.prototxt", *(["initial.caffemodel"] if args.weights else [])]
    for name in written:
        print(f"wrote {os.path.join(args.out, name)}")
