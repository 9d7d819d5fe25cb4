"""Boxes computed from image files, several at a time, kept on disk.

One .npz an image, named by a hash of the file's bytes, the settings and OpenCV's version: any list of
images finds what another has computed, and an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from caffe_lite.atomic import atomic_write
from caffe_lite.data.image_blob import read_image
from caffe_lite.errors import DataError
from caffe_lite.progress import progress_bar

T = TypeVar("T")
_VERSION = 1  # raise it when the same image and settings would give other boxes


def box_folder(cache_folder: str | None) -> str | None:
    """``proposals`` in the cache folder, created; None, with a warning, if that cannot be."""
    if cache_folder is None:
        return None
    folder = os.path.join(cache_folder, "proposals")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        _warn_not_cached(folder, error)
        return None
    return folder


def cached_boxes(
    path: str, folder: str | None, settings: Mapping[str, Any], find: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """``find(image)`` of an image file, (R, 4) uint16, from ``folder`` or put there; None keeps nothing.

    ``settings`` must tell all that the boxes depend on besides the image. A damaged file is made again.
    """
    if folder is None:
        return find(read_image(path))
    file = os.path.join(folder, f"{_key(path, settings)}.npz")
    boxes = _load(file)
    if boxes is None:
        boxes = find(read_image(path))
        try:
            with atomic_write(file) as stream:
                np.savez_compressed(stream, boxes=boxes)
        except OSError as error:
            _warn_not_cached(folder, error)  # the folder: one warning, not one an image
    return boxes


def map_images(
    call: Callable[[str], T], paths: Sequence[str], title: str, progress: bool = True, workers: int | None = None
) -> list[T]:
    """``call(path)`` of each, in order. workers: threads, by default one a core up to 8; progress: show a bar."""
    count = workers or min(os.cpu_count() or 1, 8)
    with ThreadPoolExecutor(count) as pool:
        results = [pool.submit(call, path) for path in paths]
        try:
            bar = progress_bar(results, desc=title, unit="image", leave=False, delay=0.5, disable=not progress)
            return [result.result() for result in bar]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _key(path: str, settings: Mapping[str, Any]) -> str:
    import cv2

    digest = hashlib.sha256(f"{_VERSION} {cv2.__version__} {sorted(settings.items())} ".encode())
    try:
        with open(path, "rb") as stream:
            digest.update(stream.read())
    except OSError as error:
        raise DataError(f"{path}: cannot read the image: {error.strerror or error}") from error
    return digest.hexdigest()[:32]


def _load(file: str) -> np.ndarray | None:
    """The boxes of a cache file; None if it is not there or damaged."""
    try:
        with np.load(file, allow_pickle=False) as content:
            boxes = content["boxes"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return boxes if boxes.dtype == np.uint16 and boxes.ndim == 2 and boxes.shape[1] == 4 else None


def _warn_not_cached(path: str, error: OSError) -> None:
    warnings.warn(f"{path}: proposals are not kept for the next run: {error.strerror or error}", stacklevel=3)
