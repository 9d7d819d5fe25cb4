"""Snapshots: what a solver writes so that training can go on, and how it goes on from them.

<prefix>_iter_<N>.caffemodel     the net's parameters
<prefix>_iter_<N>.solverstate    iteration, history blobs, the .caffemodel it belongs to
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_lite import weights
from caffe_lite.errors import WeightsError
from caffe_lite.proto import caffe_pb2

if TYPE_CHECKING:
    from caffe_lite.solver import Solver

log = logging.getLogger("caffe_lite")


def write(solver: Solver) -> tuple[str, str]:
    """Write ``<prefix>_iter_<N>.caffemodel`` and ``.solverstate``; their paths."""
    stem = f"{solver.snapshot_prefix}_iter_{solver.iter}"
    model, state = f"{stem}.caffemodel", f"{stem}.solverstate"
    log.info("Snapshotting to binary proto file %s", model)
    solver.net.save(model, write_diff=solver.param.snapshot_diff)
    log.info("Snapshotting solver state to binary proto file %s", state)
    proto = caffe_pb2.SolverState(iter=solver.iter, learned_net=model, current_step=solver.current_step)
    for array in solver.history:
        weights.array_to_blob(solver.net.device.to_host(array), proto.history.add())
    weights.write_state(state, proto)
    return model, state


def restore(solver: Solver, state_file: str | os.PathLike[str]) -> None:
    """Let ``solver`` go on from a .solverstate and the .caffemodel that it names.

    Raises:
        WeightsError: a file is damaged or of another net; the solver is unchanged if it is the state.
    """
    path = os.fspath(state_file)
    state = weights.read_state(path)
    arrays = _history_from(solver, state.history, path)
    if state.learned_net:
        solver.net.copy_from(_beside(state.learned_net, path))
    for target, values in zip(solver.history, arrays, strict=True):
        target[...] = solver.net.device.xp.asarray(values, dtype=target.dtype)
    solver.iter = state.iter
    solver.current_step = state.current_step


def _history_from(solver: Solver, protos: Sequence[Any], path: str) -> list[np.ndarray]:
    if len(protos) != len(solver.history):
        raise WeightsError(
            f"{path}: {len(protos)} history blob(s), this {type(solver).__name__} keeps {len(solver.history)}; "
            "the state is of another net or solver type"
        )
    arrays = [weights.blob_to_array(proto) for proto in protos]
    for k, (array, target) in enumerate(zip(arrays, solver.history, strict=True)):
        if array.size != target.size:
            raise WeightsError(f"{path}: history blob {k} has shape {array.shape}, this net needs {target.shape}")
    return [a.reshape(t.shape) for a, t in zip(arrays, solver.history, strict=True)]


def _beside(learned_net: str, state_path: str) -> str:
    """The weights that a state names: where it says, or beside the state if the pair was moved."""
    if os.path.exists(learned_net):
        return learned_net
    moved = os.path.join(os.path.dirname(state_path), os.path.basename(learned_net))
    return moved if os.path.exists(moved) else learned_net
