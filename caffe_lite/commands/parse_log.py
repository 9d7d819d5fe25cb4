"""Turn a training log into two tables, LOG.train and LOG.test."""

from __future__ import annotations

import os
from typing import Any

EXAMPLES = """example:
  caffe-lite parse_log train.log tables/

Writes tables/train.log.train and tables/train.log.test: NumIters, Seconds, LearningRate and a column
for each output, comma separated.
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("log", metavar="LOGFILE", help="what train printed")
    parser.add_argument("folder", metavar="OUTPUT_DIR", help="an existing folder")
    parser.add_argument("--delimiter", default=",", metavar="C", help="between columns (default: ,)")


def run(args: Any) -> None:
    from caffe_lite.log_tables import read_log, write_csv

    for kind, rows in zip(("train", "test"), read_log(args.log), strict=True):
        path = os.path.join(args.folder, f"{os.path.basename(args.log)}.{kind}")
        write_csv(path, rows, args.delimiter)
        print(f"wrote {path}: {len(rows)} rows")
