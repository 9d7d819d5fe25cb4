"""Measure a table or figure of the paper anew, beside the paper's numbers."""

from __future__ import annotations

import os
from typing import Any

from caffe_lite.console import add_device_options, choose_device, positive

EXAMPLES = """examples:
  what there is; the multi-task experiment with the small net on made-up pictures; everything:
    fast-rcnn experiment list
    fast-rcnn experiment table6
    fast-rcnn experiment all --seeds 5

  the paper's own experiment, at full size: 40,000 iterations of each net on a VOC devkit:
    fast-rcnn experiment table6 --data ~/data --weights ~/imagenet_models --models M --gpu 0

  does it run? (a few iterations, the numbers mean nothing):
    fast-rcnn experiment all --quick --out /tmp/quick

Prints a table for each quantity, measured as mean ± standard deviation over the seeds, and of each of the
paper's claims whether the measurement agrees, contradicts or cannot tell; NAME.txt, NAME.json and NAME.png
go to the output folder. Trained nets are kept there by what they depend on: tables share them, and what was
interrupted goes on. Tables 4 and 8 need scikit-learn (pip install 'caffe-lite[svm]'), as does figure 3.
"""

DEFAULT_SEEDS = {True: 3, False: 1}  # synthetic or not: a full-size net takes hours


def add_arguments(parser: Any) -> None:
    parser.add_argument("name", metavar="NAME", help="table1 ... table8, fig2, fig3, all, or list")
    parser.add_argument("--data", metavar="DIR", help="folder of a real devkit (default: made-up pictures)")
    parser.add_argument("--weights", metavar="DIR", help="folder of CaffeNet.v2.caffemodel and so on, for S, M and L")
    parser.add_argument(
        "--models", nargs="+", choices=("S", "M", "L", "mini"), help="nets to measure (default: the paper's, or mini)"
    )
    parser.add_argument(
        "--seeds", type=positive, metavar="N", help="trainings of each net, seeds 3, 4, ... (default: 3; 1 with --data)"
    )
    parser.add_argument("--iters", type=positive, metavar="N", help="iterations that stand for the paper's 40,000")
    parser.add_argument("--quick", action="store_true", help="a handful of pictures and iterations, to see it run")
    parser.add_argument("--out", default="output/experiments", metavar="DIR", help="default: output/experiments")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables, of all: a list")
    add_device_options(parser)


def run(args: Any) -> None:
    choose_device(args)
    from caffe_lite.fast_rcnn import experiments

    if args.name == "list":
        for name, experiment in experiments.EXPERIMENTS.items():
            print(f"{name:8}{experiment.title}")
        return
    count = args.seeds or (1 if args.quick else DEFAULT_SEEDS[args.data is None])
    setting = experiments.Setting(
        out=args.out,
        data=args.data,
        seeds=tuple(range(3, 3 + count)),
        models=tuple(args.models) if args.models else None,
        iters=args.iters,
        weights=args.weights,
        quick=args.quick,
        progress=not args.quick,
    )
    names = list(experiments.EXPERIMENTS) if args.name == "all" else [args.name]
    experiments.check_requirements(names)
    reports = []
    for name in names:
        reports.append(experiments.run(name, setting))
        if not args.json:
            wrote = ", ".join(os.path.join(args.out, f"{name}.{suffix}") for suffix in ("txt", "json", "png"))
            print(f"\n{reports[-1].text()}\n\nwrote {wrote}\n", flush=True)
    if args.json:
        found = [report.json().rstrip() for report in reports]
        print(found[0] if args.name != "all" else "[" + ",\n".join(found) + "]")
