"""Show where two nets differ, in their definitions or in their weights."""

from __future__ import annotations

from typing import Any

EXAMPLES = """examples:
  caffe-lite diff train_val.prototxt deploy.prototxt
  caffe-lite diff before.caffemodel after.caffemodel

-  only in the first    +  only in the second    ~  changed
Exit status 0 if nothing differs, 1 otherwise.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("first", metavar="FIRST", help="a .prototxt or a .caffemodel")
    parser.add_argument("second", metavar="SECOND", help="another of the same kind")


def run(args: Any) -> int:
    from caffe_lite import net_diff

    binary = [path.endswith(".caffemodel") for path in (args.first, args.second)]
    lines = (net_diff.trained if any(binary) else net_diff.definitions)(args.first, args.second)
    print("\n".join(lines) if lines else "no difference")
    return 1 if lines else 0
