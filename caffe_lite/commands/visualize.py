"""Draw the filters of a layer, or what a blob holds after a forward pass."""

from __future__ import annotations

from typing import Any

EXAMPLES = """examples:
  caffe-lite visualize deploy.prototxt net.caffemodel --filters conv1 -o conv1.png
  caffe-lite visualize deploy.prototxt net.caffemodel --activations conv1 --image cat.jpg -o cat_conv1.png

An image is scaled to the net's input, as B, G, R from 0 to 255, minus --mean.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("net", metavar="NET.prototxt")
    parser.add_argument("weights", metavar="WEIGHTS")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--filters", metavar="LAYER", help="the weights of this layer")
    what.add_argument("--activations", metavar="BLOB", help="this blob, after a forward pass on --image")
    parser.add_argument("--image", metavar="FILE", help="what the net sees (default: its data layer's next batch)")
    parser.add_argument("--mean", type=float, nargs=3, default=(104, 117, 123), metavar=("B", "G", "R"))
    parser.add_argument("--limit", type=int, default=400, metavar="N", help="tiles drawn at most (default: 400)")
    parser.add_argument("-o", "--out", required=True, metavar="PNG", help="picture to write")


def run(args: Any) -> None:
    import caffe_lite
    from caffe_lite import models, visualize

    net = caffe_lite.Net(models.resolve(args.net), caffe_lite.TEST, weights=args.weights)
    if args.filters:
        picture, title = visualize.filters(net, args.filters, args.limit), f"{args.filters}: filters"
    else:
        if args.image:
            _show_image(net, args.image, args.mean)
        net.forward()
        picture, title = visualize.activations(net, args.activations, limit=args.limit), args.activations
    visualize.save_picture(args.out, picture, title)
    print(f"wrote {args.out}")


def _show_image(net: Any, path: str, mean: Any) -> None:
    import numpy as np

    from caffe_lite.data.transformer import planes_of, read_image
    from caffe_lite.errors import NetError

    if not net.inputs or len(net.blobs[net.inputs[0]].shape) != 4:
        raise NetError(f"net {net.name!r} has no input of four axes for --image; its inputs: {net.inputs or 'none'}")
    blob = net.blobs[net.inputs[0]]
    _, channels, height, width = blob.shape
    image = read_image(path, channels == 3, (height, width)).astype(np.float32)
    if channels == 3:
        image -= np.asarray(mean, dtype=np.float32)
    blob.reshape(1, channels, height, width)
    blob.data[...] = planes_of(image)
