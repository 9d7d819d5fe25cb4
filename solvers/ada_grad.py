"""AdaGrad (Duchi et al. 2011): h <- h + g^2;  w <- w - rate g / (sqrt(h) + delta). Takes no momentum."""

from __future__ import annotations

from typing import Any

from caffe_lite.errors import SolverError
from caffe_lite.registry import register_solver
from caffe_lite.solver import Solver


@register_solver("AdaGrad")
class AdaGradSolver(Solver):
    slots = 1

    def check_param(self) -> None:
        super().check_param()
        if self.param.momentum:
            raise SolverError(f"{self.origin}: AdaGrad takes no momentum, got {self.param.momentum:g}")

    def update(self, gradient: Any, rate: float, history: Any) -> None:
        history += gradient * gradient
        gradient *= rate
        gradient /= self.net.device.xp.sqrt(history) + self.param.delta
