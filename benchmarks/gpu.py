"""Fast R-CNN's nets on a GPU: builds, checks against the CPU and times, in one call, beside PyTorch with cuDNN.

    python benchmarks/gpu.py                               # every net, each layer; prints Markdown
    python benchmarks/gpu.py --case "L test" --repeat 50
    python benchmarks/gpu.py --no-layers > gpu.md

VGG16 (L), VGG_CNN_M_1024 (M) and CaffeNet (S): test nets of one picture of 600x1000 and 2,000 RoIs, training steps
of two pictures and 128 RoIs, random weights. Ours in float32, tf32 and bf16; PyTorch in float32 and with TF32, in
its faster memory format with cudnn.benchmark; RoI pooling by torchvision, if it is installed. Times are medians of
whole calls until the device is idle; a ratio is PyTorch's time over ours. Layers are timed one by one, so that a ReLU
that our nets fuse into the layer before it counts by itself. Bytes and operations: see floor.py.

Needs CuPy and a GPU; without PyTorch only our times are printed. Each case is printed when it is done, and once more in
the table at the end; one that fails does not stop the others. The exit status is 1 where there is no GPU, a case
fails, or a net in float32 is not what it is on the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TOLERANCE = 1e-3  # of float32, over the largest value; sums over a whole map are of many terms


def torch_setting(engine: str) -> None:
    """PyTorch with TF32, or without it."""
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = engine == "PyTorch TF32"


def torch_engines() -> tuple[str, ...]:
    """The settings of PyTorch that can be timed here."""
    try:
        import torch
    except (ImportError, OSError):  # OSError: a library of CUDA that it needs is not there
        return ()
    return ("PyTorch", "PyTorch TF32") if torch.cuda.is_available() else ()


def peer() -> str:
    """Which PyTorch, and what it leaves out."""
    if not torch_engines():
        return "PyTorch: none that has this GPU"
    import torch

    from benchmarks.torch_net import roi_pool

    without = "" if roi_pool else "; no torchvision: its nets are spared RoI pooling"
    return f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}{without}"


def whole(folder: Path, case: Any, device: Any, repeat: int) -> dict[str, float]:
    """Seconds of one call of a case, by engine."""
    from benchmarks import engines, gpu_timing

    found = {}
    run = engines.caffe_lite(folder, case.train)
    for compute in gpu_timing.computes(device):
        device.compute = compute
        found[compute] = gpu_timing.median(run, device.synchronize, repeat)
    del run
    free(device)
    with peers_failure_is_told(case):
        formats = [engines.pytorch(folder, case.train, "cuda", last) for last in (False, True) if torch_engines()]
        for engine in torch_engines():
            torch_setting(engine)
            wait = gpu_timing.torch_synchronize("cuda")
            found[engine] = min(gpu_timing.median(run, wait, repeat) for run in formats)
    return found


def layers(folder: Path, case: Any, device: Any, repeat: int) -> list[Any]:
    """A Row for each layer and direction of a case."""
    from benchmarks import engines, gpu_timing

    times = {}
    net = gpu_timing.build(folder, case.train, device, engines.load_inputs(folder))
    for compute in gpu_timing.computes(device):
        device.compute = compute
        times[compute] = gpu_timing.layer_seconds(net, case.train, repeat)
    with peers_failure_is_told(case):
        peers = gpu_timing.torch_net(folder, case.train, "cuda") if torch_engines() else None
        for engine in torch_engines():
            torch_setting(engine)
            times[engine] = gpu_timing.torch_layer_seconds(peers, folder, case.train, "cuda", repeat)
    return layer_rows(net, case.train, times)


def layer_rows(net: Any, train: bool, times: dict[str, Any]) -> list[Any]:
    """The Rows of ``net``'s layers, from their (forward, backward) seconds by engine."""
    from benchmarks import floor
    from benchmarks.gpu_table import Row

    rows = []
    for node in net.nodes:
        name = node.layer.name
        work = floor.products(node), 4.0 * floor.traffic(node)
        gradients = any(node.propagate_down) + any(node.layer.param_propagate_down)
        for i, (direction, passes) in enumerate((("forward", 1), ("backward", gradients if train else 0))):
            seconds = {engine: found[name][i] for engine, found in times.items() if found.get(name, (0, 0))[i]}
            if passes and node.layer.type not in ("Input", "Split"):
                rows.append(Row(f"{name} {direction}", seconds, passes * work[0], passes * work[1]))
    return rows


