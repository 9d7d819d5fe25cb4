"""Show layers, shapes, parameters, multiply-adds and memory of a net, without running it."""

from __future__ import annotations

from typing import Any

EXAMPLES = """examples:
  caffe-lite summary deploy.prototxt
  caffe-lite summary train_val.prototxt --phase TRAIN --json
  caffe-lite summary models/VGG16/test.prototxt --shape data=1,3,600,1000 --shape rois=2000,5
"""

ALIASES = ("summarize",)


def add_arguments(parser: Any) -> None:
    parser.add_argument("net", metavar="NET.prototxt")
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), default="TEST", help="default: TEST")
    parser.add_argument(
        "--shape", action="append", default=[], type=_shape, metavar="INPUT=N,C,H,W", help="of an input (repeatable)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.partition("=")
    return name, tuple(int(size) for size in sizes.split(","))


def run(args: Any) -> None:
    import dataclasses
    import json

    import caffe_lite
    from caffe_lite import models, summary

    net = caffe_lite.Net(models.resolve(args.net), getattr(caffe_lite, args.phase))
    for name, shape in args.shape:
        net.check_blob_names([name])
        net.blobs[name].reshape(*shape)
    net.reshape()
    if args.json:
        found = [dataclasses.asdict(row) for row in summary.rows(net)]
        print(json.dumps({"net": net.name, "layers": found, "memory": dataclasses.asdict(summary.memory(net))}))
    else:
        print(f"{net.name}, {args.phase}\n\n{summary.table(net)}")
