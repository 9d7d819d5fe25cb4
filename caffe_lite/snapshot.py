"""Snapshots: what a solver writes so that training can go on, and how it goes on from them.

<prefix>_iter_<N>.caffemodel                the net's parameters
<prefix>_iter_<N>.solverstate               iteration, history blobs, the .caffemodel it belongs to
<prefix>_iter_<N>.solverstate.resume.npz    what Caffe's files have no field for (:mod:`caffe_lite.sidecar`)

The first two are Caffe's, in protobuf or, with ``snapshot_format: HDF5`` and one more ``.h5``, in HDF5.
With the third, N iterations, a stop and M more give the same bits as N + M.

All three are on disk before one gets its name, and the state gets its own last: a process that is
killed, or a disk that is full, leaves the snapshots before as they are. The third file knows the sizes
and SHA-256 of the others, so that damaged ones are refused and :func:`latest` passes them over.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_lite import caffemodel, hdf5_weights, sidecar, transfer, weights
from caffe_lite.atomic import atomic_files, remove_left_behind
from caffe_lite.errors import WeightsError
from caffe_lite.hdf5_weights import State
from caffe_lite.proto import caffe_pb2

if TYPE_CHECKING:
    from caffe_lite.solver import Solver

log = logging.getLogger("caffe_lite")
HDF5_ENDING = ".h5"
_ENDING = re.compile(r"_iter_(\d+)\.solverstate(\.h5)?")  # of a name, after the prefix


# ---- writing


def prefix_of(param: Any, origin: str) -> str:
    """What snapshot names start with: snapshot_prefix, or the solver's path without its ending.

    In a snapshot_prefix that is a folder, names begin as the solver's file does.
    """
    stem = os.path.splitext(origin)[0]
    if not param.snapshot_prefix:
        return stem
    is_folder = os.path.isdir(param.snapshot_prefix)
    return os.path.join(param.snapshot_prefix, os.path.basename(stem)) if is_folder else param.snapshot_prefix


def write(
    solver: Solver,
    parameters: dict[str, list[np.ndarray]] | None = None,
    notes: dict[str, Any] | None = None,
) -> tuple[str, str]:
    """Write a snapshot; the paths of the .caffemodel and the .solverstate.

    Older ones go where solver.keep_snapshots says how many to keep, after the new one is on disk.

    Args:
        parameters: {layer: arrays} for ``restore``, of layers whose blobs now are not what training goes on with.
        notes: kept for the application that trains.

    Raises:
        WeightsError: it cannot be written; nothing on disk has changed.
        SolverError: a layer's state() cannot be kept.
    """
    prefix = solver.snapshot_prefix
    hdf5 = solver.param.snapshot_format == caffe_pb2.SolverParameter.HDF5
    stem, ending = f"{prefix}_iter_{solver.iter}", HDF5_ENDING if hdf5 else ""
    model, state = f"{stem}.caffemodel{ending}", f"{stem}.solverstate{ending}"
    kind = "HDF5" if hdf5 else "binary proto"
    content = _resume_content(solver) | {"parameters": parameters or {}, "notes": notes or {}}
    try:
        with atomic_files() as files:
            streams = [files.open(path) for path in (model, sidecar.path_of(state), state)]  # named in this order
            log.info("Snapshotting to %s file %s", kind, model)
            parts = _model_parts(solver, model, hdf5)
            content["files"] = {"model": sidecar.fingerprint(model, parts, streams[0])}
            log.info("Snapshotting solver state to %s file %s", kind, state)
            content["files"]["state"] = sidecar.fingerprint(state, _state_parts(solver, model, state, hdf5), streams[2])
            streams[1].write(sidecar.encode(content))
    except OSError as error:
        why = error.strerror or error
        raise WeightsError(f"{stem}: the snapshot was not written: {why}; those before are untouched") from error
    try:
        remove_left_behind(f"{prefix}_iter_")
        if solver.keep_snapshots:
            prune(prefix, solver.keep_snapshots, solver.iter)
    except OSError as error:
        log.warning("an old snapshot cannot be removed: %s", error)
    return model, state


def _model_parts(solver: Solver, path: str, hdf5: bool) -> Iterable[Any]:
    write_diff = solver.param.snapshot_diff
    if hdf5:
        return [hdf5_weights.net_bytes(solver.net, write_diff)]
    return transfer.encoded_net(solver.net, path, write_diff)


def _state_parts(solver: Solver, model: str, path: str, hdf5: bool) -> Iterable[Any]:
    arrays = (solver.net.device.to_host(array) for array in solver.history)
    if hdf5:
        return [hdf5_weights.state_bytes(State(solver.iter, model, list(arrays), solver.current_step))]
    return caffemodel.encoded_state(path, solver.iter, model, arrays, solver.current_step)


def _resume_content(solver: Solver) -> dict[str, Any]:
    return {
        "solver": {
            "type": solver.param.type,
            "iter": solver.iter,
            "average_loss": solver.param.average_loss,
            "losses": list(solver.losses) if solver.losses_go_on else [],
            "smoothed_loss": solver.smoothed_loss,
            "first_loss_iter": solver.first_loss_iter,
        },
        "train": sidecar.layer_states(solver.net),
        **(solver.before_tests or random_and_test_state(solver)),
    }


def random_and_test_state(solver: Solver) -> dict[str, Any]:
    """What a test changes: the random streams and the layers of the test nets."""
    return {
        "random": sidecar.random_streams(),
        "test": [sidecar.layer_states(net) for net in solver.test_nets],
    }


# ---- going on


def restore(solver: Solver, state_file: str | os.PathLike[str]) -> None:
    """Let ``solver`` go on from a .solverstate, Caffe's or ours.

    Without its .resume.npz it goes on as Caffe does, and a warning says what begins anew.

    Raises:
        WeightsError: a file is damaged, or of another net or data. The solver is unchanged unless the .caffemodel
            lacks a layer or a layer refuses its state.
    """
    path = os.fspath(state_file)
    content = _verified(path)
    state = read_state(path)
    model = _model_of(state, path, content)
    arrays = _history_from(solver, state.history, path)
    if model:
        report = solver.net.copy_from(model)
        if report.untouched:
            raise WeightsError(
                f"{model}: holds no parameters of layer {report.untouched[0]!r}: it is cut, or of another net"
            )
    for target, values in zip(solver.history, arrays, strict=True):
        target[...] = solver.net.device.xp.asarray(values, dtype=target.dtype)
    solver.iter = state.iter
    solver.current_step = state.current_step
    if content is None:
        _warn_of_what_begins_anew(solver, path)
    else:
        _go_on_exactly(solver, content, sidecar.path_of(path))


def read_state(path: str | os.PathLike[str]) -> State:
    """The content of a .solverstate or .solverstate.h5.

    Raises:
        WeightsError: the file is missing, cut, or no solver state.
    """
    path = os.fspath(path)
    if path.endswith(HDF5_ENDING) or hdf5_weights.is_hdf5(path):
        return hdf5_weights.read_state(path)
    proto = weights.read_state(path)
    if not proto.HasField("current_step"):
        raise WeightsError(f"{path}: truncated: it has no current_step, which Caffe writes last")
    try:
        history = [weights.blob_to_array(blob) for blob in proto.history]
    except WeightsError as error:
        raise WeightsError(f"{path}: history blob: {error}") from error
    return State(proto.iter, proto.learned_net, history, proto.current_step)


def _history_from(solver: Solver, arrays: Sequence[np.ndarray], path: str) -> list[np.ndarray]:
    if len(arrays) != len(solver.history):
        raise WeightsError(
            f"{path}: {len(arrays)} history blob(s), this {type(solver).__name__} keeps {len(solver.history)}; "
            "the state is of another net or solver type, or cut"
        )
    for k, (array, target) in enumerate(zip(arrays, solver.history, strict=True)):
        if array.size != target.size:
            raise WeightsError(f"{path}: history blob {k} has shape {array.shape}, this net needs {target.shape}")
    return [a.reshape(t.shape) for a, t in zip(arrays, solver.history, strict=True)]


def _go_on_exactly(solver: Solver, content: dict[str, Any], origin: str) -> None:
    """What the resume file ``origin`` keeps; layers come after the streams, which they may put back themselves."""
    saved = content["solver"]
    if saved["type"] != solver.param.type:
        log.warning("%s: written by a %s solver, this one is %s", origin, saved["type"], solver.param.type)
    for name, arrays in content["parameters"].items():
        for blob, values in zip(solver.net.layer_dict[name].blobs, arrays, strict=True):
            blob.on_device.data[...] = solver.net.device.xp.asarray(values, dtype=blob.dtype)
    solver.losses[:] = saved["losses"] if saved["average_loss"] == solver.param.average_loss else []
    solver.resumed_losses = bool(solver.losses)
    solver.smoothed_loss, solver.first_loss_iter = saved["smoothed_loss"], saved["first_loss_iter"]
    sidecar.set_random_streams(content["random"], origin)
    sidecar.set_layer_states(solver.net, content["train"], origin)
    if len(content["test"]) != len(solver.test_nets):
        log.warning(
            "%s: of %d test nets, here are %d: they begin anew", origin, len(content["test"]), len(solver.test_nets)
        )
        return
    for net, states in zip(solver.test_nets, content["test"], strict=True):
        sidecar.set_layer_states(net, states, origin)


def _warn_of_what_begins_anew(solver: Solver, path: str) -> None:
    places = ", ".join(repr(name) for name in sidecar.layer_states(solver.net))
    log.warning(
        "%s: resuming as Caffe does, as there is no %s beside it. Not restored: random streams (dropout, crops, "
        "shuffling), the window of average_loss%s",
        path, sidecar.SUFFIX, f", the places of layers {places}" if places else "",
    )  # fmt: skip


# ---- the files of a snapshot


def model_path(state_file: str | os.PathLike[str]) -> str:
    """<stem>.caffemodel[.h5] for <stem>.solverstate[.h5]."""
    return ".caffemodel".join(os.fspath(state_file).rsplit(".solverstate", 1))


def state_path(model_file: str | os.PathLike[str]) -> str:
    """<stem>.solverstate[.h5] for <stem>.caffemodel[.h5]."""
    return ".solverstate".join(os.fspath(model_file).rsplit(".caffemodel", 1))


def _verified(path: str, deep: bool = True) -> dict[str, Any] | None:
    """The content of a state's resume file, after a look at the files that it belongs to; None without one."""
    resume = sidecar.path_of(path)
    if not os.path.exists(resume):
        return None
    content = sidecar.read(resume)
    sidecar.verify(path, content["files"]["state"], deep)
    sidecar.verify(_model_beside(path, content), content["files"]["model"], deep)
    return content


