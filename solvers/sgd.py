"""SGD with momentum: h <- momentum h + rate g;  w <- w - h   (Caffe's SGDSolver).

``g`` is the gradient after clipping, division by iter_size and weight decay; ``rate`` the learning
rate of the iteration times the parameter's lr_mult.
"""

from __future__ import annotations

from typing import Any

from caffe_lite import gpu_update
from caffe_lite.registry import register_solver
from caffe_lite.solver import Solver


@register_solver("SGD")
class SGDSolver(Solver):
    slots = 1

    def update(self, gradient: Any, rate: float, history: Any) -> None:
        history *= self.param.momentum
        history += rate * gradient
        gradient[...] = history

    def update_fused(
        self, weight: Any, gradient: Any, scale: float, decay: float, rate: float, subtract: bool, history: Any
    ) -> None:
        """All that ``update.apply`` does with a parameter on a GPU, in one pass."""
        share = 1.0 / self.param.iter_size
        l1 = self.param.regularization_type != "L2"
        gpu_update.sgd(weight, gradient, history, scale, share, decay, l1, rate, self.param.momentum, subtract)
