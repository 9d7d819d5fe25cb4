"""Run a net on its data layer and write blobs into databases, one Datum an image."""

from __future__ import annotations

from typing import Any

from caffe_lite.console import add_device_options, choose_device, positive

EXAMPLES = """example:
  caffe-lite extract_features net.caffemodel features.prototxt fc7,prob fc7_lmdb,prob_lmdb 10 lmdb

The prototxt has a data layer; the net runs in TEST phase for the given number of batches.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("weights", metavar="WEIGHTS", help="a .caffemodel")
    parser.add_argument("net", metavar="NET.prototxt")
    parser.add_argument("blobs", metavar="BLOB[,BLOB...]")
    parser.add_argument("databases", metavar="DB[,DB...]", help="one for each blob; must not exist")
    parser.add_argument("batches", type=positive, metavar="NUM_BATCHES")
    parser.add_argument("backend", choices=("lmdb", "leveldb"))
    add_device_options(parser)


def run(args: Any) -> None:
    choose_device(args)
    import caffe_lite
    from caffe_lite import models
    from caffe_lite.data.image_database import extract_features

    net = caffe_lite.Net(models.resolve(args.net), caffe_lite.TEST, weights=args.weights)
    blobs, databases = args.blobs.split(","), args.databases.split(",")
    count = extract_features(net, blobs, databases, args.batches, args.backend.upper())
    for name in blobs:
        print(f"Extracted features of {count} query images for feature blob {name}")
    print("Successfully extracted the features!")