def _model_beside(path: str, content: dict[str, Any]) -> str:
    return os.path.join(os.path.dirname(path), os.path.basename(content["files"]["model"]["name"]))


def _model_of(state: State, path: str, content: dict[str, Any] | None) -> str:
    """The weights of a state: beside it if it is ours; Caffe's, where it says or, if the pair was moved, beside it."""
    if content is not None:
        return _model_beside(path, content)
    beside = os.path.join(os.path.dirname(path), os.path.basename(state.learned_net))
    moved = state.learned_net and not os.path.exists(state.learned_net) and os.path.exists(beside)
    return beside if moved else state.learned_net


def check(state_file: str | os.PathLike[str]) -> None:
    """Read the files of a snapshot.

    Raises:
        WeightsError: one is missing or damaged.
    """
    path = os.fspath(state_file)
    content = _verified(path)
    model = _model_of(read_state(path), path, content)
    if content is None and model:
        if hdf5_weights.is_hdf5(model):
            hdf5_weights.read_parameters(model)
        else:
            with caffemodel.open_net(model):
                pass


def latest(prefix: str | os.PathLike[str]) -> str | None:
    """The .solverstate of the newest whole and undamaged snapshot ``<prefix>_iter_<N>``, or None.

    Newer ones that are damaged are passed over with a warning that says why.
    """
    for _, path in _states(os.fspath(prefix)):
        try:
            check(path)
        except WeightsError as error:
            log.warning("passing over a snapshot: %s", error)
        else:
            return path
    return None


