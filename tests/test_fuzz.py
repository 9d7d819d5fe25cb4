"""Files that nobody would write: every reader answers with our own errors, soon, and in little memory."""

from __future__ import annotations

import io
import random
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import caffe_lite as caffe
from caffe_lite import blob, prototxt, upgrade, upgrade_file, weights
from caffe_lite.errors import CaffeError
from caffe_lite.proto import caffe_pb2
from tests import mutate
from tests.test_upgrade_v0 import IMAGENET_2013, IMAGENET_TODAY

SECONDS = 20  # for one file of a few kB; far more than any needs, far less than forever
MEMORY = 400 << 20  # that the process may grow by while it reads thousands of such files

NET_2014 = b"""
name: "old" input: "data" input_dim: 2 input_dim: 3 input_dim: 16 input_dim: 16
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 group: 1 weight_filler { type: "xavier" } } }
layers { name: "relu" type: RELU bottom: "conv" top: "conv" }
layers { name: "pool" type: POOLING bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layers { name: "norm" type: LRN bottom: "pool" top: "norm" lrn_param { local_size: 3 } }
layers { name: "ip" type: INNER_PRODUCT bottom: "norm" top: "ip" inner_product_param { num_output: 5 } }
layers { name: "prob" type: SOFTMAX bottom: "ip" top: "prob" exclude { phase: TRAIN } }
"""
NET_TODAY = rb"""
name: "new \303\251 \x41"  # a comment
layer { name: "in" type: "Input" top: "x" top: "rois" input_param { shape { dim: [1, 4, 8, 8] } shape { dim: 2 dim: 5 } } }
layer { name: "bn" type: "BatchNorm" bottom: "x" top: "bn" param { lr_mult: 0 } param { lr_mult: 0 } param { } }
layer { name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param { axis: 1 bias_term: true } }
layer { name: "slice" type: "Slice" bottom: "bn" top: "a" top: "b" slice_param { axis: 1 slice_point: 2 } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" eltwise_param { operation: SUM coeff: [1, -.5e0f] } }
layer { name: "cat" type: "Concat" bottom: "sum" bottom: "b" top: "cat" concat_param { axis: -3 } }
layer { name: "up" type: "Deconvolution" bottom: "cat" top: "up"
  convolution_param < num_output: 2 kernel_size: 4 stride: 2 bias_term: false dilation: 1 > }
layer { name: "crop" type: "Crop" bottom: "up" bottom: "x" top: "crop" crop_param { axis: 2 offset: 1 } }
layer { name: "roi" type: "ROIPooling" bottom: "crop" bottom: "rois" top: "roi"
  roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.0625 } }
layer { name: "flat" type: "Reshape" bottom: "roi" top: "flat" reshape_param { shape { dim: 0 dim: -1 } } }
layer { name: "tile" type: "Tile" bottom: "flat" top: "tile" tile_param { axis: 1 tiles: 2 } }
layer { name: "drop" type: "Dropout" bottom: "tile" top: "tile" include { phase: TRAIN stage: "s" } }
layer { name: "ip" type: "InnerProduct" bottom: "tile" top: "ip" param { name: "w" lr_mult: 1 }
  inner_product_param { num_output: 3 bias_term: false weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "sum_all" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 2 reduction_param { operation: ASUM } }
"""
SOLVER = b"""
train_net: "t.prototxt" test_net: "v.prototxt" test_iter: 10 test_interval: 500 base_lr: 0.01 momentum: 0.9
lr_policy: "multistep" stepvalue: 100 stepvalue: 200 gamma: 0.1 solver_mode: CPU solver_type: ADAGRAD
net_param { name: "n" layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 2 } } } }
"""
TEXTS = [IMAGENET_2013.encode(), IMAGENET_TODAY.encode(), NET_2014, NET_TODAY, NET_2014, NET_TODAY, SOLVER]


