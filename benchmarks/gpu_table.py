"""The tables of gpu.py: times beside PyTorch's, and what part of the GPU's own rates they come to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PAIRS = (("float32", "PyTorch"), ("tf32", "PyTorch TF32"), ("bf16", ""))  # ours, the peer that computes alike


@dataclass(frozen=True)
class Machine:
    """A GPU and its measured rates: GB/s read and written by a copy, GFLOP/s of a large product by ``compute``."""

    name: str
    copy: float
    rates: Mapping[str, float]

    def __str__(self) -> str:
        rates = ", ".join(f"{compute} {rate / 1e3:.1f}" for compute, rate in self.rates.items())
        return f"{self.name}: copy {self.copy:.0f} GB/s; matrix products, TFLOP/s: {rates}"


@dataclass(frozen=True)
class Row:
    """Something timed: seconds by engine (those of ``PAIRS``), its products' operations and the bytes it must move."""

    name: str
    seconds: Mapping[str, float]
    operations: float
    size: float


def table(rows: Iterable[Row], machine: Machine) -> str:
    """Milliseconds as Markdown, each pair with PyTorch's time over ours, and the fractions of the rates in float32.

    A product by Winograd counts with the operations that it needs, not with those of the definition.
    """
    head = ["what"]
    for ours, theirs in PAIRS:
        head += [f"{ours}, ms", f"{theirs}, ms", "ratio"] if theirs else [f"{ours}, ms"]
    head += ["of copy rate", "of matrix rate"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        cells = [row.name]
        for ours, theirs in PAIRS:
            mine, his = row.seconds.get(ours), row.seconds.get(theirs)
            cells.append(_milliseconds(mine))
            if theirs:
                cells += [_milliseconds(his), f"{his / mine:.2f}" if mine and his else "-"]
        seconds = row.seconds.get("float32")
        cells.append(_percent(row.size / 1e9, seconds, machine.copy))
        cells.append(_percent(row.operations / 1e9, seconds, machine.rates.get("float32")))
        lines.append(_line(cells))
    return "\n".join(lines)


def error_table(errors: Mapping[str, Mapping[str, float]]) -> str:
    """{case: {compute: largest difference from the CPU over its largest value}} as Markdown."""
    kinds = list(dict.fromkeys(kind for found in errors.values() for kind in found))
    lines = [_line(["difference from the CPU", *kinds]), _line(["---"] * (len(kinds) + 1))]
    lines += [
        _line([case, *(f"{found[k]:.1e}" if k in found else "-" for k in kinds)]) for case, found in errors.items()
    ]
    return "\n".join(lines)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3f}"


def _percent(work: float, seconds: float | None, rate: float | None) -> str:
    return f"{100 * work / seconds / rate:.0f} %" if work and seconds and rate else "-"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
