"""Make a .caffemodel of weights from PyTorch, safetensors or npz, by a map of names."""

from __future__ import annotations

from typing import Any

EXAMPLES = """examples:
  torchvision's VGG16, whose images are RGB, (x / 255 - mean) / std:
    caffe-lite import_weights vgg16.pth models/classification/VGG16/deploy.prototxt -o vgg16.caffemodel \\
        --map models/classification/VGG16/torchvision.json --rgb-to-bgr conv1_1 \\
        --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225

  caffe-lite import_weights net.safetensors net.prototxt -o net.caffemodel --map names.json

The map is JSON, {"conv1_1.weight": "features.0.weight", ...}: arrays of the net, named as `caffe-lite
export -o net.npz` names them, and arrays of the file. Each array of the net must be there and fit;
otherwise all that is wrong is listed, and nothing is written. --mean and --std, for pixels of 0..1 in the
file's order of channels, go into the first layer's weights; what is left to subtract is printed.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("source", metavar="SOURCE", help=".safetensors, .npz, .pt or .pth")
    parser.add_argument("net", metavar="NET.prototxt")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help=".caffemodel to write")
    parser.add_argument("--map", required=True, metavar="JSON", help="array of the net -> array of the file")
    parser.add_argument("--rgb-to-bgr", metavar="LAYER", help="reverse the input channels of this layer")
    parser.add_argument("--mean", type=float, nargs="+", metavar="X", help="that images were normalised with")
    parser.add_argument("--std", type=float, nargs="+", metavar="X", help="that images were normalised with")


def run(args: Any) -> None:
    import caffe_lite
    from caffe_lite import models
    from caffe_lite.export import foreign_weights

    names = foreign_weights.read_map(models.resolve(args.map))
    arrays = foreign_weights.read_arrays(args.source)
    net = caffe_lite.Net(models.resolve(args.net), caffe_lite.TEST)
    report = foreign_weights.import_arrays(
        net, arrays, names, args.source, rgb_to_bgr=args.rgb_to_bgr, mean=args.mean, std=args.std
    )
    net.save(args.out)
    print(f"wrote {args.out}: {len(report.copied)} arrays; not used: {', '.join(report.unused) or 'none'}")
    for note in report.notes:
        print(f"  {note}")
    if report.mean_values is not None:
        order = " (B, G, R)" if args.rgb_to_bgr else ""
        print(f"  subtract from each pixel{order}: {', '.join(f'{value:.3f}' for value in report.mean_values)}")
