"""Compute the mean image of a database, and the mean of each channel."""

from __future__ import annotations

from typing import Any

EXAMPLES = """example:
  caffe-lite compute_image_mean train_lmdb mean.binaryproto

Use it as mean_file in transform_param.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("database", metavar="INPUT_DB")
    parser.add_argument("output", metavar="OUTPUT_FILE", nargs="?", help="mean image, .binaryproto or .npy")
    parser.add_argument("--backend", choices=("lmdb", "leveldb"), default="lmdb", help="default: lmdb")


def run(args: Any) -> None:
    from caffe_lite.atomic import atomic_write
    from caffe_lite.data.image_database import mean_image
    from caffe_lite.weights import write_mean

    mean, count = mean_image(args.database, args.backend.upper())
    print(f"Processed {count} files.")
    if args.output:
        print(f"Write to {args.output}")
        if args.output.endswith(".npy"):
            import numpy as np

            with atomic_write(args.output) as stream:
                np.save(stream, mean, allow_pickle=False)
        else:
            write_mean(args.output, mean)
    print(f"Number of channels: {mean.shape[0]}")
    for channel, value in enumerate(mean.mean(axis=(1, 2), dtype="float64")):
        print(f"mean_value channel [{channel}]: {value:.6g}")
