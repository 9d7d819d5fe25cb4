"""Print a script that lets a shell complete this program's commands and options."""

from caffe_lite.commands import completion
from caffe_lite.commands.completion import add_arguments, run

EXAMPLES = completion.EXAMPLES.replace("_caffe_lite", "_fast_rcnn")

__all__ = ["EXAMPLES", "add_arguments", "run"]
