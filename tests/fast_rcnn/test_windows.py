"""Warped windows: pixel by pixel by their definition, and the same ones as in fine-tuning."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import caffe_lite
from caffe_lite import models, prototxt
from caffe_lite.data.factory import get_imdb
from caffe_lite.data.image_blob import read_image
from caffe_lite.data.roi_data_layer.roidb import prepare_roidb
from caffe_lite.data.window_file import read_window_file
from caffe_lite.fast_rcnn.rcnn.finetune import window_layer, write_window_file
from caffe_lite.proto import caffe_pb2
from tests.fast_rcnn.rcnn_inputs import features, image

pytestmark = pytest.mark.usefixtures("rcnn_settings")

TRAIN = str(models.path("mini/rcnn/train.prototxt"))
SIZE, CONTEXT = 64, 4
MEAN = np.array([102.9801, 115.9465, 122.7717], np.float32)


def away_from_zero(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def slow_warp(im: np.ndarray, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(3, s, s) and where it is inside the image: the definition, a pixel at a time.

    The box grows about its centre so that it is s - 2 * pad of s pixels; of the result, what lies in the image is
    stretched bilinearly to its share of the square, and the rest is the mean.
    """
    grow = SIZE / (SIZE - 2 * CONTEXT)
    axes = []
    for first, last, length in ((box[1], box[3], im.shape[0]), (box[0], box[2], im.shape[1])):
        half = (last - first + 1) / 2
        lo, hi = away_from_zero(first + half - half * grow), away_from_zero(first + half + half * grow)
        scale = SIZE / (hi - lo + 1)
        lo_in, hi_in = max(lo, 0), min(hi, length - 1)
        before = away_from_zero((lo_in - lo) * scale)
        count = min(away_from_zero((hi_in - lo_in + 1) * scale), SIZE - before)
        axes.append((lo_in, hi_in, before, count))
    out, inside = np.zeros((3, SIZE, SIZE)), np.zeros((SIZE, SIZE), bool)
    (y1, y2, top, rows), (x1, x2, left, columns) = axes

    def sample(i: int, count: int, lo: int, hi: int) -> tuple[int, int, float]:
        at = min(max((i + 0.5) * (hi - lo + 1) / count - 0.5, 0), hi - lo)
        return lo + int(at), min(lo + int(at) + 1, hi), at - int(at)

    for r in range(rows):
        ya, yb, v = sample(r, rows, y1, y2)
        for c in range(columns):
            xa, xb, u = sample(c, columns, x1, x2)
            upper = (1 - u) * im[ya, xa].astype(float) + u * im[ya, xb]
            lower = (1 - u) * im[yb, xa].astype(float) + u * im[yb, xb]
            out[:, top + r, left + c] = (1 - v) * upper + v * lower - MEAN
            inside[top + r, left + c] = True
    return out, inside


@pytest.mark.parametrize(
    "box",
    [
        (30, 20, 69, 59),  # all of it inside, with its context
        (0, 0, 119, 89),  # the whole image: context missing on all four sides
        (90, 70, 119, 89),  # the corner at the bottom right
        (0, 40, 3, 60),  # narrow, at the left border
        (50, 50, 50, 50),  # one pixel
    ],
)
def test_windows_are_warped_as_defined(box: tuple[int, int, int, int]) -> None:
    found = features().warp(image(), np.array([box], np.uint16))[0]
    expected, inside = slow_warp(image(), box)
    assert (found[:, ~inside] == 0).all()
    np.testing.assert_allclose(found[:, inside], expected[:, inside], atol=1.01)  # OpenCV rounds to whole grey levels


def test_windows_are_those_that_the_net_was_trained_on(devkit: str, tmp_path: Path) -> None:
    """The train net's WindowData layer and the features see the same pixels."""
    imdb = get_imdb("synthetic_trainval", data=devkit)
    prepare_roidb(imdb)
    write_window_file(str(tmp_path / "windows.txt"), imdb)
    windows = read_window_file(str(tmp_path / "windows.txt"), 0.5, 0.5)
    param = prototxt.read_net(TRAIN)[0]
    layer = window_layer(param, TRAIN)
    layer.window_data_param.source = str(tmp_path / "windows.txt")
    layer.transform_param.mirror = False
    alone = caffe_pb2.NetParameter(layer=[layer])
    net = caffe_lite.Net.from_param(alone)
    seen = net.forward()["data"]
    net.layers[0].close()
    warped = []
    for rows in (windows.background, windows.foreground):
        for i, path in enumerate(windows.images):
            warped.append(features().warp(read_image(path), rows[rows[:, 0] == i, 2:]))
    every = np.concatenate(warped).reshape(-1, 3 * SIZE * SIZE)
    hashes = {row.tobytes() for row in every}
    assert {row.tobytes() for row in seen.reshape(len(seen), -1)} <= hashes


def test_the_window_file_has_the_overlaps_of_the_roidb(devkit: str, tmp_path: Path) -> None:
    imdb = get_imdb("synthetic_trainval", data=devkit)
    imdb.append_flipped_images()
    prepare_roidb(imdb)
    path = str(tmp_path / "windows.txt")
    write_window_file(path, imdb)
    entries = [e for e in imdb.roidb if not e["flipped"]]
    found = read_window_file(path, 0.5, 0.5)
    assert found.images == [e["image"] for e in entries]
    for i, entry in enumerate(entries):
        fg = entry["max_overlaps"] >= 0.5
        mine = found.foreground[found.foreground[:, 0] == i]
        np.testing.assert_array_equal(mine[:, 1], entry["max_classes"][fg])
        np.testing.assert_array_equal(mine[:, 2:], entry["boxes"][fg])
        np.testing.assert_array_equal(found.background[found.background[:, 0] == i, 2:], entry["boxes"][~fg])
