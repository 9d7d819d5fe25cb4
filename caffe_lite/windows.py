"""Windows of images, and what a net predicts for them, in files: what ``caffe-lite detect`` reads and writes.

Windows are (ymin, xmin, ymax, xmax) in pixels, as pycaffe's Detector takes them. R windows, K classes:

    .csv    filename,ymin,xmin,ymax,xmax and, as output, class0 ... class<K-1>; columns in any order
    .txt    names of images alone, one a line
    .h5     output: filename (R,) text, window (R, 4) int64, prediction (R, K) float32

Caffe writes .h5 as a table of pandas, which only pandas reads; here it is three datasets of the same length.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe_lite.atomic import atomic_write
from caffe_lite.errors import DataError

COORDINATES = ("ymin", "xmin", "ymax", "xmax")
ImageWindows = list[tuple[str, np.ndarray]]  # image file, its windows (R, 4) int64


def read_windows(path: str) -> ImageWindows:
    """The windows of a .csv, by image, images in the order in which they first stand there.

    Raises:
        DataError: the file cannot be read, lacks a column, or a coordinate is no number; it names the line.
    """
    found: dict[str, list[list[int]]] = {}
    for number, row in _csv_rows(path, ("filename", *COORDINATES)):
        try:
            window = [int(float(row[name])) for name in COORDINATES]
        except (TypeError, ValueError, OverflowError):
            given = ", ".join(str(row[name]) for name in COORDINATES)
            raise DataError(f"{path}:{number}: expected numbers as {', '.join(COORDINATES)}, got {given}") from None
        found.setdefault(row["filename"], []).append(window)
    return [(name, np.array(windows, np.int64)) for name, windows in found.items()]


def read_image_names(path: str) -> list[str]:
    """The images that a .txt (one a line) or the column ``filename`` of a .csv names, each once, in their order.

    Raises:
        DataError: the file cannot be read, or names no image.
    """
    if path.lower().endswith(".csv"):
        names = [row["filename"] for _, row in _csv_rows(path, ("filename",))]
    else:
        names = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if not names:
        raise DataError(f"{path}: names no image")
    return list(dict.fromkeys(names))


def _csv_rows(path: str, columns: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(_text(path)), skipinitialspace=True)
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        found = ", ".join(reader.fieldnames or ()) or "an empty file"
        raise DataError(f"{path}:1: expected a line with the columns {', '.join(columns)}; got {found}")
    rows = [(reader.line_num, row) for row in reader]
    if not rows:
        raise DataError(f"{path}: no line after the names of the columns")
    for number, row in rows:
        if not row["filename"]:
            raise DataError(f"{path}:{number}: no filename")
    return rows


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from error


def check_output(path: str) -> None:
    """Raise DataError unless ``write_detections`` knows the ending of ``path``."""
    if os.path.splitext(path)[1].lower() not in (".csv", ".h5", ".hdf5"):
        raise DataError(f"{path}: detections are written as .csv or .h5, told by the ending")


def write_detections(path: str, detections: Sequence[dict[str, Any]]) -> None:
    """Write what ``Detector.detect_windows`` found, as .csv or .h5, whole or not at all.

    Raises:
        DataError: another ending.
    """
    check_output(path)
    names = [detection["filename"] for detection in detections]
    windows = np.array([detection["window"] for detection in detections], np.int64).reshape(-1, 4)
    predictions = np.array([np.ravel(detection["prediction"]) for detection in detections], np.float32)
    predictions = predictions.reshape(len(names), -1) if names else np.zeros((0, 0), np.float32)
    if path.lower().endswith(".csv"):
        _write_csv(path, names, windows, predictions)
    else:
        _write_h5(path, names, windows, predictions)


def _write_csv(path: str, names: list[str], windows: np.ndarray, predictions: np.ndarray) -> None:
    with atomic_write(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["filename", *COORDINATES, *(f"class{k}" for k in range(predictions.shape[1]))])
        for name, window, prediction in zip(names, windows, predictions, strict=True):
            writer.writerow([name, *window.tolist(), *prediction])  # float32 in as few digits as tell it apart


def _write_h5(path: str, names: list[str], windows: np.ndarray, predictions: np.ndarray) -> None:
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("filename", data=names, dtype=h5py.string_dtype(), shape=(len(names),))
        file["window"] = windows
        file["prediction"] = predictions
    with atomic_write(path) as stream:
        stream.write(content.getbuffer())
