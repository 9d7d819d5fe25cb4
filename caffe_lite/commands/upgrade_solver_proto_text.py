"""Bring the prototxt of a solver to the form of today."""

from __future__ import annotations

from typing import Any

from caffe_lite.commands import _upgrade
from caffe_lite.commands._upgrade import add_arguments as add_arguments

EXAMPLES = """examples:
  caffe-lite upgrade_solver_proto_text old_solver.prototxt solver.prototxt

OUT gets today's form; what was done is printed. A prototxt loses its comments, so OUT must be another
file than IN.
"""


def run(args: Any) -> int:
    return _upgrade.run(args, "solver text")
