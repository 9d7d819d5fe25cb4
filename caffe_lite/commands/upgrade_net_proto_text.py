"""Bring the prototxt of a net to the form of today."""

from __future__ import annotations

from typing import Any

from caffe_lite.commands import _upgrade
from caffe_lite.commands._upgrade import add_arguments as add_arguments

EXAMPLES = """examples:
  caffe-lite upgrade_net_proto_text imagenet_2013.prototxt imagenet.prototxt

OUT gets today's form; what was done is printed. A prototxt loses its comments, so OUT must be another
file than IN. Exit status 1 if a field had to be left out because its layer's type does not have it.
"""


def run(args: Any) -> int:
    return _upgrade.run(args, "net text")
