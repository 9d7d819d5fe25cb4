"""Write a net with its weights in another format: ONNX."""

from __future__ import annotations

from typing import Any

EXAMPLES = """examples:
  caffe-lite export deploy.prototxt net.caffemodel -o net.onnx
  caffe-lite export deploy.prototxt resnet.caffemodel -o resnet.onnx --fold --check
  caffe-lite export models/VGG16/test.prototxt vgg16_fast_rcnn.caffemodel -o detector.onnx

Batch sizes, numbers of regions and, where the net allows it, image sizes are left open; --fixed takes
those of the prototxt. A net with a layer that cannot be exported is refused, and nothing is written.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("net", metavar="NET.prototxt")
    parser.add_argument("weights", metavar="WEIGHTS", help="a .caffemodel")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="file to write, .onnx")
    parser.add_argument("--opset", type=int, default=17, metavar="N", help="of ONNX, 13 to 21 (default: 17)")
    parser.add_argument("--fold", action="store_true", help="put BatchNorm and Scale into the convolution before")
    parser.add_argument("--fixed", action="store_true", help="leave no size open")
    parser.add_argument("--check", action="store_true", help="run the file by onnxruntime on random inputs and compare")


def run(args: Any) -> int:
    import caffe_lite
    from caffe_lite import models
    from caffe_lite.errors import CaffeError
    from caffe_lite.export import onnx

    if not args.out.endswith(".onnx"):
        raise CaffeError(f"{args.out}: no format is known by this ending; it can be .onnx")
    net = caffe_lite.Net(models.resolve(args.net), caffe_lite.TEST, weights=args.weights)
    model = onnx.export_onnx(net, args.out, args.opset, args.fold, not args.fixed)
    print(f"wrote {args.out}: {len(model.graph.node)} nodes, opset {args.opset}")
    for kind, values in (("input ", model.graph.input), ("output", model.graph.output)):
        for value in values:
            sizes = (d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)
            print(f"  {kind} {value.name}: {', '.join(sizes)}")
    if not args.check:
        return 0
    worst = onnx.compare(net, args.out)
    for name, error in worst.items():
        print(f"  {name}: differs from caffe_lite by {error:.1e} of its largest value")
    return 0 if all(error < onnx.TOLERANCE for error in worst.values()) else 1
