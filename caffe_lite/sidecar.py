"""The resume file: what a run depends on that Caffe's .solverstate has no field for.

<state>.resume.npz stands beside <state>, say ``x_iter_100.solverstate.resume.npz``. It is a NumPy .npz
without pickles: entry ``content`` is JSON in UTF-8, and where that says ``{"__array__": k}`` stands
entry ``array_k``.

    format, version    "caffe_lite resume", 1
    files              model and state: name, bytes and SHA-256 of the files that it belongs to
    solver             type, iter, losses (the window of average_loss), smoothed_loss, first_loss_iter
    random             the streams of caffe_lite, of numpy's legacy global generator, of the module random
    train, test        {layer: what Layer.state() gave}, of the train net and of each test net
    parameters         {layer: arrays} that the model file holds in another form than training needs
    notes              of the application that trains (Fast R-CNN: the normalisation of its box targets)
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
from collections.abc import Iterable
from typing import IO, Any

import numpy as np

from caffe_lite import device
from caffe_lite.errors import CaffeError, SolverError, WeightsError
from caffe_lite.layer import Layer
from caffe_lite.net import Net

FORMAT, VERSION = "caffe_lite resume", 1
SUFFIX = ".resume.npz"
_ARRAY = "__array__"


def path_of(state_path: str | os.PathLike[str]) -> str:
    """The resume file that belongs to a .solverstate."""
    return os.fspath(state_path) + SUFFIX


# ---- the file


def encode(content: dict[str, Any]) -> bytes:
    """``content`` (numbers, texts, lists, dictionaries, arrays) as the bytes of a resume file; always the same ones.

    Raises:
        SolverError: something in it is of another type.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = _to_json({"format": FORMAT, "version": VERSION, **content}, arrays, "")
    entries: dict[str, Any] = {"content": np.frombuffer(json.dumps(tree).encode(), np.uint8), **arrays}
    stream = io.BytesIO()
    np.savez(stream, **entries)
    return stream.getvalue()


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a resume file, lists for tuples.

    Raises:
        WeightsError: the file is damaged, none of ours, or of a newer version.
    """
    path = os.fspath(path)
    otherwise = "delete it to resume as Caffe does, without random streams and places in the data"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        tree = json.loads(arrays["content"].tobytes())
        if tree["format"] != FORMAT:
            raise ValueError(f"it says that it is {tree['format']!r}")
        version = tree["version"]
        content = _from_json(tree, arrays)
        missing = [name for name in ("files", "solver", "random", "train", "test") if name not in content]
        if missing and version <= VERSION:
            raise ValueError(f"it has no {', '.join(missing)}")
    except Exception as error:  # there is no end to what zipfile and numpy raise for bytes that make no sense
        why = str(error) or type(error).__name__
        raise WeightsError(f"{path}: damaged, or not a resume file: {why}; {otherwise}") from error
    if version > VERSION:
        raise WeightsError(f"{path}: of version {version}, this caffe_lite reads up to {VERSION}; {otherwise}")
    return content


def _to_json(value: Any, arrays: dict[str, np.ndarray], where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        arrays[f"array_{len(arrays)}"] = value
        return {_ARRAY: len(arrays) - 1}
    if isinstance(value, list | tuple):
        return [_to_json(item, arrays, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) and key != _ARRAY for key in value):
        return {key: _to_json(item, arrays, f"{where}.{key}" if where else key) for key, item in value.items()}
    raise SolverError(
        f"snapshot: {where} holds {value!r} ({type(value).__name__}), which cannot be kept: a layer's state() is "
        "made of numbers, texts, lists, dictionaries with texts as keys, and NumPy arrays"
    )


def _from_json(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_from_json(item, arrays) for item in value]
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[f"array_{value[_ARRAY]}"]
        return {key: _from_json(item, arrays) for key, item in value.items()}
    return value


# ---- which files it belongs to


def fingerprint(path: str | os.PathLike[str], parts: Iterable[Any], stream: IO[bytes]) -> dict[str, Any]:
    """Write ``parts`` to ``stream``; what says later whether ``path`` still holds them."""
    size, digest = 0, hashlib.sha256()
    for part in parts:
        stream.write(part)
        digest.update(part)
        size += len(part)
    return {"name": os.path.basename(path), "bytes": size, "sha256": digest.hexdigest()}


def verify(path: str, expected: dict[str, Any], deep: bool = True) -> None:
    """Compare the file at ``path`` with its fingerprint; ``deep``: not only its size.

    Raises:
        WeightsError: it is missing, cut, or another file.
    """
    try:
        size = os.path.getsize(path)
        if size != expected["bytes"]:
            kind = "it is cut" if size < expected["bytes"] else "it is another file"
            raise WeightsError(f"{path}: {size} bytes, {expected['bytes']} were written: {kind}")
        if not deep:
            return
        with open(path, "rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if digest.hexdigest() != expected["sha256"]:
        raise WeightsError(
            f"{path}: damaged, or changed since it was written: its bytes are not those that the resume file was made "
            f"for; to go on with it as Caffe does, delete the {SUFFIX} beside it"
        )


# ---- random streams and layers


def random_streams() -> dict[str, Any]:
    """The places of all random streams of the process."""
    kind, key, gauss = random.getstate()
    return {
        "caffe_lite": device.random_state(),
        "numpy": np.random.get_state(legacy=False),
        "python": {"version": kind, "key": np.array(key, np.uint32), "gauss": gauss},
    }


def set_random_streams(streams: dict[str, Any], origin: str) -> None:
    """Go back to ``random_streams()``; WeightsError, naming ``origin``, if they are of another kind."""
    try:
        device.set_random_state(streams["caffe_lite"])
        np.random.set_state(streams["numpy"])
        python = streams["python"]
        random.setstate((python["version"], tuple(map(int, python["key"])), python["gauss"]))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{origin}: its random streams cannot be used here: {error!r}") from error


def layer_states(net: Net) -> dict[str, Any]:
    """``{layer: state}`` of the layers that have one."""
    states = {layer.name: type(layer).state(layer) for layer in net.layers if _has_state(layer)}
    return {name: state for name, state in states.items() if state is not None}


def set_layer_states(net: Net, states: dict[str, Any], origin: str) -> None:
    """Give each layer its state back.

    Raises:
        WeightsError: a state does not fit its layer, or the net has no such layer; layers before it are changed.
    """
    for name, state in states.items():
        layer = net.layer_dict.get(name)
        if layer is None or not _has_state(layer):
            raise WeightsError(f"{origin}: keeps a state of layer {name!r}, which net {net.name!r} does not have")
        try:
            type(layer).set_state(layer, state)
        except (CaffeError, LookupError, TypeError, ValueError) as error:
            why = str(error) if f"layer {name!r}" in str(error) else f"layer {name!r}: {error!r}"
            raise WeightsError(f"{origin}: {why}; to begin that anew, as Caffe does, delete the file") from error


def _has_state(layer: Layer) -> bool:
    """By its class: a user's Python layer may have an attribute ``state`` that means something else."""
    return callable(type(layer).state) and type(layer).set_state is not Layer.set_state
