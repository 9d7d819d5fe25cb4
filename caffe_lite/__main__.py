"""``python -m caffe_lite SCRIPT [ARGS]``: run a script that says ``import caffe`` on caffe_lite."""

from __future__ import annotations

import os
import runpy
import sys

from caffe_lite.as_caffe import install_as_caffe
from caffe_lite.errors import CaffeError

USAGE = """usage: python -m caffe_lite SCRIPT [ARGS]
       python -m caffe_lite -m MODULE [ARGS]

Run a Python script, or a module as python -m does, in which "import caffe" means caffe_lite.

examples:
    python -m caffe_lite train_net.py --solver solver.prototxt
    python -m caffe_lite -m unittest discover -s caffe/test"""


def main(arguments: list[str]) -> None:
    """Install and run, as the interpreter itself would: sys.argv, sys.path[0] and __main__ are the script's."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if arguments else sys.stderr)
        raise SystemExit(0 if arguments else 2)
    as_module = arguments[0] == "-m"
    arguments = arguments[as_module:]
    if not arguments:
        raise SystemExit("caffe_lite: -m needs the name of a module")
    target = arguments[0]
    if not as_module and not os.path.exists(target):
        raise SystemExit(f"caffe_lite: cannot open {target!r}: no such file")
    try:
        install_as_caffe()
    except CaffeError as error:
        raise SystemExit(f"caffe_lite: {error}") from error
    sys.argv = arguments
    if as_module:
        sys.path[0] = os.getcwd()
        runpy.run_module(target, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(target))
        runpy.run_path(target, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
