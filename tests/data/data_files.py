"""Small images, databases and one-layer nets for the tests of data layers."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import cv2
import numpy as np

import caffe_lite
from caffe_lite.data.databases import write_database
from caffe_lite.proto import caffe_pb2

PHASES = {"TRAIN": caffe_lite.TRAIN, "TEST": caffe_lite.TEST}


def pixels(seed: int, height: int = 6, width: int = 8, channels: int = 3) -> np.ndarray:
    """A random (C, H, W) uint8 image."""
    return np.random.default_rng(seed).integers(0, 256, (channels, height, width), dtype=np.uint8)


def encode(planes: np.ndarray, suffix: str = ".png") -> bytes:
    """The content of an image file of (C, H, W)."""
    return cv2.imencode(suffix, np.ascontiguousarray(planes.transpose(1, 2, 0)))[1].tobytes()


def datum(planes: np.ndarray, label: int = 0, kind: str = "uint8") -> bytes:
    """A serialised Datum of (C, H, W): ``kind`` "uint8", "float" or "encoded"."""
    message = caffe_pb2.Datum(label=label)
    message.channels, message.height, message.width = planes.shape
    if kind == "encoded":
        message.data, message.encoded = encode(planes), True
    elif kind == "float":
        message.float_data.extend(planes.ravel().tolist())
    else:
        message.data = planes.tobytes()
    return message.SerializeToString()


def database(path: Path, values: list[bytes], backend: str = "LMDB") -> Path:
    """A database of these values in this order."""
    write_database(str(path), ((b"%08d" % i, value) for i, value in enumerate(values)), backend)
    return path


def build(folder: Path, layer: str, phase: str = "TEST", seed: int | None = None, dtype: str = "float32"):
    """The net of one layer; ``seed`` of the process's stream before it is built."""
    path = folder / "net.prototxt"
    path.write_text(f'layer {{ name: "source" {layer} }}\n')
    if seed is not None:
        caffe_lite.set_random_seed(seed)
    return caffe_lite.Net(path, PHASES[phase], dtype=dtype)


def batches(net, count: int) -> list[dict[str, np.ndarray]]:
    """The tops of the next forwards."""
    found = []
    for _ in range(count):
        net.forward()
        found.append({name: blob.data.copy() for name, blob in net.blobs.items()})
    return found


def assert_same(got: list[dict[str, np.ndarray]], want: list[dict[str, np.ndarray]]) -> None:
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        assert g.keys() == w.keys()
        for name in g:
            np.testing.assert_array_equal(g[name], w[name])


def assert_resumes(make, done: int = 3, more: int = 7) -> None:
    """A net put to the state of another one goes on as that one does. ``make(seed)`` builds them."""
    net = make(1)
    batches(net, done)
    state = json.loads(json.dumps(net.layers[0].state()))
    expected = batches(net, more)
    other = make(2)
    batches(other, 1)
    other.layers[0].set_state(state)
    assert_same(batches(other, more), expected)
    fresh = make(3)
    fresh.layers[0].set_state(state)
    assert_same(batches(fresh, more), expected)


def wait_for_end(threads: list[threading.Thread]) -> bool:
    """Have these threads ended, if one waits a little?"""
    deadline = time.monotonic() + 10
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)
