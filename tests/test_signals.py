"""Signals: what they ask of a solver, when it listens, and that everything is as before afterwards."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from caffe_lite.signals import SignalHandler, SolverAction
from caffe_lite.solver import Solver
from tests.solver_maker import make_solver

NONE, STOP, SNAPSHOT = SolverAction.NONE, SolverAction.STOP, SolverAction.SNAPSHOT


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def solver_that_gets(number: int, at: int, text: str = "") -> Solver:
    """A solver whose process gets the signal ``number`` during iteration ``at`` (from 0)."""
    solver = make_solver(f'max_iter: 6 snapshot_prefix: "s" {text}')
    solver.add_callback(lambda: solver.iter == at and send(number), None)
    return solver


def run(solver: Solver, **actions: SolverAction) -> list[str]:
    """The snapshots that solve() writes under a SignalHandler."""
    written: list[str] = []
    solver.listeners.append(lambda event, fields: event == "snapshot" and written.append(fields["state"]))
    with SignalHandler(**actions) as signals:
        solver.action_function = signals.requested
        solver.solve()
    return written


def test_numbers_are_caffes() -> None:
    assert [int(action) for action in (NONE, STOP, SNAPSHOT)] == [0, 1, 2]


def test_sigint_stops_after_the_iteration_with_a_snapshot(caplog: pytest.LogCaptureFixture) -> None:
    solver = solver_that_gets(signal.SIGINT, at=2)
    with caplog.at_level("INFO", "caffe_lite"):
        assert run(solver) == ["s_iter_3.solverstate"]
    assert solver.iter == 3
    assert caplog.messages[-1] == "Optimization stopped early."


def test_without_snapshot_after_train_a_stop_writes_nothing() -> None:
    solver = solver_that_gets(signal.SIGINT, at=2, text="snapshot_after_train: false")
    assert run(solver) == [] and solver.iter == 3


def test_a_stop_where_a_snapshot_was_due_writes_one() -> None:
    assert run(solver_that_gets(signal.SIGINT, at=2, text="snapshot: 3")) == ["s_iter_3.solverstate"]


def test_sighup_snapshots_and_training_goes_on() -> None:
    solver = solver_that_gets(signal.SIGHUP, at=1)
    assert run(solver) == ["s_iter_2.solverstate", "s_iter_6.solverstate"] and solver.iter == 6


@pytest.mark.parametrize(
    ("sigint", "sighup", "states", "done"),
    [(SNAPSHOT, NONE, ["s_iter_2.solverstate", "s_iter_6.solverstate"], 6), (NONE, STOP, ["s_iter_6.solverstate"], 6)],
)
def test_effects_of_sigint_are_configurable(sigint, sighup, states: list[str], done: int) -> None:
    solver = solver_that_gets(signal.SIGINT, at=1)
    assert run(solver, sigint=sigint, sighup=sighup) == states and solver.iter == done


def test_sighup_can_stop() -> None:
    solver = solver_that_gets(signal.SIGHUP, at=1)
    assert run(solver, sighup=STOP) == ["s_iter_2.solverstate"] and solver.iter == 2


def test_a_second_sigint_stops_at_once() -> None:
    solver = solver_that_gets(signal.SIGINT, at=3, text="snapshot: 2")
    solver.add_callback(lambda: solver.iter == 3 and send(signal.SIGINT), None)
    with pytest.raises(KeyboardInterrupt):
        run(solver)
    assert solver.iter == 3
    make_solver('snapshot_prefix: "s"').restore("s_iter_2.solverstate")


def test_a_second_sigint_counts_during_the_snapshot_of_the_first_too() -> None:
    solver = solver_that_gets(signal.SIGINT, at=1)
    write = solver.write_snapshot

    def interrupted(s: Solver) -> tuple[str, str]:
        send(signal.SIGINT)
        return write(s)

    solver.write_snapshot = interrupted
    with pytest.raises(KeyboardInterrupt):
        run(solver)


@pytest.mark.parametrize(("number", "states"), [(signal.SIGHUP, [2, 6]), (signal.SIGINT, [2])])
def test_signals_are_heard_between_the_batches_of_a_test(number: int, states: list[int], caplog) -> None:
    solver = make_solver('max_iter: 6 snapshot_prefix: "s" test_iter: 3 test_interval: 2 test_initialization: false')
    (net,) = solver.test_nets
    forward, batches = net.forward, []

    def next_batch():
        batches.append(solver.iter)
        if len(batches) == 1:
            send(number)
        return forward()

    net.forward = next_batch
    with caplog.at_level("INFO", "caffe_lite"):
        assert run(solver) == [f"s_iter_{n}.solverstate" for n in states]
    stopped = number == signal.SIGINT
    assert batches == ([2] if stopped else [2] * 3 + [4] * 3 + [6] * 3)
    assert ("Test interrupted." in caplog.messages) == stopped
    assert solver.iter == states[-1]


def test_after_a_stop_the_same_solver_goes_on() -> None:
    solver = solver_that_gets(signal.SIGINT, at=2, text="test_iter: 1 test_interval: 100")
    run(solver)
    solver.action_function = None
    solver.step(1)
    assert solver.iter == 4
    assert solver.test(0, solver.test_nets[0]) is not None


def test_handlers_are_there_only_inside_the_with() -> None:
    numbers = signal.SIGINT, signal.SIGHUP
    before = [signal.getsignal(n) for n in numbers]
    with pytest.raises(ZeroDivisionError), SignalHandler():
        assert all(signal.getsignal(n) != b for n, b in zip(numbers, before, strict=True))
        raise ZeroDivisionError
    assert [signal.getsignal(n) for n in numbers] == before


def test_sighup_is_answered_before_sigint_and_each_once() -> None:
    with SignalHandler() as signals:
        send(signal.SIGINT)
        send(signal.SIGHUP)
        send(signal.SIGHUP)
        assert [signals.requested() for _ in range(3)] == [SNAPSHOT, STOP, NONE]


def test_another_thread_leaves_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with SignalHandler() as signals:
            seen.extend([signal.getsignal(signal.SIGINT), signals.requested()])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, NONE]
