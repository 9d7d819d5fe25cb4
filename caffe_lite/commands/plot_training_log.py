"""Draw accuracy, loss or learning rate of training logs."""

from __future__ import annotations

from typing import Any

EXAMPLES = """examples:
  caffe-lite plot_training_log 6 loss.png train.log
  caffe-lite plot_training_log 0 accuracy.png first.log second.log

Chart types:
  0: Test accuracy vs. Iters        4: Train learning rate vs. Iters
  1: Test accuracy vs. Seconds      5: Train learning rate vs. Seconds
  2: Test loss vs. Iters            6: Train loss vs. Iters
  3: Test loss vs. Seconds          7: Train loss vs. Seconds
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("chart", type=int, choices=range(8), metavar="CHART_TYPE", help="0 to 7, see below")
    parser.add_argument("out", metavar="PICTURE", help=".png, .svg or .pdf to write")
    parser.add_argument("logs", nargs="+", metavar="LOGFILE")


def run(args: Any) -> None:
    from caffe_lite.log_tables import plot

    plot(args.chart, args.logs, args.out)
    print(f"wrote {args.out}")
