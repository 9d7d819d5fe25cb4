"""Weights from elsewhere into a net: .safetensors, .npz, or a PyTorch state dict, by an explicit name map.

The map says for each array of the net, named as in :mod:`caffe_lite.export.arrays`, which array of the
file it takes: ``{"conv1_1.weight": "features.0.weight", ...}``. Shapes must be equal: convolutions and
fully connected layers are laid out alike in Caffe and PyTorch, and both flatten (C, H, W) in this order.
A BatchNorm whose mean and variance are mapped may leave out its scale_factor, which is then 1.

The first layer is made to take Caffe's images. ``rgb_to_bgr`` reverses the order of its input channels.
A net that was trained on (x / 255 - mean) / std takes, with its weights divided by 255 std, images
x - 255 mean with x in 0..255; padding, which is 0 in both, stays exact. What is left to subtract are the
``mean_values``, in the order of the channels that the net then has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe_lite.errors import CaffeError, WeightsError, did_you_mean
from caffe_lite.export.arrays import import_safetensors, named_blobs
from caffe_lite.export.pytorch import import_torch

FORMATS = (".safetensors", ".npz", ".pt", ".pth")


class ImportReport:
    """What an import did: ``copied`` arrays, those of the file that are ``unused``, and how to prepare images."""

    def __init__(self, copied: Sequence[str], unused: Sequence[str]) -> None:
        self.copied = list(copied)
        self.unused = list(unused)
        self.notes: list[str] = []  # what was done to the first layer
        self.mean_values: list[float] | None = None  # to subtract from pixels of 0..255, by channel


def read_map(path: str | os.PathLike[str]) -> dict[str, str]:
    """A name map: a JSON object of texts.

    Raises:
        WeightsError: it is missing or something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_no_duplicates)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not a JSON name map: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise WeightsError(f'{path}: a name map is an object of texts: {{"conv1.weight": "features.0.weight", ...}}')
    return found


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"{repeated!r} is mapped twice")
    return dict(pairs)


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """{name: array} of a .safetensors, .npz, .pt or .pth; nothing in the file is run.

    Of a checkpoint that holds a "state_dict" that is taken.

    Raises:
        WeightsError: the file is missing, damaged, or of another format.
        CaffeError: a package that reads it is missing.
    """
    path = os.fspath(path)
    ending = os.path.splitext(path)[1]
    if ending not in FORMATS:
        raise WeightsError(f"{path}: no format is known by this ending; it can be {', '.join(FORMATS)}")
    if not os.path.isfile(path):
        raise WeightsError(f"{path}: no such file")
    read = {".safetensors": _read_safetensors, ".npz": _read_npz}.get(ending, _read_torch)
    try:
        arrays = read(path)
    except CaffeError:
        raise
    except Exception as error:  # each library has its own errors for a damaged file
        raise WeightsError(f"{path}: damaged, or not a {ending} of arrays: {error}") from error
    odd = next((name for name, array in arrays.items() if array.dtype.kind not in "fiub"), None)
    if odd is not None:
        raise WeightsError(f"{path}: {odd!r} holds {arrays[odd].dtype}, expected numbers")
    return arrays


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
    return dict(import_safetensors().load_file(path))


