"""HDF5Data: rows of datasets as Caffe's HDF5DataLayer serves them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from caffe_lite.errors import DataError, NetError
from tests.data.data_files import assert_resumes, batches, build

ROWS = (4, 3, 1)  # of the files: 0..3, 4..6, 7


def layer(folder, batch=2, more="", transform=""):
    return (
        f'type: "HDF5Data" top: "x" top: "y" {transform} '
        f'hdf5_data_param {{ source: "{folder}/list.txt" batch_size: {batch} {more} }}'
    )


def write(folder, counts=ROWS, tail=(2, 3)):
    """Files whose row i has x full of i, and y = 100 + i, counted through all files."""
    start, names = 0, []
    for number, count in enumerate(counts):
        with h5py.File(folder / f"rows {number}.h5", "w") as file:
            i = np.arange(start, start + count)
            file["x"] = np.broadcast_to(i.reshape(-1, *(1 for _ in tail)), (count, *tail)).astype("float64")
            file["y"] = (100 + i).astype("uint8")
        names.append(f"{folder}/rows {number}.h5\n")
        start += count
    (folder / "list.txt").write_text("\n".join(names))
    return folder


def numbers(found):
    """The rows that were served, after a check that each is whole and has its label."""
    for batch in found:
        np.testing.assert_array_equal(batch["x"], np.broadcast_to(batch["x"][:, :1, :1], batch["x"].shape))
        np.testing.assert_array_equal(batch["y"], 100 + batch["x"][:, 0, 0])
    return [int(v) for batch in found for v in batch["y"] - 100]


@pytest.mark.parametrize("batch", [1, 3, 8, 11])
def test_batches_go_through_all_files_and_round(device, tmp_path, batch):
    net = build(write(tmp_path), layer(tmp_path, batch))
    assert net.blobs["x"].shape == (batch, 2, 3) and net.blobs["y"].shape == (batch,)
    assert numbers(batches(net, 8)) == [i % 8 for i in range(8 * batch)]


def test_integers_are_exact_in_double_precision(tmp_path):
    write(tmp_path, (1,))
    with h5py.File(tmp_path / "rows 0.h5", "a") as file:
        del file["y"]
        file["y"] = np.array([(1 << 53) - 1])
    assert batches(build(tmp_path, layer(tmp_path, 1), dtype="float64"), 1)[0]["y"] == (1 << 53) - 1


def test_shuffle_serves_each_row_once_in_each_pass(tmp_path):
    net = build(write(tmp_path), layer(tmp_path, 4, "shuffle: true"), seed=0)
    found = numbers(batches(net, 40))
    passes = [tuple(found[i : i + 8]) for i in range(0, 160, 8)]
    assert all(sorted(p) == list(range(8)) for p in passes)
    assert len({p[0] for p in passes}) > 4, "both files and rows change places"
    for p in passes:
        files = [0 if i < 4 else 1 if i < 7 else 2 for i in p]
        assert len([1 for a, b in zip(files, files[1:], strict=False) if a != b]) == 2, "a file is served whole"


def test_a_single_file_is_shuffled_anew_in_each_pass(tmp_path):
    net = build(write(tmp_path, (6,)), layer(tmp_path, 6, "shuffle: true"), seed=0)
    passes = [tuple(numbers([batch])) for batch in batches(net, 6)]
    assert len(set(passes)) > 3 and all(sorted(p) == list(range(6)) for p in passes)


@pytest.mark.parametrize("more", ["", "shuffle: true"])
def test_resumes(tmp_path, more):
    write(tmp_path)
    for done in range(1, 6):
        assert_resumes(lambda seed: build(tmp_path, layer(tmp_path, 3, more), seed=seed), done)


def test_a_state_that_does_not_fit_changes_nothing(tmp_path):
    net = build(write(tmp_path), layer(tmp_path))
    state = net.layers[0].state()
    batches(net, 1)
    for change, message in (
        ({"files": 2}, "list of 2 files"),
        ({"row": 9}, "row 9, the file has 4"),
        ({"row": "x"}, "dam"),
    ):
        with pytest.raises(DataError, match=message):
            net.layers[0].set_state(state | change)
    assert numbers(batches(net, 1)) == [2, 3]


def change(path, **datasets):
    with h5py.File(path, "a") as file:
        for name, values in datasets.items():
            del file[name]
            if values is not None:
                file[name] = values


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"y": np.zeros(3)}, "same number of rows, at least one; got 'x' 4, 'y' 3"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "at least one; got 'x' 0, 'y' 0"),
        ({"y": None}, "has no dataset 'y'; it has x"),
        ({"y": np.array([b"a", b"b", b"c", b"d"])}, "dataset 'y' must hold integers or floating-point"),
        ({"y": np.array([True] * 4)}, "dataset 'y' must hold integers or floating-point"),
        ({"y": 5.0}, "dataset 'y' must hold .* a row for each item"),
    ],
)
def test_bad_files(tmp_path, datasets, message):
    change(write(tmp_path) / "rows 0.h5", **datasets)
    with pytest.raises(DataError, match=r"layer 'source' \(HDF5Data\): .*rows 0.h5: .*" + message):
        build(tmp_path, layer(tmp_path))


def test_a_file_whose_rows_have_another_shape(tmp_path):
    change(write(tmp_path) / "rows 1.h5", x=np.zeros((3, 2, 4)))
    net = build(tmp_path, layer(tmp_path, 3))
    batches(net, 1)
    with pytest.raises(
        DataError, match=r"'source' .*rows 1.h5: the rows of dataset 'x' have shape \(2, 4\), .* \(2, 3\)"
    ):
        net.forward()


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="list.txt: cannot read the list of HDF5 files"):
        build(tmp_path, layer(tmp_path))
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(DataError, match="list.txt: the list of HDF5 files is empty"):
        build(tmp_path, layer(tmp_path))
    (tmp_path / "list.txt").write_text(f"{tmp_path}/list.txt\n{tmp_path}/absent.h5\n")
    with pytest.raises(DataError, match="list.txt: not an HDF5 file"):
        build(tmp_path, layer(tmp_path))
    content = (write(tmp_path) / "rows 0.h5").read_bytes()
    (tmp_path / "rows 0.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="rows 0.h5: not an HDF5 file that can be read"):
        build(tmp_path, layer(tmp_path))


def test_bad_parameters(tmp_path):
    write(tmp_path)
    with pytest.raises(NetError, match="does not transform data"):
        build(tmp_path, layer(tmp_path, transform="transform_param { scale: 2 }"))
    with pytest.raises(NetError, match="batch_size must be > 0"):
        build(tmp_path, layer(tmp_path, 0))
