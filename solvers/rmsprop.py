"""RMSProp (Tieleman and Hinton 2012): h <- d h + (1 - d) g^2;  w <- w - rate g / (sqrt(h) + delta).

d is ``rms_decay``, in [0, 1). Takes no momentum.
"""

from __future__ import annotations

from typing import Any

from caffe_lite.errors import SolverError
from caffe_lite.registry import register_solver
from caffe_lite.solver import Solver


@register_solver("RMSProp")
class RMSPropSolver(Solver):
    slots = 1

    def check_param(self) -> None:
        super().check_param()
        if self.param.momentum:
            raise SolverError(f"{self.origin}: RMSProp takes no momentum, got {self.param.momentum:g}")
        if not 0 <= self.param.rms_decay < 1:
            raise SolverError(f"{self.origin}: rms_decay must be in [0, 1), got {self.param.rms_decay:g}")

    def update(self, gradient: Any, rate: float, history: Any) -> None:
        decay = self.param.rms_decay
        history *= decay
        history += (1 - decay) * gradient * gradient
        gradient *= rate
        gradient /= self.net.device.xp.sqrt(history) + self.param.delta
