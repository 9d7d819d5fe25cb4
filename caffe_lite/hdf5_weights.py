"""Trained nets and solver states in HDF5: Caffe's .caffemodel.h5 and .solverstate.h5.

    .caffemodel.h5    /data/<layer>/<i>   parameter i, float32 or float64 (a shared one with its owner only)
                      /diff/<layer>/<i>   its gradient, of every parameter, if it was asked for
    .solverstate.h5   iter, current_step (1,) int32;  learned_net, a text;  history/<k>, the history blobs

A file is made in memory and then written in one piece, so that a full disk is an error like any other
and never a half-closed HDF5 file. Unlike protobuf's files these may be larger than 2 GiB.

Differs from Caffe: a layer whose name has a slash in it is kept as nested groups (Caffe cannot write it).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe_lite.errors import WeightsError
from caffe_lite.transfer import CopyReport

if TYPE_CHECKING:
    from caffe_lite.net import Net

SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass
class State:
    """What a solver state holds: updates done, the path of the weights, history blobs, steps of multistep passed."""

    iter: int
    learned_net: str
    history: list[np.ndarray]
    current_step: int


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Does the file begin as HDF5 files do? False for one that cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


# ---- writing


def net_bytes(net: Net, write_diff: bool = False) -> bytes:
    """``net``'s parameters, and their gradients if ``write_diff``, as the content of a .caffemodel.h5."""

    def fill(file: Any) -> None:
        owners = {id(blob) for blob in net.learnable_params}
        for layer in net.layers:
            data = file.create_group(f"data/{layer.name}")
            diff = file.create_group(f"diff/{layer.name}") if write_diff else None
            for i, blob in enumerate(layer.blobs):
                if id(blob.on_device) in owners:
                    data[str(i)] = net.device.to_host(blob.on_device.data)
                if diff is not None:
                    diff[str(i)] = net.device.to_host(blob.on_device.diff)

    return _image(fill)


def state_bytes(state: State) -> bytes:
    """The content of a .solverstate.h5."""

    def fill(file: Any) -> None:
        for name, value in (("iter", state.iter), ("current_step", state.current_step)):
            file[name] = np.array([value], dtype=np.int32)
        _put_text(file, "learned_net", os.fsencode(state.learned_net))
        history = file.create_group("history")
        for k, array in enumerate(state.history):
            history[str(k)] = array

    return _image(fill)


def _image(fill: Callable[[Any], None]) -> bytes:
    """The bytes of an HDF5 file with what ``fill`` puts into it."""
    import h5py

    with h5py.File("in memory", "w", driver="core", backing_store=False, block_size=1 << 22) as file:
        fill(file)
        file.flush()
        return file.id.get_file_image()


def _put_text(file: Any, name: str, text: bytes) -> None:
    """A dataset as H5LTmake_dataset_string makes it: of fixed length, ended by a zero byte, which Caffe relies on."""
    from h5py import h5d, h5s, h5t

    kind = h5t.C_S1.copy()
    kind.set_size(len(text) + 1)
    kind.set_strpad(h5t.STR_NULLTERM)
    dataset = h5d.create(file.id, name.encode(), kind, h5s.create(h5s.SCALAR))
    dataset.write(h5s.ALL, h5s.ALL, np.array(text, dtype=f"S{len(text) + 1}"))


# ---- reading


