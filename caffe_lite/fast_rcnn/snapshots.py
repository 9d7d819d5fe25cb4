"""Snapshots of Fast R-CNN training: weights for testing, and all that is needed to train on.

The net learns box targets that were normalised to zero mean and unit deviation for each class and
coordinate (4K numbers each, K classes with the background). The .caffemodel is meant for testing, so
the normalisation is folded into the layer ``bbox_pred`` while it is written, W * std and b * std + mean,
as in the original. The resume file beside it (:mod:`caffe_lite.sidecar`) says so and keeps the weights
of training to the bit; whoever goes on or tests looks there, and refuses what does not go together.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from caffe_lite import sidecar, snapshot
from caffe_lite.errors import WeightsError

BBOX_LAYER = "bbox_pred"
_NOTE = "fast_rcnn"


def unnormalise(blobs: Sequence[Any], means: np.ndarray, stds: np.ndarray) -> None:
    """Fold target means and deviations (4K,) into the weights (4K, D) and biases (4K,) of a layer."""
    weights = blobs[0].data
    weights[...] = weights * stds.reshape((-1,) + (1,) * (weights.ndim - 1))
    if len(blobs) > 1:
        blobs[1].data[...] = blobs[1].data * stds + means


@contextmanager
def unnormalised(net: Any, means: np.ndarray, stds: np.ndarray) -> Iterator[list[np.ndarray]]:
    """The net predicts unnormalised boxes inside the ``with``; gives the weights that it has outside, to the bit."""
    blobs = net.params[BBOX_LAYER]
    saved = [blob.data.copy() for blob in blobs]
    try:
        unnormalise(blobs, means, stds)
        yield saved
    finally:
        for blob, values in zip(blobs, saved, strict=True):
            blob.data[...] = values


def write(
    solver: Any, means: np.ndarray | None, stds: np.ndarray | None, losses: dict[str, list[float]]
) -> tuple[str, str]:
    """A snapshot of ``solver``; the paths of .caffemodel and .solverstate.

    ``means`` and ``stds`` are None for a net that predicts no boxes. ``losses`` are kept with it.
    """
    note = {"means": means, "stds": stds, "losses": {name: np.array(values) for name, values in losses.items()}}
    if means is None or stds is None:
        return snapshot.write(solver, notes={_NOTE: note})
    with unnormalised(solver.net, means, stds) as normalised:
        return snapshot.write(solver, parameters={BBOX_LAYER: normalised}, notes={_NOTE: note})


def restore(
    solver: Any, state_file: str | os.PathLike[str], means: np.ndarray | None, stds: np.ndarray | None
) -> dict[str, list[float]]:
    """Let ``solver`` go on from a snapshot that ``write`` or the solver itself wrote; the losses so far.

    Raises:
        WeightsError: whether its bbox_pred is normalised is not known, or by other means and deviations than these;
            or the files are damaged or do not fit.
    """
    path = os.fspath(state_file)
    beside = sidecar.path_of(path)
    if os.path.exists(path) and not os.path.exists(beside):
        raise WeightsError(
            f"{path}: there is no {os.path.basename(beside)} beside it, so it cannot be told whether {BBOX_LAYER} is "
            "normalised; start anew from the .caffemodel (--weights)"
        )
    note = sidecar.read(beside)["notes"].get(_NOTE) if os.path.exists(path) else None
    if note is not None:
        _check_normalisation(beside, note, means, stds)
    solver.restore(path)  # without a note it is the engine's own snapshot, of the weights as they are in training
    solver.losses.clear()  # of step(1) after step(1): nothing is smoothed
    return {} if note is None else {name: values.tolist() for name, values in note["losses"].items()}


def _check_normalisation(origin: str, note: dict[str, Any], means: Any, stds: Any) -> None:
    for name, saved, ours in (("means", note["means"], means), ("deviations", note["stds"], stds)):
        if (saved is None) != (ours is None):
            raise WeightsError(
                f"{origin}: trained {'without' if saved is None else 'with'} TRAIN.BBOX_REG, now it is not so"
            )
        if saved is not None and not np.array_equal(saved, ours):
            raise WeightsError(
                f"{origin}: was trained on box targets of other {name} than those of this roidb: the images, the "
                "proposals or TRAIN.BBOX_THRESH have changed: bring them back, or start from the weights (--weights)"
            )


def check_for_testing(model_file: str | os.PathLike[str]) -> None:
    """Refuse a .caffemodel whose bbox_pred is still normalised; one without a resume file beside it is taken as it is.

    Raises:
        WeightsError: a solver wrote it during training on normalised box targets; or it is not the file that the
            resume file belongs to.
    """
    path = os.fspath(model_file)
    beside = sidecar.path_of(snapshot.state_path(path))
    if ".caffemodel" not in path or not os.path.exists(beside):
        return
    content = sidecar.read(beside)
    sidecar.verify(path, content["files"]["model"])
    regions = [state for state in content["train"].values() if isinstance(state, dict) and "perm" in state]
    if regions and _NOTE not in content["notes"]:
        raise WeightsError(
            f"{path}: written by the solver itself in the middle of Fast R-CNN training: {BBOX_LAYER} predicts "
            "normalised boxes; go on from its .solverstate with fast-rcnn train-net --resume, which writes weights for "
            "testing"
        )
