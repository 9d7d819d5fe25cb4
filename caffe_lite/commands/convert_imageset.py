"""Write a list of images with labels into an LMDB or LevelDB."""

from __future__ import annotations

from typing import Any

from caffe_lite.console import positive

EXAMPLES = """examples:
  caffe-lite convert_imageset images/ train.txt train_lmdb --shuffle --resize_height 256 --resize_width 256
  caffe-lite convert_imageset images/ val.txt val_lmdb --encoded --encode_type jpg

Each line of the list is a path below the first argument, a space and a whole-number label.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("root", metavar="ROOTFOLDER", help="the folder that the paths of the list begin in")
    parser.add_argument("list", metavar="LISTFILE", help="text file: PATH LABEL on each line")
    parser.add_argument("database", metavar="DB_NAME", help="the database to write; must not exist")
    parser.add_argument("--gray", action="store_true", help="as grey images")
    parser.add_argument("--shuffle", action="store_true", help="in random order")
    parser.add_argument("--seed", type=int, metavar="N", help="of --shuffle (default: a new one each time)")
    parser.add_argument("--backend", choices=("lmdb", "leveldb"), default="lmdb", help="default: lmdb")
    parser.add_argument("--resize_height", type=positive, metavar="N", help="scale images to this height")
    parser.add_argument("--resize_width", type=positive, metavar="N", help="and to this width")
    parser.add_argument("--check_size", action="store_true", help="refuse images that differ in size")
    parser.add_argument("--encoded", action="store_true", help="keep images compressed")
    parser.add_argument("--encode_type", default="", metavar="TYPE", help="png, jpg, ...: compress them as this")


def run(args: Any) -> None:
    import numpy as np

    from caffe_lite.data.image_database import convert_imageset
    from caffe_lite.data.image_list import read_image_list
    from caffe_lite.errors import DataError
    from caffe_lite.progress import progress_bar

    if (args.resize_height is None) != (args.resize_width is None):
        raise DataError("give --resize_height and --resize_width, or neither")
    images = read_image_list(args.list)
    if args.shuffle:
        images = [images[i] for i in np.random.default_rng(args.seed).permutation(len(images))]
    print(f"A total of {len(images)} images.")
    size = None if args.resize_height is None else (args.resize_height, args.resize_width)
    count = convert_imageset(
        progress_bar(images, desc="convert", unit="image"),
        args.root,
        args.database,
        backend=args.backend.upper(),
        color=not args.gray,
        size=size,
        check_size=args.check_size,
        encode_type=args.encode_type or ("jpg" if args.encoded else ""),
    )
    print(f"Processed {count} files.")
