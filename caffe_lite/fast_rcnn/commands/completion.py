"""Print a script that lets a shell complete this program's commands and options."""

from caffe_lite.commands.completion import EXAMPLES, add_arguments, run

__all__ = ["EXAMPLES", "add_arguments", "run"]
