"""Blob: shapes, memory that grows and never shrinks, sharing, and the host copies of a GPU's blobs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffe_lite.blob import Blob, BlobVec, HostBlob
from caffe_lite.device import Device
from caffe_lite.errors import ShapeError
from tests import strict_device

shapes = st.lists(st.integers(0, 5), max_size=5).map(tuple)


@given(shapes)
def test_data_and_diff_have_the_shape_start_at_zero_and_are_contiguous(shape: tuple[int, ...]) -> None:
    blob = Blob(shape)
    for array in (blob.data, blob.diff):
        assert array.shape == shape and array.dtype == "float32" and array.flags.c_contiguous
        assert not array.any()
    assert blob.count == int(np.prod(shape))


def test_a_smaller_shape_keeps_the_memory_and_the_pointer() -> None:
    blob = Blob((4, 6))
    blob.data[...] = np.arange(24).reshape(4, 6)
    address = blob.data.ctypes.data
    blob.reshape(2, 3)
    assert blob.data.ctypes.data == address
    np.testing.assert_array_equal(blob.data, [[0, 1, 2], [3, 4, 5]])
    blob.reshape((4, 6))
    assert blob.data.ctypes.data == address


def test_legacy_axes_read_missing_ones_as_1() -> None:
    blob = Blob((7, 3))
    assert (blob.num, blob.channels, blob.height, blob.width) == (7, 3, 1, 1)
    with pytest.raises(ShapeError, match="up to 4 axes"):
        _ = Blob((1, 1, 1, 1, 1)).num


def test_axes_count_from_both_ends() -> None:
    blob = Blob((2, 3, 4))
    assert [blob.canonical_axis(i) for i in (0, 2, -1, -3)] == [0, 2, 2, 0]
    assert blob.count_of(1) == 12 and blob.count_of(0, 2) == 6 and blob.count_of(3) == 1
    for axis in (3, -4):
        with pytest.raises(ShapeError, match="outside"):
            blob.canonical_axis(axis)


@pytest.mark.parametrize("shape", [(-1, 2), (1,) * 33])
def test_impossible_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="at most 32 axes of size >= 0"):
        Blob().reshape(shape)


def test_shared_data_is_one_memory_even_after_it_grew() -> None:
    owner, guest = Blob((2, 3)), Blob((6,))
    guest.share_data(owner)
    owner.data[1, 2] = 5
    assert guest.data[5] == 5
    guest.diff[...] = 1
    assert not owner.diff.any(), "diff was not shared"
    with pytest.raises(ShapeError, match="counts differ"):
        Blob((5,)).share_data(owner)


def test_a_diff_takes_no_memory_before_it_is_used() -> None:
    blob = Blob((3,))
    assert blob.data.size == 3 and not blob.diff_in_use
    assert blob.diff.size == 3 and blob.diff_in_use


def test_blobvec_makes_blobs_of_its_kind() -> None:
    blobs = BlobVec("float64")
    blobs.add_blob(2, 3)
    blobs.add_blob((4,))
    assert [b.shape for b in blobs] == [(2, 3), (4,)] and blobs[0].data.dtype == "float64"


class TestHostBlob:
    """A stand-in for the GPU: what counts is who copies when."""

    device = Device(strict_device.xp, is_gpu=True)

    def test_what_the_host_writes_is_there_at_the_next_use_on_the_device(self) -> None:
        blob = Blob((3,), device=self.device)
        on_device = blob.data
        HostBlob(blob).data[...] = [1, 2, 3]
        assert not bool(on_device.any()), "the host wrote into a copy"
        np.testing.assert_array_equal(blob.data.get(), [1, 2, 3])
        np.testing.assert_array_equal(on_device.get(), [1, 2, 3])

    def test_what_the_device_computes_is_read_fresh(self) -> None:
        blob = Blob((3,), device=self.device)
        host = HostBlob(blob)
        before = host.data
        blob.data[...] = 7
        np.testing.assert_array_equal(host.data, [7, 7, 7])
        assert host.data is not None and np.shares_memory(before, host.data)

    def test_two_writes_through_two_blobs_of_one_memory_both_arrive(self) -> None:
        owner, guest = Blob((2,), device=self.device), Blob((2,), device=self.device)
        guest.share_data(owner)
        HostBlob(owner).data[0] = 1
        HostBlob(guest).data[1] = 2
        np.testing.assert_array_equal(owner.data.get(), [1, 2])
