"""What several commands share: their options, and what these do."""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe_lite.console import add_device_options, choose_device


def add_settings(parser: Any) -> None:
    """``--cfg`` and ``--set``, with the device options; for :func:`set_up`."""
    add_device_options(parser)
    parser.add_argument(
        "--cfg", action="append", default=[], metavar="FILE",
        help="settings as YAML (TRAIN.SCALES and so on); may be repeated, later files win",
    )  # fmt: skip
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE", help="settings that override --cfg's")


def add_dataset_options(parser: Any, default: str) -> None:
    """``--imdb``, ``--data`` and ``--out``."""
    parser.add_argument("--imdb", default=default, metavar="NAME", help=f"dataset (default: {default})")
    parser.add_argument("--data", metavar="DIR", help="folder that holds VOCdevkit2007 (default: $CAFFE_LITE_DATA)")
    parser.add_argument("--out", metavar="DIR", help="output folder (default: output/EXP_DIR/IMDB...)")


def add_proposals(parser: Any) -> None:
    """``--proposals``, for :func:`choose_proposals`."""
    parser.add_argument(
        "--proposals", metavar="METHOD",
        help="such as ss_quality:2000 or ss:2000+dense:10000, see fast-rcnn proposals --help (default: the dataset's)",
    )  # fmt: skip


def choose_proposals(args: Any, imdb: Any) -> None:
    """Do what ``--proposals`` says."""
    if args.proposals:
        imdb.set_proposals(args.proposals)


def set_up(args: Any) -> None:
    """Device and settings, before anything that reads them is imported."""
    from caffe_lite.data.config import cfg_from_file, cfg_from_list
    from caffe_lite.models import resolve

    choose_device(args)
    for file in args.cfg:
        cfg_from_file(resolve(file))
    cfg_from_list(args.set)


def seed_everything() -> None:
    """Seed NumPy and caffe_lite with cfg.RNG_SEED, as the original's tools do."""
    import caffe_lite
    from caffe_lite.data.config import cfg

    np.random.seed(cfg.RNG_SEED)
    caffe_lite.set_random_seed(cfg.RNG_SEED)


def load_test_net(args: Any) -> Any:
    """The TEST net of --def and --net; its name is the weights' file name, as in the original."""
    from caffe_lite.fast_rcnn.detector import load_net

    return load_net(args.prototxt, args.net)


def add_proposal_options(parser: Any) -> None:
    """What commands on proposals share; for :func:`proposal_options`."""
    parser.add_argument("--imdb", default="voc_2007_test", metavar="NAME", help="dataset (default: voc_2007_test)")
    parser.add_argument("--data", metavar="DIR", help="folder that holds VOCdevkit2007 (default: $CAFFE_LITE_DATA)")
    parser.add_argument("--edge-model", metavar="FILE", help="OpenCV's model of structured edges, for edge_boxes")
    parser.add_argument("--seed", type=int, default=3, metavar="N", help="of random dense boxes (default: 3)")


def proposal_options(args: Any, imdb: Any) -> Any:
    """The options of proposal methods, kept in the imdb's cache."""
    from caffe_lite.data.proposal_methods import Options

    return Options(cache_folder=imdb.cache_folder, seed=args.seed, edge_model=args.edge_model)
