"""Learning-rate policies: the rate as a function of SolverParameter and ``it``, the updates done so far.

``current_step`` is how many of multistep's ``stepvalue`` have been passed; the solver keeps it.
"""

from __future__ import annotations

import math
from typing import Any

from caffe_lite.errors import SolverError
from caffe_lite.registry import register_policy


def _need(param: Any, name: str, ok: bool, wanted: str) -> None:
    if not ok:
        raise SolverError(f"lr_policy {param.lr_policy!r} needs {name} {wanted}, got {getattr(param, name)}")


@register_policy("fixed")
def fixed(param: Any, it: int, current_step: int) -> float:
    """base_lr"""
    return param.base_lr


@register_policy("step")
def step(param: Any, it: int, current_step: int) -> float:
    """base_lr * gamma ^ floor(it / stepsize)"""
    _need(param, "stepsize", param.stepsize > 0, "> 0")
    _need(param, "gamma", param.gamma >= 0, ">= 0")
    return param.base_lr * param.gamma ** (it // param.stepsize)


@register_policy("exp")
def exp(param: Any, it: int, current_step: int) -> float:
    """base_lr * gamma ^ it"""
    _need(param, "gamma", param.gamma >= 0, ">= 0")
    return param.base_lr * param.gamma**it


@register_policy("inv")
def inv(param: Any, it: int, current_step: int) -> float:
    """base_lr * (1 + gamma * it) ^ -power"""
    _need(param, "gamma", param.gamma >= 0, ">= 0")
    return param.base_lr * (1 + param.gamma * it) ** -param.power


@register_policy("multistep")
def multistep(param: Any, it: int, current_step: int) -> float:
    """base_lr * gamma ^ current_step"""
    _need(param, "gamma", param.gamma >= 0, ">= 0")
    return param.base_lr * param.gamma**current_step


@register_policy("poly")
def poly(param: Any, it: int, current_step: int) -> float:
    """base_lr * (1 - it / max_iter) ^ power"""
    _need(param, "max_iter", param.max_iter > 0, "> 0")
    return param.base_lr * max(0.0, 1 - it / param.max_iter) ** param.power


@register_policy("sigmoid")
def sigmoid(param: Any, it: int, current_step: int) -> float:
    """base_lr / (1 + exp(-gamma * (it - stepsize)))"""
    _need(param, "gamma", param.gamma >= 0, ">= 0")
    _need(param, "stepsize", param.stepsize > 0, "> 0")
    return param.base_lr / (1 + math.exp(min(-param.gamma * (it - param.stepsize), 700)))