def _binaries() -> list[bytes]:
    """Trained nets of three ages, a solver state and mean images."""
    array = np.arange(24, dtype="f4").reshape(2, 3, 4)
    v1, v0 = caffe_pb2.NetParameter(), caffe_pb2.NetParameter(name="n")
    prototxt.parse(NET_2014.decode(), v1)
    weights.array_to_blob(array, v1.layers[0].blobs.add(), array)
    weights.array_to_blob(array.astype("f8"), v1.layers[4].blobs.add())
    inner = v0.layers.add(layer={"name": "a", "type": "conv"}, bottom=["x"], top=["x"]).layer
    inner.blobs.add(num=1, channels=2, height=3, width=4, data=array.ravel().tolist())
    v0.input.append("x")
    v2 = caffe_pb2.NetParameter.FromString(v1.SerializeToString())
    upgrade.upgrade_net(v2)
    state = caffe_pb2.SolverState(iter=7, learned_net="net.caffemodel", current_step=1)
    weights.array_to_blob(array, state.history.add())
    npy = io.BytesIO()
    np.save(npy, array)
    return [m.SerializeToString() for m in (v0, v1, v2, v2, state, v2.layer[1].blobs[0])] + [npy.getvalue()]


def _peak() -> int:
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.fixture
def guarded(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder to work in; blobs that would take a machine's memory are refused as on a machine of 64 MiB."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(blob, "_host_memory", lambda: 64 << 20)
    before = _peak()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield tmp_path
    assert _peak() - before < MEMORY


def _answers(action, content: bytes, what: str) -> bool:
    """Does ``action`` succeed? It may fail with one of our errors only, and not run on and on."""
    started = time.monotonic()
    try:
        action()
        return True
    except CaffeError as error:
        assert str(error).strip()
        return False
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}; the file: {content!r}") from error
    finally:
        assert time.monotonic() - started < SECONDS, f"{what}: {content!r}"


def _fuzz_texts(folder: Path, count: int, seed: int) -> int:
    """How many of ``count`` damaged prototxts could still be read."""
    rng, path, fine = random.Random(seed), folder / "n.prototxt", 0
    for i in range(count):
        original = rng.choice(TEXTS)
        content = mutate.mutate(original, mutate.TEXT, rng)
        path.write_bytes(content)
        if original is SOLVER:
            fine += _answers(lambda: upgrade.upgrade_solver(*prototxt.read_solver(path)), content, f"text {i}")
        else:
            fine += _answers(lambda: caffe.Net(path, rng.choice([caffe.TRAIN, caffe.TEST])), content, f"text {i}")
        if i % 250 == 0:
            _answers(lambda: upgrade_file.upgrade_file(path, folder / "out"), content, f"upgrade of text {i}")
    return fine


def _fuzz_binaries(folder: Path, count: int, seed: int) -> int:
    """How many of ``count`` damaged binary files could still be read, as any kind."""
    (folder / "net.prototxt").write_bytes(NET_2014)
    net = caffe.Net(folder / "net.prototxt", caffe.TEST)
    rng, path, originals, fine = random.Random(seed), folder / "w.bin", _binaries(), 0
    readers = [net.copy_from, weights.read_net, weights.read_state, weights.read_mean]
    for i in range(count):
        content = mutate.mutate(rng.choice(originals), mutate.BINARY, rng)
        path.write_bytes(content)
        fine += any([_answers(lambda: read(path), content, f"binary {i}") for read in readers])  # noqa: B023 - at once
        if i % 250 == 0:
            _answers(lambda: upgrade_file.upgrade_file(path, folder / "out"), content, f"upgrade of binary {i}")
    return fine


def test_texts(guarded):
    assert _fuzz_texts(guarded, 750, seed=0) > 30


def test_binaries(guarded):
    assert _fuzz_binaries(guarded, 750, seed=0) > 100


@pytest.mark.soak
def test_many_texts(guarded):
    assert _fuzz_texts(guarded, 10_000, seed=1) > 400


