"""How long a net's layers take, as ``caffe time`` measures it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger("caffe_lite")


@dataclass
class Timing:
    """Milliseconds, the mean over all iterations.

    ``forward`` and ``backward`` are of whole passes; those of ``layers``, {name: (forward, backward)},
    are taken apart, without the fusion of a ReLU into the layer before, so they may add up to more.
    """

    forward: float = 0.0
    backward: float = 0.0
    layers: dict[str, tuple[float, float]] = field(default_factory=dict)


def measure(net: Any, iterations: int) -> Timing:
    """Time ``net`` after one warm-up pass; logs Caffe's lines for each iteration."""
    synchronize = net.device.synchronize
    last = len(net.layers) - 1
    log.info("Performing Forward")
    net.run_forward()
    log.info("Initial loss: %.6g", net.loss())
    log.info("Performing Backward")
    net._backward(last, 0)
    synchronize()
    log.info("*** Benchmark begins ***")
    log.info("Testing for %d iterations.", iterations)
    passes = [0.0, 0.0]
    for iteration in range(1, iterations + 1):
        spent = [_spent(lambda: net.run_forward(), synchronize), _spent(lambda: net._backward(last, 0), synchronize)]
        passes = [total + part for total, part in zip(passes, spent, strict=True)]
        log.info("Iteration: %d forward-backward time: %.6g ms.", iteration, sum(spent))
    layers = _layer_times(net, iterations, synchronize)
    return Timing(passes[0] / iterations, passes[1] / iterations, layers)


def _layer_times(net: Any, iterations: int, synchronize: Callable[[], None]) -> dict[str, tuple[float, float]]:
    sums = {direction: [0.0] * len(net.layers) for direction in ("forward", "backward")}
    began = [0.0]

    def start(_: int) -> None:
        synchronize()
        began[0] = time.perf_counter()

    def stopper(totals: list[float]) -> Callable[[int], None]:
        def stop(index: int) -> None:
            synchronize()
            totals[index] += (time.perf_counter() - began[0]) * 1e3 / iterations

        return stop

    def both_ways() -> None:
        net.run_forward()
        net._backward(len(net.layers) - 1, 0)

    added = [(f"before_{d}", start) for d in sums] + [(f"after_{d}", stopper(totals)) for d, totals in sums.items()]
    for when, callback in added:
        net.callbacks[when].append(callback)
    try:
        both_ways()  # not counted: a layer that was fused until now loads or compiles its kernel here
        for totals in sums.values():
            totals[:] = [0.0] * len(totals)
        for _ in range(iterations):
            both_ways()
    finally:
        for when, callback in added:
            net.callbacks[when].remove(callback)
    both = zip(sums["forward"], sums["backward"], strict=True)
    return {layer.name: spent for layer, spent in zip(net.layers, both, strict=True)}


def _spent(run: Callable[[], Any], synchronize: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    synchronize()
    return (time.perf_counter() - start) * 1e3


def log_timing(timing: Timing, iterations: int) -> None:
    """Caffe's lines at the end of ``caffe time``."""
    log.info("Average time per layer: ")
    for name, (forward, backward) in timing.layers.items():
        log.info("%10s\tforward: %.6g ms.", name, forward)
        log.info("%10s\tbackward: %.6g ms.", name, backward)
    total = timing.forward + timing.backward
    log.info("Average Forward pass: %.6g ms.", timing.forward)
    log.info("Average Backward pass: %.6g ms.", timing.backward)
    log.info("Average Forward-Backward: %.6g ms.", total)
    log.info("Total Time: %.6g ms.", total * iterations)
    log.info("*** Benchmark ends ***")


def explain(net: Any) -> str:
    """A line for each layer that can be computed in several ways: which one is taken, and why."""
    found = [(layer.name, layer.path, layer.reason) for layer in net.layers if hasattr(layer, "path")]
    fused = [f"{net.layers[relu].name} is done by {net.layers[i].name} as it writes" for i, relu in net._fused.items()]
    width = max((len(name) for name, _, _ in found), default=0)
    return "\n".join([f"{name:{width}}  {path:8}  {reason}" for name, path, reason in found] + fused)