@contextlib.contextmanager
def peers_failure_is_told(case: Any) -> Iterator[None]:
    """Where PyTorch fails, its times are missing, and ours are printed."""
    try:
        yield
    except Exception as error:  # whatever PyTorch raises
        print(f"gpu.py: {case.name}: PyTorch fails: {type(error).__name__}: {error}", file=sys.stderr)


def free(device: Any) -> None:
    """Hand unused memory back, so that the next engine has it."""
    device.xp.get_default_memory_pool().free_all_blocks()
    if torch_engines():
        import torch

        torch.cuda.empty_cache()


def run_case(case: Any, device: Any, args: Any) -> tuple[Any, list[Any], dict[str, float]]:
    """The case's Row, its layers' Rows, and how far each way of computing is from the CPU."""
    from benchmarks import cases, floor, gpu_timing
    from benchmarks.gpu_table import Row

    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            cases.write(case, folder)
            errors = gpu_timing.differences(folder, case.train, device, gpu_timing.computes(device))
            row = Row(case.name, whole(folder, case, device, args.repeat), *floor.work(folder, case.train))
            parts = layers(folder, case, device, args.repeat) if args.layers else []
    finally:
        device.compute = "float32"
        free(device)
    return row, parts, errors


def report(chosen: list[Any], device: Any, args: Any) -> int:
    """Run and print, each case as it is done; the exit status."""
    from benchmarks import gpu_timing
    from benchmarks.gpu_table import error_table, table

    machine = gpu_timing.machine(device, args.repeat)
    print(f"{machine}\n{gpu_timing.versions(device)}\n{peer()}\n", flush=True)
    rows, errors, failed = [], {}, []
    for case in chosen:
        try:
            row, parts, errors[case.name] = run_case(case, device, args)
        except Exception as error:  # the other cases are worth their time
            traceback.print_exc()
            failed.append(f"{case.name} ({type(error).__name__})")
            continue
        rows.append(row)
        found = {case.name: errors[case.name]}
        print(f"### {case.name}\n\n{table([row, *parts], machine)}\n\n{error_table(found)}\n", flush=True)
    print(f"### Whole nets\n\n{table(rows, machine)}\n\n{error_table(errors)}", flush=True)
    wrong = [name for name, found in errors.items() if not found["float32"] <= TOLERANCE]
    for what, names in ("not what it is on the CPU", wrong), ("failed, see above", failed):
        if names:
            print(f"gpu.py: {what}: {', '.join(names)}", file=sys.stderr)
    return int(bool(wrong or failed))


def main(argv: list[str] | None = None) -> int:
    """The exit status: 1 without a GPU or if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", default=[], help="only cases whose name holds this (repeatable)")
    parser.add_argument("--repeat", type=int, default=20, help="times that each thing is timed (default: 20)")
    parser.add_argument("--no-layers", dest="layers", action="store_false", help="whole nets only")
    args = parser.parse_args(argv)
    import caffe_lite
    from benchmarks.cases import CASES, GPU_CASES
    from caffe_lite import device as devices

    named = [case for case in CASES if case.name in GPU_CASES]
    chosen = [c for c in named if not args.case or any(p in c.name for p in args.case)]
    if not chosen:
        print(f"gpu.py: no case is named like that; there are: {'; '.join(GPU_CASES)}", file=sys.stderr)
        return 1
    torch_engines()  # before CuPy: the copy of cuBLAS that is loaded first serves both, and PyTorch needs its own
    try:
        caffe_lite.set_mode_gpu()
    except caffe_lite.DeviceError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 1
    return report(chosen, devices.current(), args)


if __name__ == "__main__":
    sys.exit(main())
