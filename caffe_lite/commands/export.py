"""Write a net with its weights in another format: ONNX, PyTorch, safetensors, npz."""

from __future__ import annotations

from typing import Any

EXAMPLES = """examples:
  caffe-lite export deploy.prototxt net.caffemodel -o net.onnx
  caffe-lite export deploy.prototxt resnet.caffemodel -o resnet.onnx --fold --check
  caffe-lite export models/VGG16/test.prototxt vgg16_fast_rcnn.caffemodel -o detector.onnx
  caffe-lite export deploy.prototxt net.caffemodel -o net.pt             # and net.py, a PyTorch module
  caffe-lite export deploy.prototxt net.caffemodel -o net.safetensors    # or net.npz: the arrays alone

.onnx: batch sizes, numbers of regions and, where the net allows it, image sizes are left open; --fixed
takes those of the prototxt. .safetensors and .npz: arrays named conv1.weight, conv1.bias, bn1.mean and so
on, in Caffe's shapes. A net with a layer that cannot be exported is refused, and nothing is written.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("net", metavar="NET.prototxt")
    parser.add_argument("weights", metavar="WEIGHTS", help="a .caffemodel")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="file to write: " + ", ".join(_WRITERS))
    parser.add_argument("--opset", type=int, metavar="N", help="of ONNX, 13 to 21 (default: 17)")
    parser.add_argument("--fold", action="store_true", help="ONNX: put BatchNorm and Scale into the convolution before")
    parser.add_argument("--fixed", action="store_true", help="ONNX: leave no size open")
    parser.add_argument("--check", action="store_true", help="ONNX, PyTorch: run it on random inputs and compare")


def run(args: Any) -> int:
    import os

    import caffe_lite
    from caffe_lite import models
    from caffe_lite.errors import CaffeError

    ending = os.path.splitext(args.out)[1]
    if ending not in _WRITERS:
        raise CaffeError(f"{args.out}: no format is known by this ending; it can be {', '.join(_WRITERS)}")
    for option, given in (("--opset", args.opset), ("--fold", args.fold), ("--fixed", args.fixed)):
        if given and ending != ".onnx":
            raise CaffeError(f"{option} is for .onnx files, not for {ending}")
    if args.check and ending not in (".onnx", ".pt"):
        raise CaffeError(f"--check runs the file, and a {ending} has no layers to run")
    net = caffe_lite.Net(models.resolve(args.net), caffe_lite.TEST, weights=args.weights)
    return _WRITERS[ending](net, args)


def _write_onnx(net: Any, args: Any) -> int:
    from caffe_lite.export import onnx

    opset = onnx.DEFAULT_OPSET if args.opset is None else args.opset
    model = onnx.export_onnx(net, args.out, opset, args.fold, not args.fixed)
    print(f"wrote {args.out}: {len(model.graph.node)} nodes, opset {opset}")
    for kind, values in (("input ", model.graph.input), ("output", model.graph.output)):
        for value in values:
            sizes = (d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)
            print(f"  {kind} {value.name}: {', '.join(sizes)}")
    return _report(onnx.compare(net, args.out)) if args.check else 0


def _write_torch(net: Any, args: Any) -> int:
    from caffe_lite.export import pytorch

    source = pytorch.export_torch(net, args.out)
    print(f"wrote {args.out}: a state dict\nwrote {source}: the module that loads it")
    return _report(pytorch.compare(net, args.out)) if args.check else 0


def _write_arrays(net: Any, args: Any) -> int:
    from caffe_lite.export import arrays

    write = arrays.export_npz if args.out.endswith(".npz") else arrays.export_safetensors
    written = write(net, args.out)
    print(f"wrote {args.out}: {len(written)} arrays, {sum(a.size for a in written.values())} numbers")
    return 0


def _report(worst: dict[str, float]) -> int:
    """Print how far each output is off; the exit status."""
    from caffe_lite.export.onnx import TOLERANCE

    for name, error in worst.items():
        print(f"  {name}: differs from caffe_lite by {error:.1e} of its largest value")
    return 0 if all(error < TOLERANCE for error in worst.values()) else 1


_WRITERS = {".onnx": _write_onnx, ".pt": _write_torch, ".safetensors": _write_arrays, ".npz": _write_arrays}
