"""What ``upgrade`` and the commands with the names of Caffe's tools share."""

from __future__ import annotations

from typing import Any


def add_arguments(parser: Any) -> None:
    parser.add_argument("source", metavar="IN")
    parser.add_argument("target", metavar="OUT", help="another file than IN; replaced if it exists")


def run(args: Any, kind: str | None = None) -> int:
    """Upgrade ``args.source`` of ``kind`` to ``args.target``; 1 if something had to be left out."""
    from caffe_lite.upgrade_file import upgrade_file

    report = upgrade_file(args.source, args.target, kind)
    for line in report.done:
        print(f"upgraded {line}")
    if not report.done:
        print(f"{args.source} is up to date already")
    for line in report.lost:
        print(line)
    print(f"wrote {args.target}")
    return 1 if report.lost else 0
