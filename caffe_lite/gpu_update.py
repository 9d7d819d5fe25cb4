"""Updates of parameters on a GPU that one kernel does in one pass over the memory."""

from __future__ import annotations

from typing import Any

from caffe_lite.cuda import Kernels

kernels = Kernels(__file__)


def sgd(
    weight: Any,
    gradient: Any,
    history: Any,
    scale: float,
    share: float,
    decay: float,
    l1: bool,
    rate: float,
    momentum: float,
    subtract: bool,
) -> None:
    """h <- momentum h + rate (scale share g + decay r);  g <- h;  w <- w - h if ``subtract``.

    r is w, or its sign if ``l1``. The three arrays are of one shape and dtype, C-contiguous.
    """
    scalars = float(scale), float(share), float(decay), l1, float(rate), float(momentum), subtract
    kernels("sgd_update", weight.size, *scalars, weight, gradient, history, dtype=weight.dtype)
