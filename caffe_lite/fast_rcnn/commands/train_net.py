"""Train a Fast R-CNN network."""

from __future__ import annotations

import os
from typing import Any

from caffe_lite.console import positive
from caffe_lite.fast_rcnn.commands._options import (
    add_dataset_options,
    add_proposals,
    add_settings,
    choose_proposals,
    seed_everything,
    set_up,
)

EXAMPLES = """examples:
  train VGG16 on VOC 2007 with ImageNet weights, as the paper does:
    fast-rcnn train-net --solver models/VGG16/solver.prototxt --weights VGG16.v2.caffemodel --data ~/data

  a dataset of one's own in VOC's layout (classes in VOC2007/classes.txt), other settings:
    fast-rcnn train-net --solver my/solver.prototxt --imdb voc_2007_train --data my/data \\
        --iters 5000 --cfg my/settings.yml --set TRAIN.SCALES "(480,)" TRAIN.SNAPSHOT_ITERS 1000

  go on where it stopped, or start if there is nothing yet; keep the last 3 snapshots:
    fast-rcnn train-net --solver my/solver.prototxt --data my/data --resume latest --keep 3

An interrupt (Ctrl-C) ends training after the current iteration, with a snapshot; SIGHUP makes one at
any time. Beside each .caffemodel stand a .solverstate and its .resume.npz: training that is resumed
gives the same bits as training that never stopped.

Paths in the solver are relative to the working directory, as in Caffe; models/... that is not there
is taken from the models that come with caffe_lite. Snapshots go to output/EXP_DIR/IMDB, or --out.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("--solver", required=True, metavar="FILE", help="solver.prototxt")
    parser.add_argument("--iters", type=positive, default=40000, metavar="N", help="iterations (default: 40000)")
    parser.add_argument("--weights", metavar="FILE", help="start from this .caffemodel")
    parser.add_argument(
        "--resume", nargs="?", const="latest", metavar="STATE",
        help="go on from this .solverstate, or from the newest whole one in the output folder (latest)",
    )  # fmt: skip
    parser.add_argument(
        "--keep", type=positive, default=0, metavar="N", help="keep the last N snapshots (default: all)"
    )
    add_dataset_options(parser, "voc_2007_trainval")
    add_proposals(parser)
    parser.add_argument("--rand", action="store_true", help="do not fix the random seed")
    add_settings(parser)


def run(args: Any) -> None:
    set_up(args)
    from caffe_lite.data.config import get_output_dir
    from caffe_lite.data.factory import get_imdb
    from caffe_lite.fast_rcnn import draw
    from caffe_lite.fast_rcnn.train import train_net
    from caffe_lite.signals import SignalHandler

    if not args.rand:
        seed_everything()
    imdb = get_imdb(args.imdb, data=args.data)
    choose_proposals(args, imdb)
    output_dir = args.out or get_output_dir(imdb)
    print(f"{imdb.name}: {imdb.num_images} images, {imdb.num_classes} classes; output: {output_dir}", flush=True)
    trained = train_net(
        args.solver, imdb, output_dir, args.weights, args.iters,
        resume=args.resume, keep=args.keep, signals=SignalHandler(),
    )  # fmt: skip
    if trained.solver.iter < args.iters:
        print(f"stopped at iteration {trained.solver.iter} of {args.iters}; go on with --resume")
    curve = os.path.join(output_dir, "loss.png")
    draw.loss_curve(curve, trained.losses)
    for path in [*trained.snapshots, curve]:
        print(f"wrote {path}")
