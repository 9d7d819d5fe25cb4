"""Bring a net, weights or solver of an older Caffe to the form of today."""

from __future__ import annotations

from typing import Any

from caffe_lite.commands import _upgrade
from caffe_lite.commands._upgrade import add_arguments as add_arguments

EXAMPLES = """examples:
  caffe-lite upgrade imagenet_2013.prototxt imagenet.prototxt
  caffe-lite upgrade old.caffemodel new.caffemodel
  caffe-lite upgrade old_solver.prototxt solver.prototxt

Text or binary, net or solver is told from the file's content. OUT gets today's form; what was done is
printed. A prototxt loses its comments, so OUT must be another file than IN. Exit status 1 if a field had
to be left out because its layer's type does not have it.
"""


def run(args: Any) -> int:
    return _upgrade.run(args)
