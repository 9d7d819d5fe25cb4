"""Whole nets on the CPU: caffe_lite, PyTorch, OpenCV and the floor, in one run.

    python benchmarks/cpu.py                              # every case; writes cpu.json, cpu.png
    python benchmarks/cpu.py --case "L test" --repeat 5
    python benchmarks/cpu.py --opencv-python ~/opencv4/bin/python --torch-python ~/torch/bin/python

Each engine runs in a process of its own, which tells its peak memory; one warm-up, then the median of
the repeats, and the spread (max - min) / median. ``scaled`` is Caffe 1.0's time, taken on 2 cores at
200 GFLOP/s of sgemm, at the rate that NumPy's BLAS has here. The floor: see floor.py.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import engines  # noqa: E402
from benchmarks.machine import measure  # noqa: E402

CAFFE_SGEMM = 200.0


def worker(engine: str, folder: Path, train: bool, repeat: int) -> None:
    """Time one engine on the case in ``folder`` and print the result as JSON."""
    try:
        run = engines.ENGINES[engine](folder, train)
        times = measure(run, repeat)
    except (ImportError, NotImplementedError) as error:
        print(json.dumps({"absent": str(error)}))
        return
    print(json.dumps({"seconds": statistics.median(times), "spread": spread(times), "peak": peak_memory()}))


def peak_memory() -> float:
    """GB that this process has held at most. (getrusage would count the process that started it.)"""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1e6


def spread(times: list[float]) -> float:
    return (max(times) - min(times)) / statistics.median(times)


def run_worker(python: str, engine: str, folder: Path, train: bool, repeat: int) -> dict[str, Any]:
    command = [python, __file__, "--worker", engine, "--folder", str(folder), "--repeat", str(repeat)]
    done = subprocess.run(command + ["--train"] * train, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {"absent": f"exit status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def run_case(case: Any, args: Any, sgemm: float, products: float, bandwidth: float) -> dict[str, Any]:
    from benchmarks import cases, floor

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases.write(case, folder)
        row: dict[str, Any] = {"case": case.name, "floor": floor.seconds(folder, case.train, products, bandwidth)}
        pythons = {"PyTorch": args.torch_python, "OpenCV": args.opencv_python}
        for engine in engines.ENGINES:
            python = pythons.get(engine) or sys.executable
            row[engine] = run_worker(python, engine, folder, case.train, args.repeat)
    if case.caffe:
        row["Caffe"] = {"seconds": case.caffe[0] * CAFFE_SGEMM / sgemm, "peak": case.caffe[1]}
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The results as a Markdown table: seconds, peak memory, and the others' time over ours."""
    columns = ("caffe_lite", "PyTorch", "OpenCV", "Caffe")
    lines = [
        "| case | floor | caffe_lite | peak | PyTorch | peak | OpenCV | peak | Caffe, scaled | peak |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = row["caffe_lite"].get("seconds", math.nan)
        cells = [row["case"], f"{row['floor']:.3f}"]
        for column in columns:
            found = row.get(column, {})
            if "seconds" not in found:
                cells += ["-", "-"]
                continue
            ratio = "" if column == "caffe_lite" else f" ({found['seconds'] / ours:.2f}x)"
            peak = found["peak"]
            cells += [f"{found['seconds']:.3f}{ratio}", "-" if math.isnan(peak) else f"{peak:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Bars of every engine's time over ours; the dashed line is caffe_lite."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.62 * len(rows) + 1.4), layout="constrained")
    axes = figure.add_subplot()
    names = ("floor", "PyTorch", "OpenCV", "Caffe")
    for k, name in enumerate(names):
        places, values = [], []
        for i, row in enumerate(rows):
            found = row.get(name, {})
            seconds = found if name == "floor" else found.get("seconds")
            if seconds is not None:
                places.append(i + 0.2 * (k - 1.5))
                values.append(seconds / row["caffe_lite"]["seconds"])
        if places:
            axes.barh(places, values, height=0.19, color=f"C{k}", label=name)
    axes.axvline(1, color="black", linestyle="--", linewidth=1, label="caffe_lite")
    axes.set_yticks(range(len(rows)), [f"{row['case']}\n{row['caffe_lite']['seconds']:.3g} s" for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="time over caffe_lite's (longer: slower)", title=title)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", default=[], help="only cases whose name holds this (repeatable)")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--torch-python", metavar="PATH", help="the Python that has PyTorch and caffe_lite's needs")
    parser.add_argument("--opencv-python", metavar="PATH", help="a Python that has OpenCV 4")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for cpu.json and cpu.png")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.folder, args.train, args.repeat)
        return
    from benchmarks.cases import CASES
    from benchmarks.machine import copy_bandwidth, product_rate, sgemm_rate

    sgemm, products, bandwidth = sgemm_rate(), product_rate(), copy_bandwidth()
    rates = f"sgemm {sgemm:.0f} GFLOP/s (BLAS), {products:.0f} (best)"
    title = f"{os.cpu_count()} cores, {rates}, copy {bandwidth:.0f} GB/s"
    print(title, flush=True)
    rows = []
    for case in CASES:
        if not args.case or any(part in case.name for part in args.case):
            rows.append(run_case(case, args, sgemm, products, bandwidth))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(f"\n{table(rows)}")
    (args.out / "cpu.json").write_text(json.dumps({"machine": title, "rows": rows}, indent=1) + "\n")
    draw([row for row in rows if "seconds" in row["caffe_lite"]], args.out / "cpu.png", title)


if __name__ == "__main__":
    main()
