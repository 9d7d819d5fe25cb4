"""The console script ``fast-rcnn``: train-net, test-net, detect, demo; flags as the original tools'."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from caffe_lite.errors import CaffeError, WeightsError

_TRAIN_HELP = """examples:
  train VGG16 on VOC 2007 with ImageNet weights, as the paper does:
    fast-rcnn train-net --solver models/VGG16/solver.prototxt --weights VGG16.v2.caffemodel --data ~/data

  a dataset of one's own in VOC's layout (classes in VOC2007/classes.txt), other settings:
    fast-rcnn train-net --solver my/solver.prototxt --imdb voc_2007_train --data my/data \\
        --iters 5000 --cfg my/settings.yml --set TRAIN.SCALES "(480,)" TRAIN.SNAPSHOT_ITERS 1000

Paths in the solver are relative to the working directory, as in Caffe; models/... that is not there
is taken from the models that come with caffe_lite. Snapshots go to output/EXP_DIR/IMDB, or --out.
"""
_TEST_HELP = """examples:
  fast-rcnn test-net --def models/VGG16/test.prototxt --data ~/data \\
      --net output/default/voc_2007_trainval/vgg16_fast_rcnn_iter_40000.caffemodel
  fast-rcnn test-net --def my/test.prototxt --net my.caffemodel --imdb voc_2007_test --data my/data --comp

Prints the average precision of each class and saves all detections as detections.npz.
"""
_DETECT_HELP = """examples:
  fast-rcnn detect --def models/VGG16/test.prototxt --net vgg16_fast_rcnn_iter_40000.caffemodel --image photo.jpg
  fast-rcnn detect --def models/CaffeNet/test.prototxt --image 000004.jpg --boxes 000004_boxes.mat

Without --boxes the regions are computed by selective search. Without --net the weights are random:
the net runs end to end, and what it finds means nothing.
"""
_DEMO_HELP = """example:
  fast-rcnn demo

Takes a few minutes on two cores. Everything is put into output/: the weights, the drawn detections,
the loss curve. Run again, it prints the same numbers.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's); the exit status: 0, or 1 for an error."""
    args = build_parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except BrokenPipeError:  # whoever read our output, head say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CaffeError, OSError) as error:
        if args.debug:
            raise
        print(f"fast-rcnn: error: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fast-rcnn: interrupted", file=sys.stderr)
        return 130


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="fast-rcnn", description="Fast R-CNN from prototxt: train, test, detect. 'fast-rcnn demo' shows all of it."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_test(commands)
    _add_detect(commands)
    _add_demo(commands)
    return parser


def _version() -> str:
    import caffe_lite

    return f"fast-rcnn (caffe_lite {caffe_lite.__version__})"


def _command(
    commands: Any,
    name: str,
    run: Callable[[Any], int | None],
    text: str,
    epilog: str,
    threads: str = "one for each processor",
) -> Any:
    parser = commands.add_parser(
        name, help=text, description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    parser.add_argument("--gpu", type=int, metavar="N", help="use GPU N (default: the CPU)")
    parser.add_argument("--threads", type=_positive, metavar="N", help=f"threads that compute (default: {threads})")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_settings(parser: Any) -> None:
    parser.add_argument("--cfg", metavar="FILE", help="settings as YAML (TRAIN.SCALES and so on)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE", help="settings that override --cfg's")


def _add_dataset(parser: Any, default: str) -> None:
    parser.add_argument("--imdb", default=default, metavar="NAME", help=f"dataset (default: {default})")
    parser.add_argument("--data", metavar="DIR", help="folder that holds VOCdevkit2007 (default: $CAFFE_LITE_DATA)")
    parser.add_argument("--out", metavar="DIR", help="output folder (default: output/EXP_DIR/IMDB...)")


def _add_train(commands: Any) -> None:
    parser = _command(commands, "train-net", train_command, "train a Fast R-CNN network", _TRAIN_HELP)
    parser.add_argument("--solver", required=True, metavar="FILE", help="solver.prototxt")
    parser.add_argument("--iters", type=_positive, default=40000, metavar="N", help="iterations (default: 40000)")
    parser.add_argument("--weights", metavar="FILE", help="start from this .caffemodel")
    _add_dataset(parser, "voc_2007_trainval")
    parser.add_argument("--rand", action="store_true", help="do not fix the random seed")
    _add_settings(parser)


def _add_test(commands: Any) -> None:
    parser = _command(commands, "test-net", test_command, "test a Fast R-CNN network", _TEST_HELP)
    parser.add_argument("--def", required=True, dest="prototxt", metavar="FILE", help="test.prototxt")
    parser.add_argument("--net", required=True, metavar="FILE", help="weights, a .caffemodel")
    _add_dataset(parser, "voc_2007_test")
    parser.add_argument("--comp", action="store_true", help="competition mode: keep the results files")
    parser.add_argument(
        "--wait", nargs="?", const=True, default=False, type=_truth, metavar="BOOL",
        help="wait until the --net file exists, looking every 10 s",
    )  # fmt: skip
    _add_settings(parser)


def _add_detect(commands: Any) -> None:
    parser = _command(commands, "detect", detect_command, "detect objects on one image and draw them", _DETECT_HELP)
    parser.add_argument("--def", required=True, dest="prototxt", metavar="FILE", help="test.prototxt")
    parser.add_argument("--net", metavar="FILE", help="weights, a .caffemodel (default: random ones)")
    parser.add_argument("--image", required=True, metavar="FILE", help="the image")
    parser.add_argument("--boxes", metavar="FILE", help="regions, .mat or .npz (default: selective search)")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="names of the classes without the background")
    parser.add_argument("--conf", type=float, default=0.8, metavar="P", help="least score shown (default: 0.8)")
    parser.add_argument("--top", type=_positive, default=20, metavar="N", help="show at most N (default: 20)")
    parser.add_argument("--nms", type=float, default=0.3, metavar="IOU", help="overlap suppressed (default: 0.3)")
    parser.add_argument("--out", metavar="PNG", help="drawing (default: output/detect/IMAGE.png)")
    _add_settings(parser)


