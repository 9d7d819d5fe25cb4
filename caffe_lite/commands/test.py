"""Score a model: the mean of its outputs over some batches."""

from __future__ import annotations

from typing import Any

from caffe_lite.console import add_device_options, choose_device, positive

EXAMPLES = """examples:
  caffe-lite test --model train_val.prototxt --weights net.caffemodel --iterations 100
  caffe-lite test -model train_val.prototxt -weights net.caffemodel -gpu 0

The prototxt has a data layer; as many images are seen as iterations times its batch size.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("--model", "-model", required=True, metavar="NET.prototxt")
    parser.add_argument("--weights", "-weights", required=True, metavar="FILE", help="a .caffemodel")
    parser.add_argument("--iterations", "-iterations", type=positive, default=50, metavar="N", help="default: 50")
    parser.add_argument("--level", "-level", type=int, default=0, metavar="N", help="of the NetState (default: 0)")
    parser.add_argument("--stage", "-stage", default="", metavar="NAME[,NAME...]", help="stages of the NetState")
    parser.add_argument("--quiet", action="store_true", help="only the means")
    add_device_options(parser)


def run(args: Any) -> None:
    import caffe_lite
    from caffe_lite import glog
    from caffe_lite.scoring import score

    with glog.logging_to():
        choose_device(args)
        stages = [name for name in args.stage.split(",") if name]
        net = caffe_lite.Net(args.model, caffe_lite.TEST, args.level, stages, args.weights)
        score(net, args.iterations, each_batch=not args.quiet)
