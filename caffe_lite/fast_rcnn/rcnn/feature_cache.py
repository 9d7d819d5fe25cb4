"""Features of all regions of an imdb on disk, one image below another, so that no stage computes them twice.

    NAME.npy    (T, dim) float32: the features of T regions, in the order of the roidb and its boxes
    NAME.json   key, a hash of what they were made from; seconds, how long that took

The array is mapped into memory, not read: the paper's features of VOC are hundreds of gigabytes. The json
is written last, so an array cut short is never taken for a whole one. An array whose key differs, or that is
damaged, is computed anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from caffe_lite.atomic import atomic_write
from caffe_lite.data.image_blob import Float32, read_image
from caffe_lite.errors import DataError
from caffe_lite.fast_rcnn.rcnn.features import RegionFeatures
from caffe_lite.progress import progress_bar


class FeatureCache:
    """``all``: the features (T, dim) of all images, read only; ``seconds``: how long it took to compute them."""

    def __init__(self, rows: Float32, counts: Sequence[int], seconds: float) -> None:
        self.all = rows
        self.seconds = seconds
        self.starts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))

    def of(self, i: int) -> Float32:
        """Features of the regions of entry i, in their order."""
        return self.all[self.starts[i] : self.starts[i + 1]]


def cache_pooled(folder: str, features: RegionFeatures, imdb: Any, progress: bool = True) -> FeatureCache:
    """Pooled features of every region of the prepared ``imdb.roidb``, kept in ``folder``."""
    key = hashlib.sha256((features.pooled_hash() + _regions_hash(imdb)).encode()).hexdigest()

    def compute(i: int) -> Float32:
        entry, im = imdb.roidb[i], read_image(imdb.image_path_at(i))
        if entry["flipped"]:
            im = im[:, ::-1, :]
        return features.pooled(im, entry["boxes"])

    return _cached(folder, "pooled", key, _counts(imdb), features.pooled_dim, compute, progress)


def cache_last(
    folder: str, features: RegionFeatures, pooled: FeatureCache, imdb: Any, progress: bool = True
) -> FeatureCache:
    """Last features of every region, computed from the pooled ones, kept in ``folder``."""
    key = hashlib.sha256((features.last_hash() + _regions_hash(imdb)).encode()).hexdigest()

    def compute(i: int) -> Float32:
        return features.last(pooled.of(i))

    return _cached(folder, "last", key, _counts(imdb), features.dim, compute, progress)


def _cached(
    folder: str,
    name: str,
    key: str,
    counts: list[int],
    dim: int,
    compute: Callable[[int], Float32],
    progress: bool,
) -> FeatureCache:
    path, note = os.path.join(folder, f"{name}.npy"), os.path.join(folder, f"{name}.json")
    shape = (sum(counts), dim)
    found = _load(path, note, key, shape)
    if found is not None:
        return FeatureCache(found[0], counts, found[1])
    if os.path.exists(note):
        os.unlink(note)
    if not shape[0]:
        raise DataError(f"{folder}: the images have no regions: there is nothing to compute features of")
    started = time.perf_counter()
    with atomic_write(path) as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for i in progress_bar(range(len(counts)), desc=f"{name} features", unit="image", disable=not progress):
            if counts[i]:
                stream.write(np.ascontiguousarray(compute(i), dtype="<f4").tobytes())
    seconds = time.perf_counter() - started
    with atomic_write(note, "w") as stream:
        json.dump({"key": key, "seconds": seconds}, stream)
    return FeatureCache(np.load(path, mmap_mode="r", allow_pickle=False), counts, seconds)


def _load(path: str, note: str, key: str, shape: tuple[int, int]) -> tuple[Float32, float] | None:
    """The array and the seconds it took, if it is that of ``key``, whole; else None."""
    try:
        with open(note, encoding="utf-8") as stream:
            noted = json.load(stream)
        if noted["key"] != key:
            return None
        seconds = float(noted["seconds"])
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return (array, seconds) if array.shape == shape and array.dtype == np.float32 else None


def _counts(imdb: Any) -> list[int]:
    return [len(entry["boxes"]) for entry in imdb.roidb]


def _regions_hash(imdb: Any) -> str:
    """A hash of the images' contents and their regions."""
    digest = hashlib.sha256()
    for i, entry in enumerate(imdb.roidb):
        try:
            with open(imdb.image_path_at(i), "rb") as stream:
                digest.update(hashlib.sha256(stream.read()).digest())
        except OSError as error:
            raise DataError(f"{imdb.image_path_at(i)}: cannot read the image: {error.strerror or error}") from error
        digest.update(repr((bool(entry["flipped"]), entry["boxes"].shape)).encode())
        digest.update(np.ascontiguousarray(entry["boxes"]).tobytes())
    return digest.hexdigest()
