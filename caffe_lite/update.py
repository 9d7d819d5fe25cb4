"""From gradients to new parameters: clip, divide by iter_size, regularise, let the solver type decide, subtract.

The order is Caffe's. Afterwards the diff of each parameter holds what was subtracted from it.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_lite import debug_info
from caffe_lite.bad_values import finite
from caffe_lite.errors import SolverError

if TYPE_CHECKING:
    from caffe_lite.net import Net
    from caffe_lite.solver import Solver

log = logging.getLogger("caffe_lite")
PIECE = 1 << 16  # elements updated at a time on the CPU: the arrays of a piece stay in cache


def learning_rate(solver: Solver) -> float:
    """The rate of the coming update, before lr_mult.

    Asking moves ``multistep`` on, as in Caffe: past one stepvalue at most.

    Raises:
        SolverError: the policy gives an infinite rate.
    """
    param, steps = solver.param, solver.param.stepvalue
    if param.lr_policy == "multistep" and solver.current_step < len(steps):
        if solver.iter >= steps[solver.current_step]:
            solver.current_step += 1
            log.info("MultiStep Status: Iteration %d, step = %d", solver.iter, solver.current_step)
    elif param.lr_policy == "step":
        solver.current_step = solver.iter // param.stepsize  # used by nobody, but Caffe writes it into .solverstate
    try:
        return solver.policy(param, solver.iter, solver.current_step)
    except OverflowError as error:
        raise SolverError(
            f"{solver.origin}: iteration {solver.iter}: lr_policy {param.lr_policy!r} gives an infinite rate "
            f"(gamma {param.gamma:g}, power {param.power:g})"
        ) from error


def log_rate(solver: Solver, rate: float) -> None:
    """Caffe's line with the learning rate."""
    log.info("Iteration %d, lr = %.6g", solver.iter, rate)


def squared_norm(net: Net) -> float:
    """Sum of the squares of all gradients, not finite if and only if one of them is not.

    One product for each parameter and one wait for the device, so that every iteration can afford it.
    """
    flat = [blob.diff.reshape(-1) for blob in net.learnable_params if blob.diff_in_use]
    with np.errstate(over="ignore"):
        total = float(sum(diff @ diff for diff in flat))
    if math.isfinite(total) or not all(finite(b, "diff") for b in net.learnable_params if b.diff_in_use):
        return total
    return float(sum((diff.astype("float64") ** 2).sum() for diff in flat))  # float32 overflowed


def clip_scale(limit: float, squares: float) -> float:
    """Factor that brings the L2 norm of all gradients down to ``limit``; 1 if it is below, or if limit < 0."""
    norm = math.sqrt(squares)
    if limit < 0 or norm <= limit:
        return 1.0
    scale = limit / norm
    log.info("Gradient clipping: scaling down gradients (L2 norm %.6g > %.6g) by scale factor %.6g", norm, limit, scale)
    return scale


def apply(solver: Solver, rate: float, scale: float) -> None:
    """Update all parameters of ``solver.net``: ``scale`` times their gradients, learning rate ``rate``."""
    net, slots = solver.net, solver.slots
    # A class of one's own that changes ``update`` inherits no ``update_fused`` that would go past it.
    fused = vars(type(solver)).get("update_fused") if net.device.is_gpu else None
    count = len(net.learnable_params)
    for k, (blob, spec) in enumerate(zip(net.learnable_params, net.learnable_specs, strict=True)):
        decay = solver.param.weight_decay * spec.decay_mult
        if not blob.diff_in_use and not decay:
            continue  # a frozen parameter: its gradient is zero, and no memory is spent to say so
        weight, change = blob.data.reshape(-1), blob.diff.reshape(-1)
        history = [solver.history[k + j * count].reshape(-1) for j in range(slots)]
        if fused:
            fused(solver, weight, change, scale, decay, rate * spec.lr_mult, not net.debug_info, *history)
        for piece in () if fused else _pieces(blob.count, net.device.is_gpu):
            _regularise(solver, weight[piece], change[piece], scale, decay)
            solver.update(change[piece], rate * spec.lr_mult, *(array[piece] for array in history))
            if not net.debug_info:
                weight[piece] -= change[piece]
        if net.debug_info:  # the line shows the parameter before the update
            debug_info.log_update(net, k)
            weight -= change


def _pieces(count: int, whole: bool) -> list[slice]:
    step = max(count, 1) if whole else PIECE
    return [slice(at, at + step) for at in range(0, count, step)]


def _regularise(solver: Solver, weight: Any, gradient: Any, scale: float, decay: float) -> None:
    """``gradient`` of one piece, as the solver type's rule expects it."""
    if scale != 1:
        gradient *= scale
    if solver.param.iter_size != 1:
        gradient *= 1.0 / solver.param.iter_size
    if decay:
        if solver.param.regularization_type == "L2":
            gradient += decay * weight
        else:
            gradient += decay * solver.net.device.xp.sign(weight)
