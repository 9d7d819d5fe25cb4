"""Images in, class probabilities out: what ``caffe-lite classify`` does around a Classifier.

N images, K classes. Images are (H, W, C), C as the net takes them, values as ``io.load_image`` gives
them, [0, 1], unless they come from a .npy.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from caffe_lite import io
from caffe_lite.classifier import Classifier
from caffe_lite.errors import DataError


class ImageInputs:
    """The images of ``path``: one file, all ``*.ext`` of a folder by name, or the rows of a .npy (N, H, W, C).

    Files are read when they are asked for, so that a folder may hold more than memory does.

    Raises:
        DataError: no image is there, or the .npy holds something else.
    """

    def __init__(self, path: str, ext: str = "jpg", color: bool = True) -> None:
        self.color = color
        self.array: np.ndarray | None = None
        path = os.path.expanduser(path)
        if path.endswith(".npy"):
            self.array = _load_array(path)
            self.names = [f"{path}[{i}]" for i in range(len(self.array))]
        elif os.path.isdir(path):
            self.names = sorted(glob.glob(os.path.join(glob.escape(path), f"*.{ext}")))
            if not self.names:
                raise DataError(f"{path}: no file in this folder ends in .{ext}; --ext names another ending")
        else:
            self.names = [path]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        return io.load_image(self.names[index], self.color) if self.array is None else np.asarray(self.array[index])


def _load_array(path: str) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # a damaged header makes NumPy raise nearly anything
        raise DataError(f"{path}: damaged, or not a .npy of numbers: {error}") from error
    if array.ndim != 4 or array.dtype.kind not in "fiu" or not len(array):
        raise DataError(f"{path}: expected images as numbers (N, H, W, C), got {array.dtype} {array.shape}")
    return array


def classify(
    classifier: Classifier, images: ImageInputs, oversample: bool = True, done: Callable[[int], Any] | None = None
) -> np.ndarray:
    """``classifier.predict`` on all images, a batch of the net at a time: (N, K).

    done: called with the number of images after each batch.
    """
    parts = []
    for start in range(0, len(images), classifier.batch_size):
        batch = [images[i] for i in range(start, min(start + classifier.batch_size, len(images)))]
        parts.append(classifier.predict(batch, oversample))
        if done is not None:
            done(len(batch))
    return np.concatenate(parts)


def read_labels(path: str, count: int) -> list[str]:
    """The names of ``count`` classes, one a line, in the order of the net's output.

    Raises:
        DataError: the file cannot be read, or has another number of lines.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            labels = stream.read().rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the labels: {getattr(error, 'strerror', None) or error}") from error
    if len(labels) != count:
        raise DataError(f"{path}: {len(labels)} labels, one a line, for the {count} classes of the net")
    return labels


def best_classes(predictions: np.ndarray, labels: Sequence[str] | None = None, top: int = 5) -> list[tuple[float, str]]:
    """The ``top`` largest of (K,) predictions, each with its label, ``class K`` where there are none."""
    order = np.argsort(-predictions, kind="stable")[:top]
    return [(float(predictions[k]), labels[k] if labels else f"class {k}") for k in order]
