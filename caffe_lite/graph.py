"""From the layers that a prototxt lists to the layers that a net runs.

``filter_layers`` keeps the layers whose include/exclude rules fit the net's state (phase, level,
stages); ``insert_splits`` puts a Split layer behind every blob with more than one consumer, so that
gradients add up. Both follow Caffe, to the names: ``{blob}_{layer}_{top index}_split_{k}``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from caffe_lite.errors import NetError, did_you_mean
from caffe_lite.proto import caffe_pb2


@dataclass
class LayerSpec:
    """A LayerParameter and the ``file:line:column`` that it came from."""

    param: Any
    where: str

    def explain(self, message: str) -> str:
        return f"{self.where + ': ' if self.where else ''}layer {self.param.name!r} ({self.param.type}): {message}"


def filter_layers(specs: Sequence[LayerSpec], state: Any) -> list[LayerSpec]:
    """The layers that take part in a net of NetState ``state``."""
    return [spec for spec in specs if _included(spec, state)]


def _included(spec: LayerSpec, state: Any) -> bool:
    include, exclude = spec.param.include, spec.param.exclude
    if include and exclude:
        raise NetError(spec.explain("has both include and exclude rules: give one kind"))
    if include:
        return any(rule_met(rule, state) for rule in include)
    return not any(rule_met(rule, state) for rule in exclude)


def rule_met(rule: Any, state: Any) -> bool:
    """Does every condition of NetStateRule ``rule`` hold in ``state``?"""
    stages = set(state.stage)
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )


Source = tuple[int, int]  # (layer index, top index) that last wrote a blob


def insert_splits(specs: Sequence[LayerSpec]) -> list[LayerSpec]:
    """Copies of ``specs`` with Split layers added.

    A top consumed by several bottoms, a non-zero loss_weight counting as one consumer, is followed
    by a Split; the loss weight moves to its first output.

    Raises:
        NetError: a bottom that no earlier layer makes.
    """
    sources, uses, losses = _count_uses(specs)
    split_names: dict[Source, str] = {}
    taken: dict[Source, int] = {}
    result: list[LayerSpec] = []
    for i, spec in enumerate(specs):
        param = caffe_pb2.LayerParameter()
        param.CopyFrom(spec.param)
        for j in range(len(param.bottom)):
            source = sources[i, j]
            if uses.get(source, 0) > 1:
                k = taken.get(source, 0)
                taken[source] = k + 1
                param.bottom[j] = f"{split_names[source]}_{k}"
        result.append(LayerSpec(param, spec.where))
        for j, blob in enumerate(param.top):
            source = (i, j)
            count = uses.get(source, 0)
            if count <= 1:
                continue
            split_names[source] = f"{blob}_{param.name}_{j}_split"
            weight = losses.get(source, 0.0)
            result.append(LayerSpec(_split_layer(split_names[source], blob, count, weight), spec.where))
            if weight:
                del param.loss_weight[:]
                taken[source] = 1
    return result


def _count_uses(
    specs: Sequence[LayerSpec],
) -> tuple[dict[tuple[int, int], Source], dict[Source, int], dict[Source, float]]:
    """Which top feeds each (layer, bottom); how many uses each top has; the tops with a loss weight."""
    last: dict[str, Source] = {}
    sources: dict[tuple[int, int], Source] = {}
    uses: dict[Source, int] = {}
    losses: dict[Source, float] = {}
    for i, spec in enumerate(specs):
        for j, blob in enumerate(spec.param.bottom):
            if blob not in last:
                near = did_you_mean(blob, last)
                raise NetError(spec.explain(f"bottom {blob!r} (index {j}) is made by no layer before it{near}"))
            sources[i, j] = last[blob]
            uses[last[blob]] = uses.get(last[blob], 0) + 1
        for j, blob in enumerate(spec.param.top):
            last[blob] = (i, j)
        for blob, weight in zip(spec.param.top, spec.param.loss_weight):  # noqa: B905 - the layer checks the counts
            if weight:
                losses[last[blob]] = weight
                uses[last[blob]] = uses.get(last[blob], 0) + 1
    return sources, uses, losses


def _split_layer(name: str, blob: str, count: int, loss_weight: float) -> Any:
    param = caffe_pb2.LayerParameter(name=name, type="Split", bottom=[blob])
    for k in range(count):
        param.top.append(f"{name}_{k}")
        if loss_weight:
            param.loss_weight.append(loss_weight if k == 0 else 0.0)
    return param


@dataclass
class LayerNode:
    """A layer in its place: which blobs it reads and writes, which gradients are wanted."""

    layer: Any
    bottom_names: list[str]
    top_names: list[str]
    bottoms: list[Any]
    tops: list[Any]
    propagate_down: list[bool]
    needs_backward: bool = False


def prune_backward(nodes: Sequence[LayerNode]) -> None:
    """Drop the backward work that reaches no loss, or that nobody below needs (Caffe's second sweep)."""
    under_loss: set[str] = set()
    skipped: set[str] = set()
    for node in reversed(nodes):
        weights = node.layer.loss_weights
        contributes = any(w or name in under_loss for w, name in zip(weights, node.top_names, strict=True))
        wanted = any(name not in skipped for name in node.top_names)
        node.needs_backward = node.needs_backward and contributes and wanted
        for j, name in enumerate(node.bottom_names):
            if contributes:
                under_loss.add(name)
            if not (contributes and wanted):
                node.propagate_down[j] = False
            if not node.propagate_down[j]:
                skipped.add(name)


def mark_all_backward(nodes: Sequence[LayerNode], allow: Callable[[LayerNode, int], bool]) -> None:
    """force_backward: every layer, every parameter, every bottom that its layer allows."""
    for node in nodes:
        node.needs_backward = True
        node.propagate_down = [p or allow(node, j) for j, p in enumerate(node.propagate_down)]
        node.layer.param_propagate_down = [True] * len(node.layer.blobs)