def _add_demo(commands: Any) -> None:
    parser = _command(commands, "demo", demo_command, "make data, train, test and draw, all by itself", _DEMO_HELP, "1")
    parser.add_argument("--out", default="output", metavar="DIR", help="output folder (default: output)")
    parser.add_argument("--seed", type=int, metavar="N", help="another dataset and other draws (default: 3)")
    parser.add_argument("--iters", type=_positive, metavar="N", help="training iterations")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE", help="settings, as of train-net")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"must be True or False, got {text!r}")
    return text.lower() in ("true", "1")


def _set_up(args: Any) -> None:
    """Device and settings, before anything that reads them is imported."""
    from caffe_lite import threads
    from caffe_lite.data.config import cfg_from_file, cfg_from_list
    from caffe_lite.models import resolve

    _choose_device(args.gpu)
    if args.threads is not None:
        threads.set_num_threads(args.threads)
    if getattr(args, "cfg", None):
        cfg_from_file(resolve(args.cfg))
    cfg_from_list(args.set)


def _choose_device(gpu: int | None) -> None:
    import caffe_lite

    if gpu is not None:
        caffe_lite.set_device(gpu)
        caffe_lite.set_mode_gpu()


def _seed() -> None:
    import caffe_lite
    from caffe_lite.data.config import cfg

    np.random.seed(cfg.RNG_SEED)
    caffe_lite.set_random_seed(cfg.RNG_SEED)


def train_command(args: Any) -> None:
    _set_up(args)
    from caffe_lite.data.config import get_output_dir
    from caffe_lite.data.factory import get_imdb
    from caffe_lite.fast_rcnn import draw
    from caffe_lite.fast_rcnn.train import train_net

    if not args.rand:
        _seed()
    imdb = get_imdb(args.imdb, data=args.data)
    output_dir = args.out or get_output_dir(imdb)
    print(f"{imdb.name}: {imdb.num_images} images, {imdb.num_classes} classes; output: {output_dir}", flush=True)
    trained = train_net(args.solver, imdb, output_dir, args.weights, args.iters)
    curve = os.path.join(output_dir, "loss.png")
    draw.loss_curve(curve, trained.losses)
    for path in [*trained.snapshots, curve]:
        print(f"wrote {path}")


def test_command(args: Any) -> None:
    _set_up(args)
    from caffe_lite.data.config import get_output_dir
    from caffe_lite.data.factory import get_imdb
    from caffe_lite.fast_rcnn.test import test_net

    if args.wait:
        _wait_for(args.net)
    imdb = get_imdb(args.imdb, data=args.data)
    imdb.competition_mode(args.comp)
    net = _test_net(args)
    output_dir = args.out or get_output_dir(imdb, net)
    test_net(net, imdb, output_dir)
    print(f"wrote {os.path.join(output_dir, 'detections.npz')}")


def _test_net(args: Any) -> Any:
    """The TEST net of --def and --net; its name is the weights' file name, as in the original."""
    import caffe_lite
    from caffe_lite.models import resolve

    net = caffe_lite.Net(resolve(args.prototxt), caffe_lite.TEST)
    if args.net is not None:
        report = net.copy_from(args.net)
        if report.untouched:
            raise WeightsError(
                f"{args.net}: holds no weights for {', '.join(report.untouched)}, which {args.prototxt} has; "
                "use the weights that were trained with its train.prototxt"
            )
        net.name = os.path.splitext(os.path.basename(args.net))[0]
    return net


def _wait_for(path: str) -> None:
    while not os.path.exists(path):
        print(f"waiting for {path} to exist...", flush=True)
        time.sleep(10)


def detect_command(args: Any) -> None:
    _set_up(args)
    from caffe_lite.data.config import cfg
    from caffe_lite.fast_rcnn import detect, draw
    from caffe_lite.fast_rcnn.report import detection_table
    from caffe_lite.fast_rcnn.test import make_output_dir

    stem = os.path.splitext(os.path.basename(args.image))[0]
    out = args.out or os.path.join(cfg.ROOT_DIR, "output", "detect", f"{stem}.png")
    make_output_dir(os.path.dirname(out) or ".")
    net = _test_net(args)
    if args.net is None:
        print("no --net: the weights are random, and what is found means nothing")
        detect.random_weights(net, cfg.RNG_SEED)
    classes = ["__background__", *args.classes] if args.classes else None
    found = detect.detect_file(net, args.image, args.boxes, classes, args.conf, args.nms, top=args.top)
    print(f"{net.name}: {found.regions} regions in {found.seconds:.2f} s on {net.device}")
    if found.best_only:
        print(f"nothing scores {args.conf:g} or more; the best:")
    print(detection_table(found.dets, found.classes))
    if found.left_out:
        print(f"and {found.left_out} more that score {args.conf:g} or more; --top shows them")
    draw.save_png(out, draw.draw_detections(found.image, found.dets, found.classes))
    print(f"wrote {out}")


def demo_command(args: Any) -> None:
    _choose_device(args.gpu)
    from caffe_lite.fast_rcnn.demo import run_demo

    run_demo(args.out, args.seed, args.iters, settings=args.set, num_threads=args.threads or 1)


if __name__ == "__main__":
    sys.exit(main())
