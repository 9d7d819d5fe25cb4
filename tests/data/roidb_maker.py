"""Roidbs for tests: the original's of two photographs, and entries of small images.

tests/golden/pipeline/ holds what the original code made of two VOC photographs and their selective-search
boxes. The photographs are not here: random images of their size stand in, which leaves every draw, RoI,
label and target as it was.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import scipy.sparse

from caffe_lite.data.roi_data_layer.roidb import add_bbox_regression_targets, prepare_roidb

GOLDEN = Path(__file__).parents[1] / "golden" / "pipeline"


def golden_imdb(folder, suffix):
    """The recorded roidb, its images in ``folder``, under their names with this suffix."""
    golden = np.load(GOLDEN / "roidb.npz")
    roidb = [
        {
            "boxes": golden[f"e{i}_boxes"],
            "gt_classes": golden[f"e{i}_gt_classes"],
            "gt_overlaps": scipy.sparse.csr_matrix(golden[f"e{i}_gt_overlaps"]),
            "flipped": bool(golden[f"e{i}_flipped"]),
        }
        for i in range(int(golden["num_entries"]))
    ]
    names = [Path(str(golden[f"e{i}_image"])).with_suffix(suffix).name for i in range(len(roidb))]
    return SimpleNamespace(roidb=roidb, image_path_at=lambda i: os.path.join(folder, names[i]))


def trainable(imdb):
    """Its roidb, prepared, with regression targets."""
    prepare_roidb(imdb)
    add_bbox_regression_targets(imdb.roidb)
    return imdb.roidb


def small_entry(image, boxes=((0, 0, 9, 9), (0, 0, 9, 8), (0, 0, 9, 3)), overlaps=(1.0, 0.9, 0.4), **more):
    """A prepared entry with 3 classes: an object of class 2, a foreground and a background proposal."""
    columns = np.zeros((len(boxes), 3), np.float32)
    columns[:, 2] = overlaps
    return {
        "image": str(image),
        "boxes": np.array(boxes, np.uint16).reshape(-1, 4),
        "gt_classes": np.array([2 if o == 1 else 0 for o in overlaps], np.int32),
        "gt_overlaps": scipy.sparse.csr_matrix(columns),
        "max_overlaps": columns.max(axis=1),
        "max_classes": columns.argmax(axis=1),
        "flipped": False,
        **more,
    }


def plain_image(path, colour, height=20, width=30):
    """Writes an image of one colour, (blue, green, red), and returns its path."""
    cv2.imwrite(str(path), np.full((height, width, 3), colour, np.uint8))
    return path
