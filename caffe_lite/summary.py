"""What a net is made of and what it costs, from its shapes alone: nothing is run.

Multiply-adds count the products of convolutions and matrix products by their definition, whatever way
they are computed. Memory counts parameters and blobs, shared ones once; the scratch memory of the
kernels and what data layers read ahead come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caffe_lite.net import Net


@dataclass(frozen=True)
class Row:
    """One layer: shapes of its tops, values of its own parameters (shared ones count where they are first)."""

    name: str
    type: str
    tops: list[tuple[int, ...]]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Memory:
    """Bytes: to run the net forward, and to train it (gradients and one history value for each parameter too).

    ``history``: the part of ``train`` that holds the history.
    """

    test: int
    train: int
    history: int


def rows(net: Net) -> list[Row]:
    """A row for each layer, in the order in which they run; Splits, which only share memory, are left out."""
    seen: set[int] = set()
    found = []
    for node in net.nodes:
        parameters = 0
        for blob in node.layer.blobs:
            storage = blob.on_device.storages[0]
            parameters += 0 if id(storage) in seen else blob.count
            seen.add(id(storage))
        if node.layer.type != "Split":
            tops = [blob.shape for blob in node.tops]
            cost = node.layer.multiply_adds(node.bottoms, node.tops)
            found.append(Row(node.layer.name, node.layer.type, tops, parameters, cost))
    return found


def memory(net: Net) -> Memory:
    """What parameters and blobs of ``net`` take; for training as if its outputs were under a loss."""
    size = net.dtype.itemsize
    data: dict[int, int] = {}
    diff: dict[int, int] = {}
    needed: set[str] = set()  # blobs whose gradient is computed

    def add(table: dict[int, int], storage: Any, count: int) -> None:
        table[id(storage)] = max(table.get(id(storage), 0), count)

    for node in net.nodes:
        trained = any(node.layer.param_propagate_down) and not node.layer.learns_nothing
        if trained or any(name in needed for name in node.bottom_names):
            needed.update(node.top_names)
        for name, blob in zip(node.top_names, node.tops, strict=True):
            add(data, blob.storages[0], blob.count)
            if name in needed:
                add(diff, blob.storages[1], blob.count)
    parameters, history = 0, 0
    for blob, spec in zip(net.learnable_params, net.learnable_specs, strict=True):
        parameters += blob.count
        history += blob.count if spec.lr_mult else 0
    test = size * (parameters + sum(data.values()))
    return Memory(test, test + size * (2 * history + sum(diff.values())), size * history)


def table(net: Net) -> str:
    """The rows, their totals and the memory as text."""
    found = rows(net)
    lines = [("layer", "type", "output", "parameters", "multiply-adds")]
    for row in found:
        tops = ", ".join("x".join(map(str, shape)) or "scalar" for shape in row.tops) or "-"
        lines.append((row.name, row.type, tops, _number(row.parameters), _number(row.multiply_adds)))
    total = sum(row.parameters for row in found), sum(row.multiply_adds for row in found)
    lines.append(("total", "", "", _number(total[0]), _number(total[1])))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    text = ["  ".join(_cell(c, w, i > 2) for i, (c, w) in enumerate(zip(line, widths, strict=True))) for line in lines]
    rule = "-" * len(text[0])
    cost = memory(net)
    return "\n".join(
        line.rstrip()
        for line in (
            text[0], rule, *text[1:-1], rule, text[-1], "",
            f"memory to run forward (TEST):  {megabytes(cost.test)}",
            f"memory to train (TRAIN, SGD):  {megabytes(cost.train)}",
        )
    )  # fmt: skip


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _number(value: int) -> str:
    return f"{value:,}" if value else "-"


def _cell(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
