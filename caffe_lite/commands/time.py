"""Time each layer of a net, forward and backward."""

from __future__ import annotations

from typing import Any

from caffe_lite.console import add_device_options, choose_device, positive

EXAMPLES = """examples:
  caffe-lite time --model deploy.prototxt --iterations 10 --phase TEST
  caffe-lite time -model models/VGG16/test.prototxt --phase TEST --explain
  caffe-lite time -model train_val.prototxt -gpu 0
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("--model", "-model", required=True, metavar="NET.prototxt")
    parser.add_argument("--weights", "-weights", metavar="FILE", help="a .caffemodel (default: what the fillers make)")
    parser.add_argument("--iterations", "-iterations", type=positive, default=50, metavar="N", help="default: 50")
    parser.add_argument("--phase", "-phase", choices=("TRAIN", "TEST"), default="TRAIN", help="default: TRAIN")
    parser.add_argument("--level", "-level", type=int, default=0, metavar="N", help="of the NetState (default: 0)")
    parser.add_argument("--stage", "-stage", default="", metavar="NAME[,NAME...]", help="stages of the NetState")
    parser.add_argument("--explain", action="store_true", help="say how each convolution is computed, and why")
    add_device_options(parser)


def run(args: Any) -> None:
    import caffe_lite
    from caffe_lite import glog, models, timing

    with glog.logging_to():
        choose_device(args)
        stages = [name for name in args.stage.split(",") if name]
        phase = getattr(caffe_lite, args.phase)
        net = caffe_lite.Net(models.resolve(args.model), phase, args.level, stages, args.weights)
        timing.log_timing(timing.measure(net, args.iterations), args.iterations)
    if args.explain:
        print(timing.explain(net))
