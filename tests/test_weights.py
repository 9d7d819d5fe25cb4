"""Binary files: Caffe's own are read to the bit, damaged ones are named, what is written comes back."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from caffe_lite import binary_file, blob_proto, weights
from caffe_lite.errors import WeightsError
from caffe_lite.proto import caffe_pb2

GOLDEN = Path(__file__).parent / "golden" / "solvers" / "sgd"
MODEL, STATE = GOLDEN / "ref_iter_8.caffemodel", GOLDEN / "ref_iter_8.solverstate"


def blob(**fields):
    return caffe_pb2.BlobProto(**fields)


# ---- Caffe's own files


def test_caffes_own_snapshot():
    net = weights.read_net(MODEL)
    recorded = np.load(GOLDEN / "trajectory.npz")
    seen = 0
    for layer in net.layer:
        for i, proto in enumerate(layer.blobs):
            array = weights.blob_to_array(proto)
            np.testing.assert_array_equal(array, recorded[f"iter8:{layer.name}:{i}"])
            assert array.dtype == np.float32
            seen += 1
    assert seen == 4 and net.name == "mlp"


def test_caffes_own_state():
    state = weights.read_state(STATE)
    assert state.iter == 8 and state.learned_net.endswith("ref_iter_8.caffemodel")
    assert [weights.blob_to_array(proto).shape for proto in state.history] == [(7, 6), (7,), (4, 7), (4,)]


def test_files_written_again_are_the_same_bytes(tmp_path):
    for path, read, write in (
        (MODEL, weights.read_net, weights.write_net),
        (STATE, weights.read_state, weights.write_state),
    ):
        write(tmp_path / path.name, read(path))
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert sorted(os.listdir(tmp_path)) == [MODEL.name, STATE.name]  # nothing temporary is left


def test_a_net_of_2014_is_upgraded(tmp_path):
    old = caffe_pb2.NetParameter(name="old", input=["data"])
    weights.array_to_blob(np.arange(6, dtype="f4").reshape(2, 3), old.layers.add(name="ip", type=14).blobs.add())
    (tmp_path / "old.caffemodel").write_bytes(old.SerializeToString())
    net = weights.read_net(tmp_path / "old.caffemodel")
    assert [(part.name, part.type) for part in net.layer] == [("ip", "InnerProduct")] and not net.input
    np.testing.assert_array_equal(weights.blob_to_array(net.layer[0].blobs[0]), [[0, 1, 2], [3, 4, 5]])


# ---- damaged files


def test_a_file_cut_anywhere_is_refused_or_shorter_by_whole_layers(tmp_path):
    content, path = MODEL.read_bytes(), tmp_path / "cut.caffemodel"
    whole = weights.read_net(MODEL)
    cut_between_layers = 0
    for size in range(len(content)):
        path.write_bytes(content[:size])
        try:
            net = weights.read_net(path)
        except WeightsError as error:
            assert str(error).startswith(f"{path}: ")
            assert "truncated" in str(error) if size > 5 else True  # 5: the name
        else:
            assert list(net.layer) == list(whole.layer)[: len(net.layer)]
            cut_between_layers += 1
    assert cut_between_layers == len(whole.layer)


def test_a_cut_file_says_where_it_should_end(tmp_path):
    path = tmp_path / "cut.caffemodel"
    path.write_bytes(MODEL.read_bytes()[:400])
    with pytest.raises(WeightsError, match=r"cut\.caffemodel: truncated: the part that begins at byte") as e:
        weights.read_net(path)
    begins, ends = (int(word) for word in re.findall(r"byte (\d+)", str(e.value)))
    assert begins <= 400 < ends <= len(MODEL.read_bytes()) and "the file has 400" in str(e.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty, expected a .caffemodel"),
        (b'name: "net"\nlayer { }\n', "a text file (it begins 'name: \"net\"\\nlayer { }\\n'), expected"),
        (b"<!DOCTYPE html><html>", "a text file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file, expected a .caffemodel of protobuf"),
        (b"\xff" * 100, "damaged, or not a .caffemodel"),
        (b"\x00" * 100, "damaged, or not a .caffemodel"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "not a .caffemodel"),
        (b"\xa2\x06\x03\x0a\x05\xff", "damaged, or not a .caffemodel"),  # a layer whose name is longer than the layer
        (b"\xf8\x07\x01", "none of its fields is one of NetParameter"),
    ],
)
def test_garbage_is_named(content, says, tmp_path):
    path = tmp_path / "x.caffemodel"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as error:
        weights.read_net(path)
    assert str(error.value).startswith(f"{path}: ") and says in str(error.value)


@given(st.binary(min_size=1, max_size=60))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_no_bytes_raise_anything_else(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.caffemodel"
    path.write_bytes(content)
    for read in (weights.read_net, weights.read_state, weights.read_mean):
        try:
            read(path)
        except WeightsError as error:
            assert str(error).startswith(f"{path}: ")


def test_missing_and_unwritable_files_are_named(tmp_path):
    for read in (weights.read_net, weights.read_state, weights.read_mean):
        with pytest.raises(WeightsError, match=r"nowhere\.bin: cannot be read: No such file"):
            read(tmp_path / "nowhere.bin")
    with pytest.raises(WeightsError, match=r"x\.caffemodel: cannot be written: No such file"):
        weights.write_net(tmp_path / "nowhere" / "x.caffemodel", caffe_pb2.NetParameter())


def test_files_of_2_gib_are_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "large.caffemodel"
    with open(path, "wb") as stream:
        stream.truncate(1 << 31)  # sparse: takes no room
    with pytest.raises(WeightsError, match="2147483648 bytes; a .caffemodel has less than 2 GiB"):
        weights.read_net(path)
    monkeypatch.setattr(binary_file, "MAX_BYTES", 100)
    monkeypatch.setattr(blob_proto, "MAX_BYTES", 100)
    proto = caffe_pb2.NetParameter(name="n" * 101)
    path.write_bytes(b"what stood here")
    with pytest.raises(WeightsError, match=r"large\.caffemodel: not written: 103 bytes are more than"):
        weights.write_net(path, proto)
    assert path.read_bytes() == b"what stood here"
    with pytest.raises(WeightsError, match=r"shape \(26,\) is larger"):
        weights.array_to_blob(np.zeros(26, "f4"), blob())


# ---- arrays

SHAPES = arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)
FLOATS = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda dtype: arrays.arrays(dtype, SHAPES, elements={"allow_nan": False})
)


@given(FLOATS)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_arrays_come_back_to_the_bit(array):
    proto = blob()
    weights.array_to_blob(array, proto, write_diff=-array)
    copy = caffe_pb2.BlobProto.FromString(proto.SerializeToString())
    for got, expected in ((weights.blob_to_array(copy), array), (weights.blob_to_array(copy, diff=True), -array)):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype or not got.size  # which field an empty array is in cannot be told
        assert got.tobytes() == expected.tobytes()  # the bits: zeros' signs too
    if array.size:
        values = copy.double_data if array.dtype == np.float64 else copy.data
        np.testing.assert_array_equal(np.array(list(values), array.dtype), array.ravel())


def test_arrays_of_any_layout_and_type():
    proto = blob()
    for array in (np.arange(24).reshape(2, 3, 4).T, np.float16([1.5, 2]), np.float32([1, np.nan, 3])[::-1]):
        weights.array_to_blob(array, proto)
        np.testing.assert_array_equal(weights.blob_to_array(proto), array.astype("f4"))
        assert not proto.double_data and not proto.diff


def test_unpacked_values_of_old_files():
    one = np.float32(1.5).tobytes()
    old = b"\x3a\x02\x08\x02" + b"\x2d" + one + b"\x2a\x04" + one  # shape { dim: 2 }, both unpacked; data: one of each
    np.testing.assert_array_equal(weights.blob_to_array(caffe_pb2.BlobProto.FromString(old)), [1.5, 1.5])


def test_legacy_axes_come_before_shape():
    proto = blob(num=1, channels=1, height=2, width=3, data=range(6))
    assert weights.blob_to_array(proto).shape == (1, 1, 2, 3)
    proto.shape.dim.extend([6])
    assert weights.blob_shape(proto) == (1, 1, 2, 3)


@pytest.mark.parametrize(
    ("proto", "diff", "says"),
    [
        (blob(shape={"dim": [2, 3]}, data=range(5)), False, "shape (2, 3) needs 6 values and has 5 values"),
        (blob(shape={"dim": [2]}, data=[1, 2]), True, "needs 2 values and has no diff"),
        (blob(shape={"dim": [1 << 40, 1 << 40]}, data=[1]), False, "has 1 values"),
        (blob(shape={"dim": [-1, -1]}, data=[1]), False, "negative axis"),
        (blob(num=1, channels=2, height=2, data=range(4)), False, "shape (1, 2, 2, 0) needs 0"),
        (blob(), False, "shape () needs 1 values and has 0"),
    ],
)
def test_values_that_do_not_fit_their_shape(proto, diff, says):
    with pytest.raises(WeightsError) as error:
        weights.blob_to_array(proto, diff=diff)
    assert says in str(error.value)


def test_a_diff_of_another_shape():
    with pytest.raises(WeightsError, match=r"diff has shape \(3,\), its blob \(2,\)"):
        weights.array_to_blob(np.zeros(2), blob(), write_diff=np.zeros(3))


def test_mean_images(tmp_path):
    path, mean = tmp_path / "mean.binaryproto", np.arange(24, dtype="f4").reshape(3, 2, 4)
    weights.write_mean(path, mean)
    read = weights.read_mean(path)
    np.testing.assert_array_equal(read, mean[np.newaxis])
    read += 1  # one's own array, unlike the views that blob_to_array gives
    path.write_bytes(blob(num=1, channels=1, height=1, width=3, data=[1, 2]).SerializeToString())
    with pytest.raises(WeightsError, match=r"mean\.binaryproto: .* shape \(1, 1, 1, 3\) needs 3 values and has 2"):
        weights.read_mean(path)


def test_means_in_npy(tmp_path):
    path, mean = tmp_path / "mean.npy", np.arange(24, dtype="f4").reshape(3, 2, 4)
    for saved, expected in ((mean, np.float32), (mean.astype("f8"), np.float64), (mean.astype("u1"), np.float32)):
        np.save(path, saved)
        read = weights.read_mean(path)
        np.testing.assert_array_equal(read, mean)
        assert read.dtype == expected
        read += 1  # one's own array
    for fortran in (np.asfortranarray(mean), mean[::-1, :, ::2]):
        np.save(path, fortran)
        np.testing.assert_array_equal(weights.read_mean(path), fortran)


def test_npy_files_that_are_no_mean(tmp_path):
    path = tmp_path / "mean.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(WeightsError, match=r"mean\.npy: damaged, or not a \.npy of numbers"):
        weights.read_mean(path)
    np.save(path, np.array(["text"]))
    with pytest.raises(WeightsError, match="a mean is made of numbers, this .npy holds <U4"):
        weights.read_mean(path)
    np.save(path, np.zeros((3, 2, 4), "f4"))
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:40], whole.replace(b"(3, 2, 4)", b"(3, 2, 9)"), whole.replace(b"(3, 2, 4)", b"(-3,2,-4)"),
                    whole.replace(b"(3, 2, 4), }", b"(99999999999,)}"), whole[:8]):  # fmt: skip
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"mean\.npy: damaged, or not a \.npy"):
            weights.read_mean(path)


def test_float64_comes_before_float32_as_in_caffe():
    both = blob(shape={"dim": [1]}, data=[1, 2, 3], double_data=[5], diff=[1], double_diff=[7])
    assert weights.blob_to_array(both).tolist() == [5] and weights.blob_to_array(both, diff=True).tolist() == [7]
