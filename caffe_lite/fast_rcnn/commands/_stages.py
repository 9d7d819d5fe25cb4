"""What the commands of the systems trained in stages, R-CNN and SPPnet, have in common."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from caffe_lite.console import positive
from caffe_lite.errors import DataError
from caffe_lite.fast_rcnn.commands._options import add_dataset_options, add_settings, seed_everything, set_up


def add_stage_arguments(parser: Any, definition: str) -> None:
    parser.add_argument("action", choices=("train", "test"))
    parser.add_argument(
        "--def", default=definition, dest="definition", metavar="DIR",
        help=f"folder of solver.prototxt and test.prototxt (default: {definition})",
    )  # fmt: skip
    parser.add_argument(
        "--iters", type=positive, default=1000, metavar="N", help="train: fine-tuning's (default: 1000)"
    )
    parser.add_argument("--weights", metavar="FILE", help="train: start from this .caffemodel")
    parser.add_argument("--model", metavar="DIR", help="test: the output folder of the training")
    add_dataset_options(parser, "voc_2007_trainval")
    add_settings(parser)


def run_stages(args: Any, system: str) -> None:
    """Train or test ``system``, a package in fast_rcnn that has ``train``, ``load`` and ``test``."""
    set_up(args)
    import importlib

    from caffe_lite.data.config import get_output_dir
    from caffe_lite.data.factory import get_imdb

    package = importlib.import_module(f"caffe_lite.fast_rcnn.{system}")
    imdb = get_imdb(args.imdb, data=args.data)
    if args.action == "test":
        _test(args, package, imdb)
        return
    seed_everything()
    out = args.out or get_output_dir(imdb)
    model = package.train(imdb, out, pretrained=args.weights, definition=args.definition, iters=args.iters)
    _print_seconds(model.seconds)
    print(f"wrote {out}")


def _test(args: Any, package: Any, imdb: Any) -> None:
    if args.model is None:
        raise DataError("test: --model: give the output folder of the training")
    out = args.out or os.path.join(args.model, imdb.name)
    found = package.test(package.load(args.model, args.definition), imdb, out)
    print(f"{found.seconds.mean():.4f} s an image (median {np.median(found.seconds):.4f})")
    print(f"wrote {os.path.join(out, 'detections.npz')}")


def _print_seconds(seconds: dict[str, float]) -> None:
    from caffe_lite.fast_rcnn.report import table

    rows = [("stage", "seconds"), *((name, f"{value:.1f}") for name, value in seconds.items())]
    print(table([*rows, ("all", f"{sum(seconds.values()):.1f}")]))
