"""The memory plan of a TEST net: the same results to the bit, less memory, and no reading of what is gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import caffe_lite as caffe
from caffe_lite import models
from caffe_lite.errors import NetError, UnknownNameError
from caffe_lite.memory_plan import Group, pack

CHAIN = """
name: "chain"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "TanH" bottom: "a" top: "b" }
layer { name: "flat" type: "Flatten" bottom: "b" top: "flat" }
layer { name: "c" type: "InnerProduct" bottom: "flat" top: "c"
        inner_product_param { num_output: 6 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "left" type: "Power" bottom: "c" top: "left" power_param { scale: 2 } }
layer { name: "right" type: "Sigmoid" bottom: "c" top: "right" }
layer { name: "joined" type: "Concat" bottom: "left" bottom: "right" top: "joined" }
layer { name: "prob" type: "Softmax" bottom: "joined" top: "prob" }
"""
SMALL = "mini/test.prototxt", "classification/LeNet/deploy.prototxt", "classification/SqueezeNet_1.1/deploy.prototxt"
SHIPPED = Path(models.__file__).parent
ALL = sorted(p.relative_to(SHIPPED).as_posix() for n in ("test", "deploy") for p in SHIPPED.rglob(f"{n}.prototxt"))


@pytest.fixture
def chain(tmp_path: Path) -> str:
    path = tmp_path / "chain.prototxt"
    path.write_text(CHAIN)
    return str(path)


def pair(file: str, **options):
    """The net as it is, and the net with a memory plan and the same weights."""
    plain, planned = caffe.Net(file, caffe.TEST), caffe.Net(file, caffe.TEST, optimize_memory=True, **options)
    rng = np.random.default_rng(0)
    for blobs in plain.params.values():
        weights = blobs[0].data
        rng.standard_normal(dtype=np.float32, out=weights)
        weights *= np.sqrt(2 / max(1, weights[:1].size))
    planned.share_with(plain)
    return plain, planned


def fill(net, rng, images: int = 1, rois: int = 7) -> None:
    for name in net.inputs:
        blob = net.blobs[name]
        if name == "rois":
            height, width = net.blobs["data"].shape[2:]
            corners = np.sort(rng.uniform(0, 1, (rois, 2, 2)), axis=1) * (width - 1, height - 1)
            blob.reshape(rois, 5)
            blob.data[...] = np.column_stack([rng.integers(0, images, rois), corners.reshape(rois, 4)])
        else:
            blob.data[...] = rng.standard_normal(blob.shape)


def assert_equal_outputs(plain, planned, **shape: int) -> None:
    fill(plain, np.random.default_rng(1), **shape)
    fill(planned, np.random.default_rng(1), **shape)
    wanted, found = plain.forward(), planned.forward()
    assert wanted.keys() == found.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def memory(net) -> int:
    """Elements behind all blobs of the net."""
    storages = {s for _, bottoms, tops in net.layer_blobs() for _, b in (*bottoms, *tops) for s in b.storages[:1]}
    return sum(s.flat.size for s in storages if s.flat is not None)


def test_results_are_the_same_to_the_bit_for_every_size(chain: str) -> None:
    plain, planned = pair(chain)
    for images in (2, 5, 1, 5):  # larger, smaller, and back
        for net in (plain, planned):
            net.blobs["data"].reshape(images, 3, 8, 8)
        assert_equal_outputs(plain, planned)


def test_blobs_take_the_place_of_others(chain: str) -> None:
    _, planned = pair(chain)
    fill(planned, np.random.default_rng(1))
    planned.forward()
    sizes = {"data": 2 * 3 * 64, "a": 2 * 4 * 64, "b": 2 * 4 * 64, "prob": 2 * 12}
    # c, left, right and joined find room where a and b were; three of them are needed at once, so one has its own
    assert memory(planned) == sum(sizes.values()) + 2 * 6


@pytest.mark.parametrize("name", SMALL)
def test_shipped_nets(name: str) -> None:
    plain, planned = pair(str(models.path(name)))
    assert_equal_outputs(plain, planned)
    assert memory(planned) < memory(plain)


@pytest.mark.soak
@pytest.mark.parametrize("name", ALL)
def test_every_shipped_net(name: str) -> None:
    assert_equal_outputs(*pair(str(models.path(name))))


def test_reading_what_is_gone_names_the_option(chain: str) -> None:
    _, planned = pair(chain)
    planned.forward()
    for part in ("data", "diff"):
        with pytest.raises(NetError, match=rf"blob 'b' has no {part} .*optimize_memory.*keep=\['b'\]"):
            getattr(planned.blobs["b"], part)
    with pytest.raises(NetError, match="optimize_memory"):
        planned.forward(blobs=["c"])
    assert planned.blobs["b"].shape == (2, 4, 8, 8)
    assert planned.blobs["data"].data.shape == (2, 3, 8, 8)


def test_what_is_kept_can_be_read(chain: str) -> None:
    plain, planned = pair(chain, keep=["b"])
    assert_equal_outputs(plain, planned)
    for name in ("b", "flat"):  # flat is b in another shape
        np.testing.assert_array_equal(planned.blobs[name].data, plain.blobs[name].data)
    with pytest.raises(UnknownNameError, match="did you mean"):
        caffe.Net(chain, caffe.TEST, optimize_memory=True, keep=["flat_"])


def test_a_forward_in_pieces_goes_on_where_it_ended(chain: str) -> None:
    plain, planned = pair(chain)
    fill(plain, np.random.default_rng(1))
    fill(planned, np.random.default_rng(1))
    planned.run_forward(0, planned.layer_index("c"))
    planned.run_forward(planned.layer_index("c") + 1)
    np.testing.assert_array_equal(planned.blobs["prob"].data, plain.forward()["prob"])
    with pytest.raises(NetError, match="goes on where the last one ended"):
        planned.forward(start="c")


def test_training_needs_every_blob(chain: str) -> None:
    with pytest.raises(NetError, match="optimize_memory needs TEST"):
        caffe.Net(chain, caffe.TRAIN, optimize_memory=True)
    planned = caffe.Net(chain, caffe.TEST, optimize_memory=True)
    planned.forward()
    with pytest.raises(NetError, match="cannot run backward"):
        planned.backward()
    with pytest.raises(NetError, match="already"):
        planned.optimize_memory()


class Sized(Group):
    """A group of ``count`` elements without blobs."""

    def __init__(self, count: int, first: int, last: int) -> None:
        super().__init__([], first, last)
        self.count = count

    @property
    def size(self) -> int:
        return self.count


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 4)), max_size=12))
def test_no_slot_is_needed_twice_at_once(drawn: list[tuple[int, int, int]]) -> None:
    groups = [Sized(count, first, first + length) for count, first, length in drawn]
    slots = pack(groups)
    assert sorted(map(id, groups)) == sorted(id(g) for slot in slots for g in slot)
    for slot in slots:
        needed = [layer for g in slot for layer in range(g.first, g.last + 1)]
        assert len(needed) == len(set(needed))
        assert slot[0].size == max(g.size for g in slot)
