"""What the tests of R-CNN work on: features of a net with random weights, a picture, a roidb, a cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

import caffe_lite
from caffe_lite.data.boxes import bbox_overlaps
from caffe_lite.fast_rcnn.rcnn import pipeline
from caffe_lite.fast_rcnn.rcnn.feature_cache import FeatureCache
from caffe_lite.fast_rcnn.rcnn.features import WindowFeatures


def seed() -> None:
    """The same random numbers for numpy and for fillers and layers, from here on."""
    np.random.seed(3)
    caffe_lite.set_random_seed(3)


def features() -> WindowFeatures:
    """Those of the mini net with random weights."""
    made = pipeline.make_features(pipeline.DEFINITION)
    rng = np.random.default_rng(1)
    for blobs in made.net.params.values():
        blobs[0].data[...] = rng.normal(0, np.sqrt(2 / blobs[0].data[0].size), blobs[0].shape)
    return made


def image(height: int = 90, width: int = 120) -> np.ndarray:
    """(height, width, 3) of random pixels."""
    return np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)


def regions(seed: int, classes: int = 3, images: int = 6) -> list[dict[str, Any]]:
    """Two objects and 20 boxes about them in each image; the last has no object."""
    rng = np.random.default_rng(seed)
    roidb = []
    for i in range(images):
        corners = rng.integers(20, 60, (2, 2))
        objects = np.hstack((corners, corners + rng.integers(20, 50, (2, 2))))
        around = np.repeat(objects, 10, axis=0) + rng.integers(-9, 10, (20, 4))
        boxes = np.vstack((objects, around)).astype(np.uint16)
        labels = np.zeros(22, np.int32)
        labels[:2] = rng.integers(1, classes, 2) if i < images - 1 else 0
        overlaps = np.zeros((22, classes), np.float32)
        for g in np.flatnonzero(labels):
            iou = bbox_overlaps(boxes, boxes[g : g + 1])[:, 0]
            overlaps[:, labels[g]] = np.maximum(overlaps[:, labels[g]], iou)
        gt_overlaps = scipy.sparse.csr_matrix(overlaps)
        roidb.append({"boxes": boxes, "gt_classes": labels, "gt_overlaps": gt_overlaps, "flipped": False})
    return roidb


def cache_of(roidb: list[dict[str, Any]], dim: int, seed: int = 0) -> FeatureCache:
    """Random features of ``dim`` numbers for the regions of ``roidb``."""
    counts = [len(entry["boxes"]) for entry in roidb]
    rows = np.random.default_rng(seed).normal(1, 2, (sum(counts), dim)).astype(np.float32)
    return FeatureCache(rows, counts, 0.0)


class FakeImdb:
    """A dataset of two classes: as much of one as training and testing ask for."""

    name, classes, num_classes = "fake", ("__background__", "a", "b"), 3

    def __init__(self, roidb: list[dict[str, Any]]) -> None:
        self.roidb, self.num_images = roidb, len(roidb)
