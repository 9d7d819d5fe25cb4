"""Compare each layer's gradients with central differences."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

EXAMPLES = """examples:
  caffe-lite gradcheck train.prototxt
  caffe-lite gradcheck train.prototxt --layer conv1 --layer my_python_layer --exhaustive
  caffe-lite gradcheck train.prototxt --weights net.caffemodel --json > gradients.json

The net is built in float64. Its inputs get random values that its layers can take (labels where
labels are read), its parameters random values where they are all zero. Every layer is checked by
itself: along two random directions of each bottom and parameter, or element by element with
--exhaustive. Exit status 1 if a gradient is wrong.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("net", metavar="NET.prototxt")
    parser.add_argument("--layer", action="append", default=[], metavar="NAME", help="only this layer (repeatable)")
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), default="TRAIN", help="default: TRAIN")
    parser.add_argument("--weights", metavar="FILE", help="parameters from this .caffemodel")
    parser.add_argument("--exhaustive", action="store_true", help="every element instead of random directions")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of values and directions (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: Any) -> int:
    import caffe_lite
    from caffe_lite import gradient_check, models, prototxt

    caffe_lite.set_random_seed(args.seed)
    sys.path.insert(0, os.getcwd())  # Python layers lie beside the prototxt that names them
    param, positions = prototxt.read_net(models.resolve(args.net))
    param.state.phase = getattr(caffe_lite, args.phase)
    param.force_backward = True
    net = caffe_lite.Net.from_param(param, positions, dtype="float64")
    if args.weights:
        net.copy_from(args.weights)
    for name in args.layer:
        net.layer_index(name)  # refuse an unknown name before anything is computed
    gradient_check.fill_with_examples(net, args.seed)
    rows = gradient_check.check_net(net, layers=args.layer or None, exhaustive=args.exhaustive, seed=args.seed)
    bad = [row for row in rows if row.verdict == "WRONG"]
    if args.json:
        print(json.dumps({"ok": not bad, "rows": [row.as_dict() for row in rows]}, indent=1, allow_nan=False))
    else:
        print(gradient_check.table(rows))
        print(f"{len(rows)} gradients checked, {len(bad)} wrong")
    return 1 if bad else 0
