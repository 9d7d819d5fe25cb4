"""What several commands share: their options, and what these do."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from caffe_lite.console import add_device_options, choose_device
from caffe_lite.errors import WeightsError


def add_settings(parser: Any) -> None:
    """``--cfg`` and ``--set``, with the device options; for :func:`set_up`."""
    add_device_options(parser)
    parser.add_argument("--cfg", metavar="FILE", help="settings as YAML (TRAIN.SCALES and so on)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE", help="settings that override --cfg's")


def add_dataset_options(parser: Any, default: str) -> None:
    """``--imdb``, ``--data`` and ``--out``."""
    parser.add_argument("--imdb", default=default, metavar="NAME", help=f"dataset (default: {default})")
    parser.add_argument("--data", metavar="DIR", help="folder that holds VOCdevkit2007 (default: $CAFFE_LITE_DATA)")
    parser.add_argument("--out", metavar="DIR", help="output folder (default: output/EXP_DIR/IMDB...)")


def set_up(args: Any) -> None:
    """Device and settings, before anything that reads them is imported."""
    from caffe_lite.data.config import cfg_from_file, cfg_from_list
    from caffe_lite.models import resolve

    choose_device(args)
    if args.cfg:
        cfg_from_file(resolve(args.cfg))
    cfg_from_list(args.set)


def seed_everything() -> None:
    """Seed NumPy and caffe_lite with cfg.RNG_SEED, as the original's tools do."""
    import caffe_lite
    from caffe_lite.data.config import cfg

    np.random.seed(cfg.RNG_SEED)
    caffe_lite.set_random_seed(cfg.RNG_SEED)


def load_test_net(args: Any) -> Any:
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
