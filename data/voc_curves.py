"""Recall-precision curves on disk: ``<class>_pr.mat``, as the original's evaluation leaves them.

A MATLAB file with ``recall`` and ``prec`` (D, 1), after each detection, best score first, and ``ap`` (11
points, VOC 2007) and ``ap_auc`` (area under the curve, later years), in [0, 1] or NaN.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from caffe_lite.atomic import atomic_write
from caffe_lite.data.voc_eval import VocResult, voc_ap
from caffe_lite.errors import DataError


class Curve(NamedTuple):
    """The curve of one class and its average precision by both metrics."""

    recall: NDArray[np.float64]  # (D,)
    prec: NDArray[np.float64]  # (D,)
    ap: float
    ap_auc: float


def curve_path(folder: str | os.PathLike[str], class_name: str) -> str:
    """The file of a class in ``folder``."""
    return os.path.join(folder, f"{class_name}_pr.mat")


def write_curve(path: str | os.PathLike[str], result: VocResult) -> None:
    """Write the curve of a class, whole or not at all. A class without objects has NaN for both APs."""
    from scipy.io import savemat

    recall, prec = result.rec, result.prec
    known = not np.isnan(result.ap)
    ap, area = (voc_ap(recall, prec, use_07) if known else float("nan") for use_07 in (True, False))
    with atomic_write(path) as stream:
        savemat(stream, {"recall": recall.reshape(-1, 1), "prec": prec.reshape(-1, 1), "ap": ap, "ap_auc": area})


def read_curve(path: str | os.PathLike[str]) -> Curve:
    """What :func:`write_curve` wrote; DataError naming the file if it is missing or something else."""
    from scipy.io import loadmat

    where = os.fspath(path)
    try:
        content = loadmat(where)
        recall, prec = (content[name].astype(np.float64).ravel() for name in ("recall", "prec"))
        return Curve(recall, prec, float(content["ap"].item()), float(content["ap_auc"].item()))
    except FileNotFoundError:
        raise DataError(f"{where}: no such file: was this folder written by test-net? --rerun makes it") from None
    except Exception as error:  # scipy raises a dozen types on a damaged file
        raise DataError(f"{where}: not a recall-precision curve: {error}") from error
