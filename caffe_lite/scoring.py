"""The means of a net's outputs over its data, as ``caffe test`` reports them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

log = logging.getLogger("caffe_lite")


def score(net: Any, iterations: int, each_batch: bool = True) -> dict[str, np.ndarray]:
    """Run ``net`` ``iterations`` times; {output: mean of its values, float64}.

    Logs Caffe's lines: one for each value of each batch, then the mean loss and the means.
    """
    log.info("Running for %d iterations.", iterations)
    sums = {name: np.zeros(net.blobs[name].shape) for name in net.outputs}
    loss = 0.0
    for batch in range(iterations):
        outputs = net.forward()
        loss += net.loss()
        for name, values in outputs.items():
            sums[name] = sums[name] + values
            for value in np.ravel(values) if each_batch else ():
                log.info("Batch %d, %s = %.6g", batch, name, value)
    log.info("Loss: %.6g", loss / iterations)
    means = {name: total / iterations for name, total in sums.items()}
    for name, mean in means.items():
        for value in np.ravel(mean):
            log.info("%s", output_text(net, name, value))
    return means


def output_text(net: Any, name: str, value: float) -> str:
    """An element of an output in Caffe's words: name, value, and its share of the loss if it is one."""
    weight = net.blob_loss_weights[name]
    note = f" (* {weight:.6g} = {weight * value:.6g} loss)" if weight else ""
    return f"{name} = {value:.6g}{note}"
