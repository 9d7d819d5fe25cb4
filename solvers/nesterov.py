"""Nesterov's accelerated gradient: h' <- momentum h + rate g;  w <- w - ((1 + momentum) h' - momentum h)."""

from __future__ import annotations

from typing import Any

from caffe_lite.registry import register_solver
from caffe_lite.solver import Solver


@register_solver("Nesterov")
class NesterovSolver(Solver):
    slots = 1

    def update(self, gradient: Any, rate: float, history: Any) -> None:
        momentum = self.param.momentum
        before = momentum * history
        gradient *= rate
        gradient += before
        history[...] = gradient
        gradient *= 1 + momentum
        gradient -= before
