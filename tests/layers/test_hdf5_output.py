"""HDF5Output: the file that Caffe's HDF5OutputLayer writes, and more than one batch in it."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import caffe_lite
from caffe_lite.errors import DataError, NetError, ShapeError


@pytest.fixture
def build(tmp_path):
    def make(data, label, file="out.h5"):
        dims = [" ".join(f"dim: {d}" for d in shape) for shape in (data, label)]
        name = f'file_name: "{tmp_path / file}"' if file else ""
        path = tmp_path / "net.prototxt"
        path.write_text(f"""
            layer {{ name: "in" type: "Input" top: "x" top: "y"
                    input_param {{ shape {{ {dims[0]} }} shape {{ {dims[1]} }} }} }}
            layer {{ name: "out" type: "HDF5Output" bottom: "x" bottom: "y" hdf5_output_param {{ {name} }} }}
        """)
        return caffe_lite.Net(path, caffe_lite.TEST)

    return make


def test_two_datasets_of_four_axes(device, build, tmp_path):
    net = build((2, 3, 4), (2,))
    with h5py.File(tmp_path / "out.h5") as file:
        assert list(file) == [], "made, and emptied, when the net is built"
    rng = np.random.default_rng(0)
    x, y = rng.random((3, 2, 3, 4), dtype="float32"), rng.random((3, 2), dtype="float32")
    for i in range(3):
        net.forward(x=x[i], y=y[i])
        with h5py.File(tmp_path / "out.h5") as file:
            assert sorted(file) == ["data", "label"]
            assert file["data"].dtype == "float32"
            np.testing.assert_array_equal(file["data"], x[: i + 1].reshape(-1, 3, 4, 1))
            np.testing.assert_array_equal(file["label"], y[: i + 1].reshape(-1, 1, 1, 1))
    build((2, 3, 4), (2,))
    with h5py.File(tmp_path / "out.h5") as file:
        assert list(file) == []


def test_what_it_writes_hdf5data_reads(build, tmp_path):
    net = build((2, 3), (2, 1))
    net.forward(x=np.arange(6).reshape(2, 3), y=[[7], [8]])
    (tmp_path / "list.txt").write_text(f"{tmp_path}/out.h5\n")
    path = tmp_path / "read.prototxt"
    path.write_text(f"""layer {{ name: "in" type: "HDF5Data" top: "data" top: "label"
        hdf5_data_param {{ source: "{tmp_path}/list.txt" batch_size: 2 }} }}""")
    found = caffe_lite.Net(path, caffe_lite.TEST).forward()
    np.testing.assert_array_equal(found["data"].ravel(), range(6))
    np.testing.assert_array_equal(found["label"].ravel(), [7, 8])


def test_batches_of_various_sizes(build, tmp_path):
    net = build((2, 3), (2,))
    for count in (2, 0, 5):
        net.blobs["x"].reshape(count, 3)
        net.blobs["y"].reshape(count)
        net.forward()
    with h5py.File(tmp_path / "out.h5") as file:
        assert (file["data"].shape, file["label"].shape) == ((7, 3, 1, 1), (7, 1, 1, 1))
    net.blobs["x"].reshape(5, 4)
    with pytest.raises(
        DataError, match=r"layer 'out' .*out.h5: the rows of 'data' have shape \(4, 1, 1\), .* \(3, 1, 1\)"
    ):
        net.forward()


def test_bad_input(build):
    with pytest.raises(NetError, match="needs the name of the file"):
        build((2,), (2,), "")
    with pytest.raises(
        DataError, match=r"layer 'out' \(HDF5Output\): .*absent/out.h5: the HDF5 file cannot be written"
    ):
        build((2,), (2,), "absent/out.h5")
    with pytest.raises(ShapeError, match=r"as many items, got shapes \(2, 3\) and \(3,\)"):
        build((2, 3), (3,))
    with pytest.raises(ShapeError, match=r"bottom 0 must have 1 to 4 axes, got shape \(1, 1, 1, 1, 1\)"):
        build((1,) * 5, (1,))
