"""What a loss over many positions is divided by: loss_param's normalization and ignore_label."""

from __future__ import annotations

from typing import Any


def ignored_label(loss_param: Any) -> int | None:
    """The label of positions that count for nothing, None if there is none."""
    return loss_param.ignore_label if loss_param.HasField("ignore_label") else None


def normalization(loss_param: Any, default: int) -> int:
    """The mode: ``normalization``, else the older ``normalize`` (true: VALID, false: BATCH_SIZE), else ``default``."""
    if loss_param.HasField("normalization"):
        return loss_param.normalization
    if loss_param.HasField("normalize"):
        return loss_param.VALID if loss_param.normalize else loss_param.BATCH_SIZE
    return default


def normalizer(xp: Any, loss_param: Any, mode: int, outer: int, inner: int, valid: Any) -> Any:
    """The divisor, at least 1, for ``outer * inner`` positions of which ``valid`` count.

    FULL: all positions; VALID: those that count; BATCH_SIZE: ``outer``; NONE: 1. ``valid`` may be a device array.
    """
    p = loss_param
    value = {p.FULL: outer * inner, p.VALID: valid, p.BATCH_SIZE: outer, p.NONE: 1}[mode]
    return max(value, 1) if isinstance(value, int) else xp.maximum(value, 1)
