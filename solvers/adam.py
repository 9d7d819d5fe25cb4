"""Adam (Kingma and Ba 2015), as Caffe's AdamSolver: beta1 is ``momentum``, beta2 is ``momentum2``.

m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2
w <- w - rate sqrt(1 - beta2^t) / (1 - beta1^t)  m / (sqrt(v) + delta),   t: updates done + 1
"""

from __future__ import annotations

import math
from typing import Any

from caffe_lite.registry import register_solver
from caffe_lite.solver import Solver


@register_solver("Adam")
class AdamSolver(Solver):
    slots = 2

    def update(self, gradient: Any, rate: float, m: Any, v: Any) -> None:
        beta1, beta2, t = self.param.momentum, self.param.momentum2, self.iter + 1
        m *= beta1
        m += (1 - beta1) * gradient
        v *= beta2
        v += (1 - beta2) * gradient * gradient
        correction = math.sqrt(1 - beta2**t) / (1 - beta1**t)
        gradient[...] = m / (self.net.device.xp.sqrt(v) + self.param.delta)
        gradient *= rate * correction