def prune(prefix: str | os.PathLike[str], keep: int, up_to: int | None = None) -> list[str]:
    """Remove all but the newest ``keep`` whole snapshots ``<prefix>_iter_<N>``; the .solverstates removed.

    ``up_to``: leave those of a later iteration alone (another run's); by default there are none. What stays
    is judged by its sizes only. A .caffemodel without state or resume file is not a snapshot and stays.
    """
    removed = []
    for iteration, path in _states(os.fspath(prefix)):
        if up_to is not None and iteration > up_to:
            continue
        if keep > 0:
            with contextlib.suppress(WeightsError):
                if _verified(path, deep=False) is None:
                    read_state(path)
                keep -= 1
            continue
        for file in (
            path,
            model_path(path),
            sidecar.path_of(path),
        ):  # the state first: none is left that names a missing model
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)
        removed.append(path)
    return removed


def _states(prefix: str) -> Iterator[tuple[int, str]]:
    """(iteration, path) of the states of a prefix, newest first; of a lone resume file too, whose state is missing."""
    begin = len(os.path.basename(prefix))
    found = set()
    for path in glob.glob(f"{glob.escape(prefix)}_iter_*.solverstate*"):
        path = path.removesuffix(sidecar.SUFFIX)
        if match := _ENDING.fullmatch(os.path.basename(path), begin):
            found.add((int(match[1]), path))
    yield from sorted(found, reverse=True)
