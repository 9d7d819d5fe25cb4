"""Solver: Caffe's training loop, in Caffe's order, once for every solver type.

One iteration: clear the parameters' diffs; test where test_interval asks for it; ``iter_size`` times
forward and backward; clip, divide by iter_size, regularise, update; snapshot. A solver type says only
how many ``slots`` (arrays like the parameter) it keeps and how ``update`` uses them.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from caffe_lite import device, prototxt, registry, snapshot, upgrade
from caffe_lite.errors import SolverError
from caffe_lite.net import Net
from caffe_lite.solver_nets import test_net_params, train_net_param

log = logging.getLogger("caffe_lite")
PIECE = 1 << 16  # elements updated at a time on the CPU: the arrays of a piece stay in cache


class Solver:
    """Base of the solver types; make one with :func:`get_solver`.

    Attributes: ``net`` (the train net), ``test_nets``, ``iter`` (updates done), ``param``
    (SolverParameter), ``history`` (all slots: first slot of each learnable parameter, then the
    second of each, as in .solverstate).
    """

    slots = 1

    def __init__(self, solver_file: str | os.PathLike[str]) -> None:
        param, _ = prototxt.read_solver(solver_file)
        self._build(upgrade.upgrade_solver(param), os.fspath(solver_file))

    @classmethod
    def from_param(cls, param: Any, origin: str = "") -> Solver:
        """A solver from a SolverParameter; ``origin`` is the name used in errors."""
        solver = cls.__new__(cls)
        solver._build(param, origin)
        return solver

    def update(self, weight: Any, gradient: Any, rate: float, *slots: Any) -> None:
        """Change ``weight`` and ``slots`` in place: flat arrays, elementwise work only."""
        raise NotImplementedError

    def _build(self, param: Any, origin: str) -> None:
        self.param = param
        self.origin = origin
        self.iter = 0
        self.current_step = 0
        self.losses: list[float] = []
        self.smoothed_loss = 0.0
        self.callbacks: list[tuple[Callable[[], Any] | None, Callable[[], Any] | None]] = []
        self._policy = registry.policies.get(param.lr_policy, f"{origin}: lr_policy")
        self.check_param()
        if param.random_seed >= 0:
            device.set_random_seed(param.random_seed)
        self.net = Net.from_param(*train_net_param(param, origin))
        self.test_nets = [Net.from_param(*net) for net in test_net_params(param, origin)]
        for name in (name for names in param.weights for name in names.split(",")):
            for net in (self.net, *self.test_nets):
                net.copy_from(name.strip())
        xp = self.net.device.xp
        self.history = [xp.zeros(b.shape, dtype=b.dtype) for _ in range(self.slots) for b in self.net.learnable_params]

    def check_param(self) -> None:
        param = self.param
        for name in ("iter_size", "average_loss"):
            if getattr(param, name) < 1:
                raise SolverError(f"{self.origin}: {name} must be >= 1, got {getattr(param, name)}")
        if param.regularization_type not in ("L1", "L2"):
            raise SolverError(
                f"{self.origin}: regularization_type must be 'L1' or 'L2', got {param.regularization_type!r}"
            )
        if param.snapshot and not os.access(os.path.dirname(self.snapshot_prefix) or ".", os.W_OK):
            folder = os.path.dirname(self.snapshot_prefix) or "."
            raise SolverError(f"{self.origin}: cannot write snapshots to {folder!r}: no such folder, or not writable")

    # ---- one iteration

    def step(self, iterations: int) -> None:
        """Do ``iterations`` updates.

        Raises:
            SolverError: the loss is NaN or infinite; the parameters are those of the last update.
        """
        stop = self.iter + iterations
        self.losses.clear()
        self.smoothed_loss = 0.0
        started, started_at = time.perf_counter(), self.iter
        while self.iter < stop:
            self.net.clear_param_diffs()
            if self._test_is_due():
                self.test_all()
            for on_start, _ in self.callbacks:
                if on_start:
                    on_start()
            loss = self._accumulate_gradients()
            self._smooth(loss)
            if self.param.display and self.iter % self.param.display == 0:
                self._log_progress(time.perf_counter() - started, self.iter - started_at)
                started, started_at = time.perf_counter(), self.iter
            for _, on_gradients_ready in self.callbacks:
                if on_gradients_ready:
                    on_gradients_ready()
            self.apply_update()
            self.iter += 1
            if self.param.snapshot and self.iter % self.param.snapshot == 0:
                self.snapshot()

    def _accumulate_gradients(self) -> float:
        loss = 0.0
        last = len(self.net.layers) - 1
        for _ in range(self.param.iter_size):
            loss += self.net._forward(0, last)
            if not math.isfinite(loss):
                raise SolverError(self._explain_bad_loss(loss))
            self.net._backward(last, 0)
        return loss / self.param.iter_size

    def _explain_bad_loss(self, loss: float) -> str:
        """Which layer went wrong first, and on what."""
        culprit = "no blob holds one: the sum of the losses overflowed"
        for layer, bottoms, tops in self.net.layer_blobs():
            found = [f"parameter {i}" for i, blob in enumerate(layer.blobs) if _has_bad_value(blob)]
            found += [f"bottom {name!r}" for name, blob in bottoms if _has_bad_value(blob)]
            found += [f"top {name!r}" for name, blob in tops if _has_bad_value(blob)]
            if found:
                culprit = f"first seen in layer {layer.name!r} ({layer.type}), {found[0]}"
                break
        images = [path for layer in self.net.layers for path in getattr(layer, "minibatch_images", ())]
        shown = f"; images of the minibatch: {', '.join(map(str, images))}" if images else ""
        return (
            f"iteration {self.iter}: the loss is {loss}; {culprit}{shown}; "
            f"try a smaller base_lr (now {self.param.base_lr:g}), clip_gradients, or check the data"
        )

    def _smooth(self, loss: float) -> None:
        """Mean of the last average_loss losses since step() was called, as Caffe computes it."""
        window = self.param.average_loss
        if len(self.losses) < window:
            self.losses.append(loss)
            size = len(self.losses)
            self.smoothed_loss = (self.smoothed_loss * (size - 1) + loss) / size
        else:
            index = self.iter % window
            self.smoothed_loss += (loss - self.losses[index]) / window
            self.losses[index] = loss

    def _log_progress(self, seconds: float, iterations: int) -> None:
        rate = iterations / seconds if seconds > 0 and iterations else 0.0
        log.info(
            "Iteration %d (%.6g iter/s, %.6gs/%d iters), loss = %.6g",
            self.iter, rate, seconds, self.param.display, self.smoothed_loss,
        )  # fmt: skip
        self._log_outputs(self.net, "    Train net", {name: self.net.blobs[name].data for name in self.net.outputs})
        log.info("Iteration %d, lr = %.6g", self.iter, self.learning_rate())

    @staticmethod
    def _log_outputs(net: Net, title: str, outputs: dict[str, Any]) -> None:
        number = 0
        for name, values in outputs.items():
            weight = net.blob_loss_weights[name]
            for value in np.ravel(values):
                note = f" (* {weight:.6g} = {weight * value:.6g} loss)" if weight else ""
                log.info("%s output #%d: %s = %.6g%s", title, number, name, value, note)
                number += 1

    # ---- update

    def learning_rate(self) -> float:
        """The rate of the coming update, before lr_mult."""
        steps = self.param.stepvalue
        if self.param.lr_policy == "multistep" and self.current_step < len(steps):
            if self.iter >= steps[self.current_step]:  # at most one step at a time, as in Caffe
                self.current_step += 1
                log.info("MultiStep Status: Iteration %d, step = %d", self.iter, self.current_step)
        return self._policy(self.param, self.iter, self.current_step)

    @property
    def lr(self) -> float:
        """The learning rate, as pycaffe's SGDSolver.lr."""
        return self.learning_rate()

    def apply_update(self) -> None:
        """Change the parameters by the gradients that their diffs hold."""
        rate = self.learning_rate()
        scale = self._clip_scale()
        count = len(self.net.learnable_params)
        for k, (blob, spec) in enumerate(zip(self.net.learnable_params, self.net.learnable_specs, strict=True)):
            decay = self.param.weight_decay * spec.decay_mult
            if not blob.diff_in_use and not decay:
                continue  # a frozen parameter: its gradient is zero, and no memory is spent to say so
            slots = [self.history[k + j * count].reshape(-1) for j in range(self.slots)]
            arrays = [blob.data.reshape(-1), blob.diff.reshape(-1), *slots]
            piece = blob.count if self.net.device.is_gpu else PIECE
            for at in range(0, blob.count, max(piece, 1)):
                weight, gradient, *parts = (a[at : at + piece] for a in arrays)
                self._regularise(weight, gradient, scale, decay)
                self.update(weight, gradient, rate * spec.lr_mult, *parts)

    def _regularise(self, weight: Any, gradient: Any, scale: float, decay: float) -> None:
        if scale != 1:
            gradient *= scale
        if self.param.iter_size != 1:
            gradient *= 1.0 / self.param.iter_size
        if decay:
            if self.param.regularization_type == "L2":
                gradient += decay * weight
            else:
                gradient += decay * self.net.device.xp.sign(weight)

    def _clip_scale(self) -> float:
        """Factor that brings the L2 norm of all gradients down to clip_gradients; 1 if it is below."""
        limit = self.param.clip_gradients
        if limit < 0:
            return 1.0
        squares = 0.0
        for blob in self.net.learnable_params:
            if not blob.diff_in_use:
                continue
            flat = blob.diff.reshape(-1)
            squares += float(flat @ flat)
        norm = math.sqrt(squares)
        if norm <= limit:
            return 1.0
        log.info(
            "Gradient clipping: scaling down gradients (L2 norm %.6g > %.6g) by scale factor %.6g",
            norm,
            limit,
            limit / norm,
        )
        return limit / norm

    def add_callback(self, on_start: Callable[[], Any] | None, on_gradients_ready: Callable[[], Any] | None) -> None:
        """Call ``on_start`` before the forward and ``on_gradients_ready`` before the update of each iteration."""
        self.callbacks.append((on_start, on_gradients_ready))

    # ---- test nets

    def _test_is_due(self) -> bool:
        interval = self.param.test_interval
        return bool(interval and self.iter % interval == 0 and (self.iter > 0 or self.param.test_initialization))

    def test_all(self) -> None:
        """Run every test net and log the mean of its outputs."""
        for index, net in enumerate(self.test_nets):
            self.test(index, net)

    def test(self, index: int, net: Net) -> dict[str, np.ndarray]:
        """Mean of each output over test_iter[index] forwards of ``net``, with the train net's weights."""
        net.share_with(self.net)
        log.info("Iteration %d, Testing net (#%d)", self.iter, index)
        rounds = self.param.test_iter[index]
        sums: dict[str, np.ndarray] = {}
        loss = 0.0
        for _ in range(rounds):
            outputs = net.forward()
            for name, values in outputs.items():
                sums[name] = sums[name] + values if name in sums else np.array(values)
            loss += net.loss() if self.param.test_compute_loss else 0.0
        means = {name: values / rounds for name, values in sums.items()}
        if self.param.test_compute_loss:
            log.info("Test loss: %.6g", loss / rounds)
        self._log_outputs(net, "    Test net", means)
        return means

    # ---- whole runs and files

    def solve(self, resume_file: str | None = None) -> None:
        """Train up to max_iter, snapshotting as the prototxt asks and at the end."""
        log.info("Solving %s", self.net.name)
        log.info("Learning Rate Policy: %s", self.param.lr_policy)
        if resume_file:
            self.restore(resume_file)
        self.step(self.param.max_iter - self.iter)
        if self.param.snapshot_after_train and not (self.param.snapshot and self.iter % self.param.snapshot == 0):
            self.snapshot()
        if self.param.display and self.iter % self.param.display == 0:
            loss = self.net._forward(0, len(self.net.layers) - 1)
            log.info("Iteration %d, loss = %.6g", self.iter, loss)
        if self.param.test_interval and self.iter % self.param.test_interval == 0:
            self.test_all()
        log.info("Optimization Done.")

    @property
    def snapshot_prefix(self) -> str:
        """What snapshot names start with: snapshot_prefix, or the solver's path without its ending."""
        prefix = self.param.snapshot_prefix
        stem = os.path.splitext(self.origin)[0]
        if not prefix:
            return stem
        return os.path.join(prefix, os.path.basename(stem)) if os.path.isdir(prefix) else prefix

    def snapshot(self) -> tuple[str, str]:
        """Write the net and the solver's state; their paths (see :mod:`caffe_lite.snapshot`)."""
        return snapshot.write(self)

    def restore(self, state_file: str | os.PathLike[str]) -> None:
        """Go on from a .solverstate and the weights that it names (see :mod:`caffe_lite.snapshot`)."""
        snapshot.restore(self, state_file)


def _has_bad_value(blob: Any) -> bool:
    blob = blob.on_device
    return not bool(blob.device.xp.isfinite(blob.data).all())


def get_solver(solver_file: str | os.PathLike[str]) -> Solver:
    """The solver that a solver.prototxt describes, by its ``type`` (SGD if it has none)."""
    param, positions = prototxt.read_solver(solver_file)
    param = upgrade.upgrade_solver(param)
    solver_class = registry.solvers.get(param.type, os.fspath(solver_file))
    return solver_class.from_param(param, os.fspath(solver_file))
