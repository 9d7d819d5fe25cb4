"""Solver: Caffe's training loop, in Caffe's order, once for every solver type.

One iteration: clear the parameters' diffs; test where test_interval asks for it; ``iter_size`` times
forward and backward; clip, divide by iter_size, regularise, update (:mod:`caffe_lite.update`); do what
a signal asked for; snapshot. A solver type says only how many ``slots`` (arrays like the parameter) it
keeps and how ``update`` turns a gradient into a change.

Of SolverParameter, layer_wise_reduce has no effect (there is one device), and solver_mode and
device_id, as in Caffe, only in the command ``train``: a net is built on the device that is in use.

Differs from Caffe: a loss or gradient that is NaN or infinite is never applied, see ``on_nan``.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from caffe_lite import bad_values, debug_info, device, prototxt, registry, snapshot, solver_testing, update, upgrade
from caffe_lite.errors import SolverError, WeightsError
from caffe_lite.net import Net
from caffe_lite.signals import SolverAction
from caffe_lite.solver_nets import describe_test_nets, describe_train_net, test_net_params, train_net_param

log = logging.getLogger("caffe_lite")
Event = dict[str, Any]


class Solver:
    """Base of the solver types; make one with :func:`get_solver`.

    Attributes: ``net`` (the train net), ``test_nets``, ``iter`` (updates done), ``param``
    (SolverParameter), ``history`` (all slots: first slot of each learnable parameter, then the
    second of each, as in .solverstate); ``smoothed_loss``, what is displayed.

    To set: ``on_nan``; ``keep_snapshots``, how many stay on disk (0: all); ``action_function``, asked once
    an iteration and once a test batch for a SolverAction (see :mod:`caffe_lite.signals`); ``listeners``,
    called as ``listener(event, fields)``: ``fields`` has "iter" always, and for event

        "iteration"  loss (an update was done or, see on_nan, skipped)
        "train"      loss, smoothed_loss, lr, seconds, outputs {name: array}: a displayed iteration
        "test"       net (its number), outputs, loss (None unless test_compute_loss)
        "snapshot"   model, state: paths
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

    def update(self, gradient: Any, rate: float, *slots: Any) -> None:
        """Turn ``gradient`` into what will be subtracted from the parameter, and advance the ``slots``.

        In place; flat arrays, a piece of the parameter at a time, so elementwise work only.
        """
        raise NotImplementedError

    def _build(self, param: Any, origin: str) -> None:
        log.info("Initializing solver from parameters: \n%s", param)
        self.param = param
        self.origin = origin
        self.iter = 0
        self.current_step = 0
        self.losses: list[float] = []
        self.smoothed_loss = 0.0
        self.first_loss_iter = 0  # the iteration of losses[0] when it was new
        self.resumed_losses = False  # restored from a snapshot: the next step() goes on with them
        self._stop = 0
        self.before_tests: dict[str, Any] | None = None  # what a snapshot during tests goes back to
        self.keep_snapshots = 0  # how many to keep on disk, 0: all
        self.write_snapshot: Callable[[Solver], tuple[str, str]] = snapshot.write
        self.callbacks: list[tuple[Callable[[], Any] | None, Callable[[], Any] | None]] = []
        self.listeners: list[Callable[[str, Event], Any]] = []
        self.action_function: Callable[[], SolverAction] | None = None
        self.on_nan = "stop"
        self._statistics: list[tuple[Any, Any]] = []  # what a bad iteration goes back to
        self._stop_requested = False
        self.snapshot_iter = -1  # the iteration of the last snapshot written or restored
        self._displayed: Event | None = None  # of this iteration, as long as its rate is not known
        self.policy = registry.policies.get(param.lr_policy, f"{origin}: lr_policy")
        self.check_param()
        if param.random_seed >= 0:
            device.set_random_seed(param.random_seed)
        self._build_nets()
        xp = self.net.device.xp
        self.history = [xp.zeros(b.shape, dtype=b.dtype) for _ in range(self.slots) for b in self.net.learnable_params]
        log.info("Solver scaffolding done.")

    def _build_nets(self) -> None:
        param, origin = self.param, self.origin
        train = train_net_param(param, origin)
        log.info("Creating training net %s", describe_train_net(param))
        self.net = Net.from_param(*train)
        self.test_nets = []
        tests = test_net_params(param, origin)
        for i, (test, source) in enumerate(zip(tests, describe_test_nets(param), strict=True)):
            log.info("Creating test net (#%d) specified by %s", i, source)
            self.test_nets.append(Net.from_param(*test))
            self.test_nets[i].debug_info = param.debug_info
        for name in (name.strip() for names in param.weights for name in names.split(",")):
            for net in (self.net, *self.test_nets):
                log.info("Finetuning from %s", name)
                net.copy_from(name)

    def check_param(self) -> None:
        """Refuse what cannot work, before any net is built.

        Raises:
            SolverError: naming the field.
        """
        param = self.param
        for name in ("iter_size", "average_loss"):
            if getattr(param, name) < 1:
                raise SolverError(f"{self.origin}: {name} must be >= 1, got {getattr(param, name)}")
        if param.regularization_type not in ("L1", "L2"):
            raise SolverError(
                f"{self.origin}: regularization_type must be 'L1' or 'L2', got {param.regularization_type!r}"
            )
        try:
            self.policy(param, 0, 0)
        except SolverError as error:
            raise SolverError(f"{self.origin}: {error}") from error
        if param.snapshot and not os.access(os.path.dirname(self.snapshot_prefix) or ".", os.W_OK):
            folder = os.path.dirname(self.snapshot_prefix) or "."
            raise SolverError(f"{self.origin}: cannot write snapshots to {folder!r}: no such folder, or not writable")

    # ---- one iteration

    def step(self, iterations: int) -> None:
        """Do ``iterations`` updates, or fewer if a signal stops them.

        Raises:
            SolverError: loss or gradients are NaN or infinite, and ``on_nan`` is "stop"; parameters
                and history are those of the last update.
        """
        stop = self.iter + iterations
        self._stop_requested = False
        self.before_tests = None
        self._stop = stop
        if not self.resumed_losses:
            self.losses.clear()
            self.smoothed_loss, self.first_loss_iter = 0.0, self.iter
        self.resumed_losses = False
        self._clock = time.perf_counter(), self.iter
        while self.iter < stop and not self._stop_requested:
            self.net.clear_param_diffs()
            if self._test_is_due():
                self.test_all()
                if self._stop_requested:
                    break
            self._iterate()
            self._act()

    def _iterate(self) -> None:
        """One update, from the callbacks before it on."""
        for on_start, _ in self.callbacks:
            if on_start:
                on_start()
        display = self._display_is_due()
        self.net.debug_info = display and self.param.debug_info
        self._statistics = bad_values.copy_statistics(self.net)
        loss = self._accumulate_gradients()
        usable = math.isfinite(loss)
        if usable:
            self._smooth(loss)
        else:
            self._reject(bad_values.explain_loss(self.net, loss))
            self.first_loss_iter += 1  # the window goes on where it was
            if not self.losses:
                self.smoothed_loss = loss
        if display:
            self._display(loss)
        if usable:
            for _, on_gradients_ready in self.callbacks:
                if on_gradients_ready:
                    on_gradients_ready()
            self.apply_update()
        else:
            self._log_rate(self.learning_rate())
            self.iter += 1
        self.tell("iteration", loss=loss)

    def _accumulate_gradients(self) -> float:
        """Forward and backward, iter_size times; the mean loss, or the first one that is not finite."""
        loss = 0.0
        last = len(self.net.layers) - 1
        for _ in range(self.param.iter_size):
            loss += self.net._forward(0, last)
            if not math.isfinite(loss):
                return loss
            self.net._backward(last, 0)
            if self.net.debug_info:
                debug_info.log_norms(self.net)
        return loss / self.param.iter_size

    def _act(self) -> None:
        """After an iteration: what a signal asks for, and the snapshot if one is due."""
        action = self.action_function() if self.action_function else SolverAction.NONE
        due = self.param.snapshot and self.iter % self.param.snapshot == 0
        if due or action is SolverAction.SNAPSHOT:
            self.snapshot_or_go_on()
        if action is SolverAction.STOP:
            self._stop_requested = True

    def tell(self, event: str, **fields: Any) -> None:
        """Call the listeners."""
        for listener in self.listeners:
            listener(event, {"iter": self.iter, **fields})

    # ---- NaN and infinity

    @property
    def on_nan(self) -> str:
        """What to do if a loss or gradient is NaN or infinite: "stop" (SolverError) or "skip" the update.

        In both cases parameters, statistics (BatchNorm) and history stay as they were to the bit, and
        recurrent layers start from states of zero. A skipped iteration counts; a bad loss is not smoothed.
        """
        return self._on_nan

    @on_nan.setter
    def on_nan(self, value: str) -> None:
        if value not in ("stop", "skip"):
            raise SolverError(f"{self.origin}: on_nan must be 'stop' or 'skip', got {value!r}")
        self._on_nan = value

    def _reject(self, reason: str) -> None:
        """Undo what forward did; raise, or go on, as ``on_nan`` says."""
        bad_values.undo_forward(self.net, self._statistics)
        if self.on_nan == "stop":
            raise SolverError(
                f"iteration {self.iter}: {reason}; try a smaller base_lr (now {self.param.base_lr:g}), "
                "clip_gradients, or check the data"
            )
        log.warning("Iteration %d: %s; the update is skipped", self.iter, reason)

    # ---- what is displayed

    def _smooth(self, loss: float) -> None:
        """Mean of the last average_loss losses since step() was called, as Caffe computes it."""
        window = self.param.average_loss
        if len(self.losses) < window:
            self.losses.append(loss)
            size = len(self.losses)
            self.smoothed_loss = (self.smoothed_loss * (size - 1) + loss) / size if size > 1 else loss
        else:
            index = (self.iter - self.first_loss_iter) % window
            self.smoothed_loss += (loss - self.losses[index]) / window
            self.losses[index] = loss

    def _display_is_due(self) -> bool:
        return bool(self.param.display and self.iter % self.param.display == 0)

    def _display(self, loss: float) -> None:
        since, first = self._clock
        self._clock = time.perf_counter(), self.iter
        seconds = self._clock[0] - since
        log.info(
            "Iteration %d (%.6g iter/s, %.6gs/%d iters), loss = %.6g",
            self.iter, (self.iter - first) / (seconds or 1), seconds, self.param.display, self.smoothed_loss,
        )  # fmt: skip
        outputs = {name: self.net.blobs[name].data for name in self.net.outputs}
        solver_testing.log_outputs(self.net, "    Train net", outputs)
        self._displayed = {"loss": loss, "smoothed_loss": self.smoothed_loss, "seconds": seconds, "outputs": outputs}

    def _log_rate(self, rate: float) -> None:
        if self._display_is_due():
            update.log_rate(self, rate)
        if self._displayed is not None:
            self.tell("train", lr=rate, **self._displayed)
            self._displayed = None

    # ---- update

    def learning_rate(self) -> float:
        """The rate of the coming update, before lr_mult."""
        return update.learning_rate(self)

    @property
    def lr(self) -> float:
        """The learning rate, as pycaffe's SGDSolver.lr."""
        return self.learning_rate()

    def apply_update(self) -> None:
        """Change the parameters by the gradients that their diffs hold, and count the iteration, as Caffe's does."""
        rate = self.learning_rate()
        squares = update.squared_norm(self.net)
        if not math.isfinite(squares):
            self._reject(bad_values.explain_gradients(self.net))
        self._log_rate(rate)
        if math.isfinite(squares):
            update.apply(self, rate, update.clip_scale(self.param.clip_gradients, squares))
        self.iter += 1

    def add_callback(self, on_start: Callable[[], Any] | None, on_gradients_ready: Callable[[], Any] | None) -> None:
        """Call ``on_start`` before the forward and ``on_gradients_ready`` before the update of each iteration."""
        self.callbacks.append((on_start, on_gradients_ready))

    # ---- test nets

    def _test_is_due(self) -> bool:
        interval = self.param.test_interval
        return bool(interval and self.iter % interval == 0 and (self.iter > 0 or self.param.test_initialization))

    def test_all(self) -> None:
        """Run every test net and log the mean of its outputs."""
        self.before_tests = snapshot.random_and_test_state(self)
        for index, net in enumerate(self.test_nets):
            if self.test(index, net) is None:
                return
        self.before_tests = None

    def test(self, index: int, net: Net) -> dict[str, np.ndarray] | None:
        """Mean of each output over test_iter[index] forwards of ``net``, with the train net's weights.

        None if a signal stopped it.
        """
        return solver_testing.test(self, index, net)

    def asked_to_stop(self) -> bool:
        """Between two batches of a test: do all that signals ask for; is a stop among it?"""
        stop = False
        while self.action_function and (action := self.action_function()) is not SolverAction.NONE:
            if action is SolverAction.SNAPSHOT:
                self.snapshot_or_go_on()
            stop = stop or action is SolverAction.STOP
        self._stop_requested = self._stop_requested or stop
        return stop

    # ---- whole runs and files

    def solve(self, resume_file: str | None = None) -> None:
        """Train up to max_iter, snapshotting as the prototxt asks and at the end; the same when a signal stops it."""
        log.info("Solving %s", self.net.name)
        log.info("Learning Rate Policy: %s", self.param.lr_policy)
        if resume_file:
            log.info("Restoring previous solver status from %s", resume_file)
            self.restore(resume_file)
        self.step(self.param.max_iter - self.iter)
        if self.param.snapshot_after_train and self.snapshot_iter != self.iter:
            self.snapshot()
        if self._stop_requested:
            log.info("Optimization stopped early.")
            return
        if self._display_is_due():
            self._smooth(self.net._forward(0, len(self.net.layers) - 1))
            log.info("Iteration %d, loss = %.6g", self.iter, self.smoothed_loss)
        if self.param.test_interval and self.iter % self.param.test_interval == 0:
            self.test_all()
        log.info("Optimization Done.")

    def share_weights(self, net: Net) -> None:
        """Let ``net`` use the train net's parameters wherever layer names agree."""
        net.share_with(self.net)

    @property
    def snapshot_prefix(self) -> str:
        """What snapshot names start with."""
        return snapshot.prefix_of(self.param, self.origin)

    def snapshot(self) -> tuple[str, str]:
        """Write the net and the solver's state; their paths (see :mod:`caffe_lite.snapshot`)."""
        model, state = self.write_snapshot(self)
        self.snapshot_iter = self.iter
        self.tell("snapshot", model=model, state=state)
        return model, state

    def snapshot_or_go_on(self) -> None:
        """Snapshot; if it cannot be written (a full disk), say so and train on: the one before is still there."""
        try:
            self.snapshot()
        except WeightsError as error:
            log.error("Iteration %d: no snapshot was written, training goes on: %s", self.iter, error)

    @property
    def stopped_early(self) -> bool:
        """Did a signal end the last step()?"""
        return self._stop_requested

    @property
    def losses_go_on(self) -> bool:
        """Is the coming iteration smoothed together with ``losses``, in a run of more iterations than this one too?"""
        return self.iter < self._stop or self.iter == self.param.max_iter

    def restore(self, state_file: str | os.PathLike[str]) -> None:
        """Go on from a .solverstate and the weights that it names (see :mod:`caffe_lite.snapshot`)."""
        snapshot.restore(self, state_file)
        self.snapshot_iter = self.iter


def get_solver(solver_file: str | os.PathLike[str]) -> Solver:
    """The solver that a solver.prototxt describes, by its ``type`` (SGD if it has none)."""
    param, positions = prototxt.read_solver(solver_file)
    param = upgrade.upgrade_solver(param)
    solver_class = registry.solvers.get(param.type, os.fspath(solver_file))
    return solver_class.from_param(param, os.fspath(solver_file))
