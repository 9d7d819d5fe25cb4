"""Print a script that lets a shell complete this program's commands and options."""

from __future__ import annotations

from typing import Any

from caffe_lite.errors import CaffeError

EXAMPLES = """examples:
  %(prog)s bash >> ~/.bashrc
  %(prog)s zsh > ~/.zfunc/_caffe_lite

Needs the extra: pip install 'caffe-lite[completion]'
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def run(args: Any) -> None:
    try:
        import shtab
    except ImportError as error:
        raise CaffeError("completion scripts are made by shtab: pip install 'caffe-lite[completion]'") from error
    print(shtab.complete(args.console.parser(), args.shell))
