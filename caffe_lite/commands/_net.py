"""What the commands that run one net of Caffe's tool share: which net, in which state."""

from __future__ import annotations

from typing import Any

from caffe_lite.console import add_device_options, positive


def add_net_options(parser: Any, weights_required: bool) -> None:
    """Which net, its weights and state, how many iterations, on which device; with one dash or two, as Caffe's."""
    parser.add_argument("--model", "-model", required=True, metavar="NET.prototxt")
    parser.add_argument("--weights", "-weights", required=weights_required, metavar="FILE", help="a .caffemodel")
    parser.add_argument("--iterations", "-iterations", type=positive, default=50, metavar="N", help="default: 50")
    add_state_options(parser)
    add_device_options(parser)


def add_state_options(parser: Any) -> None:
    """``--level`` and ``--stage`` of the NetState, for :func:`stages`."""
    parser.add_argument("--level", "-level", type=int, default=0, metavar="N", help="of the NetState (default: 0)")
    parser.add_argument("--stage", "-stage", default="", metavar="NAME[,NAME...]", help="stages of the NetState")


def stages(args: Any) -> list[str]:
    """The names that ``--stage`` gives."""
    return [name for name in args.stage.split(",") if name]


def build_net(args: Any, phase: int) -> Any:
    """The net that the options describe."""
    import caffe_lite
    from caffe_lite import models

    return caffe_lite.Net(models.resolve(args.model), phase, args.level, stages(args), args.weights)
