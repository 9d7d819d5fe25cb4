"""Where two nets differ: layer by layer, by name, in their definitions or in their weights."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from caffe_lite import prototxt, upgrade, weights
from caffe_lite.proto import caffe_pb2

_IGNORED = {"name", "blobs"}


def definitions(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> list[str]:
    """One line for each difference between two prototxts, both brought to the schema of today.

    Lines begin with ``-`` (only in the first), ``+`` (only in the second) or ``~`` (in both, changed).
    """
    old, new = (_read_definition(path) for path in (first, second))
    lines = []
    if old.name != new.name:
        lines.append(f"~ name: {old.name!r} -> {new.name!r}")
    olds, news = _by_name(old), _by_name(new)
    for name in _all_names(olds, news):
        if name not in news:
            lines.append(f"- {_describe(olds[name])}")
        elif name not in olds:
            lines.append(f"+ {_describe(news[name])}")
        else:
            lines += [f"~ {name[0]}: {change}" for change in _changes(olds[name], news[name])]
    common_old = [name for name in olds if name in news]
    common_new = [name for name in news if name in olds]
    if common_old != common_new:
        moved = next(a for a, b in zip(common_old, common_new, strict=True) if a != b)
        lines.append(f"~ order: layers stand in another order from {moved[0]!r} on")
    return lines


def _read_definition(path: str | os.PathLike[str]) -> Any:
    param, positions = prototxt.read_net(path)
    upgrade.upgrade_net(param, positions)
    return param


def _by_name(param: Any) -> dict[tuple[str, str], Any]:
    """Layers by name and the phase that includes them: train_val nets have two data layers of one name."""
    found = {}
    for layer in param.layer:
        phases = ",".join(caffe_pb2.Phase.Name(rule.phase) for rule in layer.include if rule.HasField("phase"))
        found[layer.name, phases] = layer
    return found


def _all_names(olds: dict[Any, Any], news: dict[Any, Any]) -> list[Any]:
    return [*olds, *(name for name in news if name not in olds)]


def _describe(layer: Any) -> str:
    arrow = " -> ".join(", ".join(names) for names in (layer.bottom, layer.top) if names)
    return f"{layer.name} ({layer.type}): {arrow}"


def _changes(old: Any, new: Any, prefix: str = "") -> list[str]:
    """``field: old -> new`` of two messages of one type, nested fields with dots."""
    changes = []
    for field in old.DESCRIPTOR.fields:
        if field.name in _IGNORED and not prefix:
            continue
        a, b = getattr(old, field.name), getattr(new, field.name)
        if a == b:
            continue
        repeated = hasattr(a, "__len__") and not isinstance(a, (str, bytes))
        if field.message_type is not None and not repeated:
            changes += _changes(a, b, f"{prefix}{field.name}.")
        else:
            changes.append(f"{prefix}{field.name}: {_text(field, a, repeated)} -> {_text(field, b, repeated)}")
    return changes


def _text(field: Any, value: Any, repeated: bool) -> str:
    if repeated:
        return "[" + ", ".join(_text(field, item, False) for item in value) + "]"
    if field.message_type is not None:
        return "{ " + " ".join(str(value).split()) + " }"
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    return f"{value:g}" if isinstance(value, float) else repr(value)


def trained(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> list[str]:
    """One line for each parameter blob that differs between two .caffemodel files, with the largest difference."""
    olds, news = (_read_weights(path) for path in (first, second))
    lines = []
    for name in _all_names(olds, news):
        if name not in news or name not in olds:
            lines.append(
                f"{'-' if name in olds else '+'} {name}: {len(olds.get(name) or news.get(name) or ())} blob(s)"
            )
            continue
        if len(olds[name]) != len(news[name]):
            lines.append(f"~ {name}: {len(olds[name])} blob(s) -> {len(news[name])}")
        for i, (a, b) in enumerate(zip(olds[name], news[name], strict=False)):
            if a.shape != b.shape:
                lines.append(f"~ {name}[{i}]: shape {a.shape} -> {b.shape}")
            elif not np.array_equal(a, b):
                gap = np.abs(np.subtract(a, b, dtype=np.float64))
                lines.append(f"~ {name}[{i}]: {np.count_nonzero(gap)} of {a.size} values, by at most {gap.max():.3g}")
    return lines


def _read_weights(path: str | os.PathLike[str]) -> dict[str, list[np.ndarray]]:
    net = weights.read_net(path)
    return {p.name: [weights.blob_to_array(blob) for blob in p.blobs] for p in net.layer if p.blobs}
