"""Running a solver's test nets, and printing what nets put out, in Caffe's words."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_lite.scoring import output_text

if TYPE_CHECKING:
    from caffe_lite.net import Net
    from caffe_lite.solver import Solver

log = logging.getLogger("caffe_lite")


def test(solver: Solver, index: int, net: Net) -> dict[str, np.ndarray] | None:
    """Mean of each output over test_iter[index] forwards of ``net``, with the train net's weights.

    None if a signal stopped it; signals are looked at before each forward.
    """
    net.share_with(solver.net)
    log.info("Iteration %d, Testing net (#%d)", solver.iter, index)
    rounds, compute_loss = solver.param.test_iter[index], solver.param.test_compute_loss
    sums: dict[str, np.ndarray] = {}
    loss = 0.0
    for _ in range(rounds):
        if solver.asked_to_stop():
            log.info("Test interrupted.")
            return None
        for name, values in net.forward().items():
            sums[name] = sums[name] + values if name in sums else np.array(values)
        loss += net.loss() if compute_loss else 0.0
    means = {name: np.asarray(values / rounds) for name, values in sums.items()}
    if compute_loss:
        log.info("Test loss: %.6g", loss / rounds)
    log_outputs(net, "    Test net", means)
    solver.tell("test", net=index, outputs=means, loss=loss / rounds if compute_loss else None)
    return means


def log_outputs(net: Net, title: str, outputs: dict[str, Any]) -> None:
    """A line for each element of each output of ``net``: number, name, value, share of the loss if it is one."""
    number = 0
    for name, values in outputs.items():
        for value in np.ravel(values):
            log.info("%s output #%d: %s", title, number, output_text(net, name, value))
            number += 1
