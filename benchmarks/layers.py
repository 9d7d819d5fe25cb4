"""Forward and backward time of each layer type on the CPU, beside PyTorch's counterpart in the same run.

    python benchmarks/layers.py                 # all types
    python benchmarks/layers.py ReLU Pooling    # some

Each call of ours is followed by one of the counterpart's, so that a loaded machine slows both; best and median of
25 such pairs, the ratio that of the best times. PyTorch's backward is its autograd's, forward excluded. Without
PyTorch only our times are printed. The counterpart of a data layer is a plain loop with the library that it reads
with. A type without an entry in ``layer_cases.py`` is an error.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layer_cases
import numpy as np
from layer_cases import Case, torch
from machine import measure

import caffe_lite
from caffe_lite import prototxt, registry
from caffe_lite.blob import Blob
from caffe_lite.device import CPU
from caffe_lite.proto import caffe_pb2

PAIRS = 25
Run = Callable[[], Any]
Times = list[float]  # seconds


def ours(kind: str, case: Case) -> tuple[Run, Run | None, list[Blob]]:
    """(forward, backward, parameters) of a layer."""
    param = caffe_pb2.LayerParameter()
    prototxt.parse(f'name: "x" type: "{kind}" {case.text}', param)
    param.bottom.extend(f"b{i}" for i in range(len(case.bottoms)))
    param.top.extend(f"t{i}" for i in range(case.tops))
    layer = registry.layers.get(kind).create(param, caffe_lite.TRAIN, CPU, "float32", "")
    bottoms = [Blob(b.shape) for b in case.bottoms]
    for blob, values in zip(bottoms, case.bottoms, strict=True):
        blob.data[...] = values
    tops = [Blob() for _ in range(case.tops)]
    layer.set_up(bottoms, tops)
    if case.prepare:
        case.prepare(layer)
    rng = np.random.default_rng(1)
    for blob in layer.blobs:
        blob.data[...] = rng.normal(size=blob.shape) * 0.05
    layer.param_propagate_down = [True] * len(layer.blobs)
    layer.reshape(bottoms, tops)
    layer.forward(bottoms, tops)
    for top in tops:
        top.diff[...] = 1
    learns = bool(layer.blobs) and bool(bottoms)
    backward = (lambda: layer.backward(tops, case.gradients, bottoms)) if any(case.gradients) or learns else None
    return lambda: layer.forward(bottoms, tops), backward, list(layer.blobs)


def theirs(case: Case, parameters: list[Blob]) -> tuple[Run | None, Run | None]:
    """(forward, backward) of the counterpart."""
    peer = case.peer
    if isinstance(peer, str) or torch is None:
        return None, None
    tensors = [
        torch.from_numpy(b).requires_grad_(g) if g else torch.from_numpy(b)
        for b, g in zip(case.bottoms, case.gradients, strict=True)
    ]
    if case.learned and case.bottoms:
        tensors += [torch.from_numpy(p.data.copy()).requires_grad_(True) for p in parameters]
    module = case.module() if case.module else None
    arguments = [*([module] if module is not None else []), *tensors]

    def forward() -> Any:
        with torch.no_grad():
            return peer(*arguments)

    wanted = [t for t in tensors if t.requires_grad] + (list(module.parameters()) if module is not None else [])
    if not wanted:
        return forward, None
    outputs = peer(*arguments)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    ones = [torch.ones_like(y) for y in outputs]
    return forward, lambda: torch.autograd.grad(outputs, wanted, ones, retain_graph=True)


def compare(mine: Run | None, peer: Run | None) -> tuple[Times, Times]:
    """Times of ``PAIRS`` calls of each, in turn."""
    sides: tuple[Times, Times] = [], []
    for i in range(PAIRS + 1):
        for run, times in zip((mine, peer), sides, strict=True):
            if run is not None:
                seconds = measure(run, 1, warm_up=0)
                times.extend(seconds if i else [])  # the first call of each warms up
    return sides


def columns(mine: Times, peer: Times) -> str:
    """Best and median of both, in milliseconds, and the ratio of the best."""
    text = ""
    for times in (mine, peer):
        text += f"{min(times) * 1e3:>9.3f}{statistics.median(times) * 1e3:>9.3f}" if times else f"{'-':>9}{'-':>9}"
    return text + (f"{min(mine) / min(peer):>7.2f}" if mine and peer else f"{'-':>7}")


def cases(folder: Path) -> dict[str, Case]:
    """Every layer type's, by name.

    Raises:
        SystemExit: one is missing, or one is of no known type.
    """
    found = layer_cases.all_cases(folder)
    differing = set(found) ^ set(caffe_lite.layer_type_list())
    if differing:
        sys.exit(f"layer types and cases differ: {', '.join(sorted(differing))}")
    return dict(sorted(found.items()))


def main() -> None:
    names = ("best", "median", "PyTorch", "median", "ratio")
    title = "".join(f"{name:>{7 if name == 'ratio' else 9}}" for name in names)
    print(f"{'ms':<24}{'forward':^43}   {'backward':^43}\n{'layer':<24}{title}   {title}")
    with tempfile.TemporaryDirectory() as folder:
        wanted = cases(Path(folder))
        unknown = set(sys.argv[1:]) - set(wanted)
        if unknown:
            sys.exit(f"no such layer type: {', '.join(sorted(unknown))}")
        for kind, case in wanted.items():
            if len(sys.argv) > 1 and kind not in sys.argv:
                continue
            forward, backward, parameters = ours(kind, case)
            peers = theirs(case, parameters)
            sides = [columns(*compare(mine, peer)) for mine, peer in zip((forward, backward), peers, strict=True)]
            why = f"   {case.peer}" if isinstance(case.peer, str) else ""
            print(f"{kind:<24}{'   '.join(sides)}{why}", flush=True)


if __name__ == "__main__":
    main()