@contextmanager
def open_file(path: str | os.PathLike[str], kind: str) -> Iterator[Any]:
    """An HDF5 file to read from.

    Raises:
        WeightsError: it cannot be opened, or turns out damaged inside the ``with``.
    """
    import h5py

    path = os.fspath(path)
    if not os.path.isfile(path):
        raise WeightsError(f"{path}: cannot be read: no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except WeightsError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # how h5py says that bytes make no sense
        size = os.path.getsize(path)
        raise WeightsError(f"{path}: damaged, or not {kind} in HDF5 ({size} bytes): {error}") from error


def read_state(path: str | os.PathLike[str]) -> State:
    """The content of a .solverstate.h5.

    Raises:
        WeightsError: the file is missing, truncated, or no solver state.
    """
    path = os.fspath(path)
    with open_file(path, "a .solverstate") as file:
        history = _member(file, "history", path)
        return State(
            int(_array(file, "iter", path).ravel()[0]),
            _text(file["learned_net"][()]) if "learned_net" in file else "",
            [_array(history, str(k), path) for k in range(len(history))],
            int(_array(file, "current_step", path).ravel()[0]),
        )


def read_parameters(path: str | os.PathLike[str]) -> dict[str, dict[int, np.ndarray]]:
    """``{layer: {i: parameter i}}`` of a .caffemodel.h5; layers without parameters are left out.

    Raises:
        WeightsError: the file is missing, truncated, or holds no trained net.
    """
    import h5py

    path = os.fspath(path)
    found: dict[str, dict[int, np.ndarray]] = {}
    with open_file(path, "a .caffemodel") as file:
        data = _member(file, "data", path)

        def visit(name: str, item: Any) -> None:
            layer, _, index = name.rpartition("/")
            if isinstance(item, h5py.Dataset):
                if not (layer and index.isdecimal()):
                    raise WeightsError(f"{path}: /data/{name} is no parameter: expected /data/<layer>/<number>")
                found.setdefault(layer, {})[int(index)] = _array(data, name, path)

        data.visititems(visit)
    return found


def copy_into(net: Net, path: str | os.PathLike[str], strict: bool = False) -> CopyReport:
    """Copy the parameters of a .caffemodel.h5 into ``net`` by layer name.

    A parameter that the net shares with another layer may be absent. Everything is checked before
    anything is written. ``strict``: every layer with parameters, of the file and of the net, must be copied.

    Raises:
        WeightsError: the file is damaged, or a layer's number of blobs or a shape differs, or too much or
            too little if ``strict``; nothing was copied.
    """
    path = os.fspath(path)
    source = read_parameters(path)
    report = CopyReport(ignored=[name for name in source if name not in net.layer_dict])
    owners = {id(blob) for blob in net.learnable_params}
    for name, layer in net.layer_dict.items():
        found = source.get(name, {})
        blobs = [blob.on_device for blob in layer.blobs]
        needed = {i for i, blob in enumerate(blobs) if id(blob) in owners}
        why = _difference(name, blobs, found, needed) if name in source else ""
        if why:
            report.mismatched[name] = why
        elif name in source:
            report.copied.append(name)
        elif needed:
            report.untouched.append(name)
    if strict:
        report.refuse_incomplete(path)
    report.refuse_mismatched(path)
    for name in report.copied:
        for i, values in source[name].items():
            blob = net.layer_dict[name].blobs[i].on_device
            blob.data[...] = net.device.xp.asarray(values, dtype=blob.dtype)
    return report


def _difference(name: str, blobs: list[Any], found: dict[int, np.ndarray], needed: set[int]) -> str:
    """Why the parameters ``found`` in a file cannot be those of a layer, or ""."""
    if needed - set(found) or max(found) >= len(blobs):
        return (
            f"layer {name!r} has parameter blob(s) {sorted(found)} in the file, {len(blobs)} in the net; "
            "if the net's layer is a different one, give it another name"
        )
    for i, values in found.items():
        if values.shape != blobs[i].shape:
            return (
                f"layer {name!r}, parameter {i}: shape {values.shape} in the file, {blobs[i].shape} in the net; "
                "rename the layer in the prototxt to train it anew, or use the prototxt that the file was made with"
            )
    return ""


def _member(file: Any, name: str, path: str) -> Any:
    if name not in file:
        raise WeightsError(f"{path}: has no {name!r}; it is damaged, or not one of Caffe's HDF5 files")
    return file[name]


def _array(file: Any, name: str, path: str) -> np.ndarray:
    array = np.asarray(_member(file, name, path)[()])
    if array.dtype.kind not in "fiu":
        raise WeightsError(f"{path}: {name!r} must hold numbers, got {array.dtype}")
    return array


def _text(value: Any) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)