@pytest.mark.soak
def test_many_binaries(guarded):
    assert _fuzz_binaries(guarded, 10_000, seed=1) > 1300


# ---- what mutation seldom finds


@pytest.mark.parametrize(
    "content",
    [
        b"layer { " * 200_000,
        b"net_param { layer { " * 100_000,
        b"name: " + b"'a' " * 300_000,
        b"name: '" + b"x" * 3_000_000,
        b"input_dim: [" + b"1, " * 100_000,
        b"input_dim: " + b"9" * 3_000_000,
        b"layer { loss_weight: " + b"0" * 1_000_000 + b"e" + b"9" * 1_000_000,
        b"#" * 5_000_000,
        b" " * 5_000_000 + b"}",
        b" #\n" * 1_000_000,
        b"name: '" + b"\\n" * 1_000_000 + b"'",
        b"input_dim: " + b"9e+" * 1_000_000,
        b"input_dim: " + b"1.e" * 1_000_000,
        b"\0" * 1_000_000,
        b"'\\" * 1_000_000,
        b"layer { name: 'x\0y\\000' type: 'ReLU' }",
    ],
)
def test_long_and_deep_texts(guarded, content):
    path = guarded / "n.prototxt"
    path.write_bytes(content)
    _answers(lambda: caffe.Net(path, caffe.TEST), content[:50], "text")


@pytest.mark.parametrize(
    "content",
    [
        b"\x0b" * 300_000,  # groups in groups
        b"\x0b" * 300_000 + b"\x0c" * 300_000,
        b"\xa3\x06\x0b\x0c" * 100_000,
        b"\xa2\x06\x00" * 30_000,  # layers of nothing
        b"\x12\x02\x0a\x00" * 30_000,
        b"\x1a\x00" * 100_000,  # inputs; history blobs
        b"\x2d\0\0\0\0" * 300_000,  # values one by one
        b"\x2d\0\0\0\0\x35\0\0\0\0" * 100_000,
        b"\xff" * 1_000_000,
        b"\xa2\x06\xff\xff\xff\xff\x0f" + b"\0" * 100,  # a layer of 4 GiB
        b"\xa2\x06\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ],
)
def test_long_and_deep_binaries(guarded, content):
    path = guarded / "w.bin"
    path.write_bytes(content)
    for read in (weights.read_net, weights.read_state, weights.read_mean):
        _answers(lambda: read(path), content[:50], "binary")  # noqa: B023 - called at once


@pytest.mark.parametrize(
    "layer",
    [
        "type: 'Input' input_param { shape { dim: 1000000000 dim: 3 } }",
        "type: 'Input' input_param { shape { dim: [4294967296, 4294967296] } }",
        "type: 'Input' input_param { shape { dim: -1 } }",
        "type: 'DummyData' dummy_data_param { shape { dim: 1000000000 } }",
        "type: 'Parameter' parameter_param { shape { dim: 1000000000 } }",
    ],
)
def test_nets_that_claim_more_than_there_is(guarded, layer):
    (guarded / "n.prototxt").write_text(f"layer {{ name: 'a' top: 'x' {layer} }}")
    with pytest.raises(CaffeError, match=r"n\.prototxt:1:1: layer 'a'"):
        caffe.Net(guarded / "n.prototxt", caffe.TEST).forward()


def test_parameters_that_claim_more_than_there_is(guarded):
    (guarded / "n.prototxt").write_text(
        """layer { name: 'in' type: 'Input' top: 'x' input_param { shape { dim: [1, 100000] } } }
           layer { name: 'ip' type: 'InnerProduct' bottom: 'x' top: 'y'
                   inner_product_param { num_output: 20000 weight_filler { type: 'xavier' } } }"""
    )
    with pytest.raises(CaffeError, match=r"n\.prototxt:2:12: layer 'ip' .*memory"):
        caffe.Net(guarded / "n.prototxt", caffe.TEST)
