"""AdaDelta (Zeiler 2012), as Caffe's AdaDeltaSolver: the decay of both averages is ``momentum``.

h <- m h + (1 - m) g^2;  u = g sqrt((s + delta) / (h + delta));  s <- m s + (1 - m) u^2;  w <- w - rate u
"""

from __future__ import annotations

from typing import Any

from caffe_lite.registry import register_solver
from caffe_lite.solver import Solver


@register_solver("AdaDelta")
class AdaDeltaSolver(Solver):
    slots = 2

    def update(self, gradient: Any, rate: float, history: Any, steps: Any) -> None:
        momentum, delta = self.param.momentum, self.param.delta
        history *= momentum
        history += (1 - momentum) * gradient * gradient
        gradient *= self.net.device.xp.sqrt((steps + delta) / (history + delta))
        steps *= momentum
        steps += (1 - momentum) * gradient * gradient
        gradient *= rate
