"""Bring a .caffemodel to the form of today."""

from __future__ import annotations

from typing import Any

from caffe_lite.commands import _upgrade
from caffe_lite.commands._upgrade import add_arguments as add_arguments

EXAMPLES = """examples:
  caffe-lite upgrade_net_proto_binary old.caffemodel new.caffemodel

OUT gets today's form; what was done is printed. Exit status 1 if a field had to be left out because its
layer's type does not have it.
"""


def run(args: Any) -> int:
    return _upgrade.run(args, "net binary")