def _read_npz(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _read_torch(path: str) -> dict[str, np.ndarray]:
    torch = import_torch()
    found = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise WeightsError(f"{path}: holds no state dict; save model.state_dict()")
    floats = (torch.float16, torch.bfloat16)
    return {name: (t.float() if t.dtype in floats else t).detach().numpy() for name, t in found.items()}


def import_arrays(
    net: Any,
    arrays: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    origin: str,
    rgb_to_bgr: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ImportReport:
    """Copy ``arrays``, of the file ``origin``, into ``net`` by the map ``names``.

    rgb_to_bgr: the layer whose input channels are reversed. mean, std: what images were normalised with,
    for pixels of 0..1, by channel in the order of the file.

    Raises:
        WeightsError: with all arrays that are missing, unknown or do not fit; the net is unchanged.
    """
    blobs = named_blobs(net)
    names = dict(names)
    problems = _problems(blobs, arrays, names)
    first = _first_layer(net, rgb_to_bgr) if rgb_to_bgr or mean is not None or std is not None else None
    if first is not None and f"{first}.weight" not in names:
        problems.append(f"{first}.weight: not mapped, and it is to take other images")
    if problems:
        raise WeightsError(f"{origin}: does not fit the net, nothing was written:\n  " + "\n  ".join(problems))
    values = {name: np.array(arrays[source], dtype=np.float32) for name, source in names.items()}
    report = ImportReport(list(names), sorted(set(arrays) - set(names.values())))
    if first is not None:
        values[f"{first}.weight"] = _adapt(values[f"{first}.weight"], first, bool(rgb_to_bgr), mean, std, report)
    for name, blob in blobs.items():
        blob.data[...] = 1.0 if name not in values else values[name]
    return report


def _problems(blobs: Mapping[str, Any], arrays: Mapping[str, np.ndarray], names: Mapping[str, str]) -> list[str]:
    """Everything that keeps the map from being followed."""
    found = [f"{name}: the net has no such array{did_you_mean(name, blobs)}" for name in names if name not in blobs]
    for name, blob in blobs.items():
        source = names.get(name)
        if source is None:
            if not _may_be_left_out(name, blobs, names):
                found.append(f"{name} {tuple(blob.shape)}: not in the map")
        elif source not in arrays:
            found.append(f"{name}: the file has no {source!r}{did_you_mean(source, arrays)}")
        elif arrays[source].shape != tuple(blob.shape):
            found.append(f"{name}: {source!r} has shape {arrays[source].shape}, the net needs {tuple(blob.shape)}")
    return found


def _may_be_left_out(name: str, blobs: Mapping[str, Any], names: Mapping[str, str]) -> bool:
    layer, _, what = name.rpartition(".")
    return what == "scale_factor" and f"{layer}.mean" in names and f"{layer}.variance" in names


# ---- the first layer


def _first_layer(net: Any, given: str | None) -> str:
    """The layer with weights that reads the images; ``given`` if it is one."""
    if given is not None:
        if f"{given}.weight" not in named_blobs(net):
            raise WeightsError(f"there is no layer {given!r} with a weight{did_you_mean(given, net.params)}")
        return given
    image = net.inputs[0] if net.inputs else ""
    reading = [n.layer.name for n in net.nodes if n.bottom_names == [image] and n.layer.type == "Convolution"]
    if len(reading) != 1:
        raise WeightsError("which layer reads the images cannot be told; give its name (--rgb-to-bgr)")
    return str(reading[0])


def _adapt(
    weight: np.ndarray,
    layer: str,
    reverse: bool,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    report: ImportReport,
) -> np.ndarray:
    """``weight`` (K, C, ...) for Caffe's images; says so in ``report``."""
    channels = weight.shape[1] if weight.ndim > 1 else 0
    for what, numbers in (("mean", mean), ("std", std)):
        if numbers is not None and len(numbers) != channels:
            raise WeightsError(f"layer {layer!r} has {channels} input channels, but --{what} {len(numbers)} numbers")
    if std is not None and not all(np.isfinite(s) and s > 0 for s in std):
        raise WeightsError(f"--std must be numbers greater than 0, got {list(std)}")
    if reverse and channels != 3:
        raise WeightsError(f"layer {layer!r} has {channels} input channels; RGB has 3")
    if mean is not None or std is not None:
        divisors = 255 * np.array(std if std is not None else [1] * channels, np.float64)
        scaled = weight / divisors.reshape(1, -1, *[1] * (weight.ndim - 2))
        weight = scaled.astype(np.float32)
        means = [255 * value for value in (mean if mean is not None else [0.0] * channels)]
        report.mean_values = means[::-1] if reverse else means
        report.notes.append(f"{layer}.weight divided by 255 std: the net takes pixels of 0..255")
    if reverse:
        weight = np.ascontiguousarray(weight[:, ::-1])
        report.notes.append(f"{layer}.weight: input channels reversed, the net takes BGR")
    return weight
