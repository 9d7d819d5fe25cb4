"""convert_imageset, compute_image_mean and extract_features: what they write is what the Data layer reads."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe_lite
from caffe_lite.cli import main
from caffe_lite.data.databases import Records
from caffe_lite.data.image_database import convert_imageset, image_datum, mean_image
from caffe_lite.errors import DataError
from caffe_lite.proto import caffe_pb2
from caffe_lite.weights import read_mean
from tests.data.data_files import batches, build, database, datum, pixels


@pytest.fixture
def images(tmp_path: Path) -> list[tuple[str, int]]:
    """Four PNG files in a folder, listed in list.txt."""
    (tmp_path / "images").mkdir()
    listed = []
    for i in range(4):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), pixels(i).transpose(1, 2, 0))
        listed.append((f"{i}.png", 10 + i))
    (tmp_path / "list.txt").write_text("".join(f"{name} {label}\n" for name, label in listed))
    return listed


def records(path: Path) -> list[tuple[str, caffe_pb2.Datum]]:
    source = Records(str(path), "LMDB")
    first, found = source.key, []
    while not found or source.key != first:
        key, value = source.read()
        found.append((key.decode(), caffe_pb2.Datum.FromString(value)))
    return found


def test_convert_then_read_with_a_data_layer(tmp_path: Path, images: list[tuple[str, int]]) -> None:
    db = tmp_path / "db"
    assert main(["convert_imageset", str(tmp_path / "images"), str(tmp_path / "list.txt"), str(db)]) == 0
    assert [key for key, _ in records(db)] == [f"0000000{i}_{i}.png" for i in range(4)]
    net = build(tmp_path, f'type: "Data" top: "a" top: "b" data_param {{ source: "{db}" backend: LMDB batch_size: 4 }}')
    batch = batches(net, 1)[0]
    np.testing.assert_array_equal(batch["a"], [pixels(i) for i in range(4)])
    np.testing.assert_array_equal(batch["b"], [10, 11, 12, 13])


def test_shuffle_is_by_seed(tmp_path: Path, images: list[tuple[str, int]]) -> None:
    orders = []
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        flags = ["--shuffle", "--seed", seed]
        assert (
            main(
                ["convert_imageset", str(tmp_path / "images"), str(tmp_path / "list.txt"), str(tmp_path / name), *flags]
            )
            == 0
        )
        orders.append([d.label for _, d in records(tmp_path / name)])
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == [10, 11, 12, 13]


def test_grey_scaled_and_encoded(tmp_path: Path, images: list[tuple[str, int]]) -> None:
    path = str(tmp_path / "images" / "0.png")
    grey = image_datum(path, 3, color=False, size=(4, 5))
    assert (grey.channels, grey.height, grey.width, grey.label) == (1, 4, 5, 3)
    kept = image_datum(path, 3, encode_type="png")
    assert kept.encoded and kept.data == Path(path).read_bytes(), "an unchanged file is kept byte for byte"
    scaled = image_datum(path, 3, size=(4, 5), encode_type="png")
    assert cv2.imdecode(np.frombuffer(scaled.data, np.uint8), cv2.IMREAD_COLOR).shape == (4, 5, 3)
    with pytest.raises(DataError, match="OpenCV cannot write images of type 'nope'"):
        image_datum(path, 3, encode_type="nope")


def test_check_size_and_missing_images_leave_nothing(tmp_path: Path, images: list[tuple[str, int]]) -> None:
    cv2.imwrite(str(tmp_path / "images" / "large.png"), pixels(9, 7, 8).transpose(1, 2, 0))
    root, db = str(tmp_path / "images"), str(tmp_path / "db")
    with pytest.raises(DataError, match=r"large.png: the image is \(3, 7, 8\), the first was \(3, 6, 8\)"):
        convert_imageset([images[0], ("large.png", 0)], root, db, check_size=True)
    with pytest.raises(DataError, match="absent.png"):
        convert_imageset([images[0], ("absent.png", 0)], root, db)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "list.txt"]


def test_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = [pixels(i) for i in range(3)]
    db = database(tmp_path / "db", [datum(image) for image in values])
    expected = np.mean(np.float64(values), axis=0).astype(np.float32)
    found, count = mean_image(str(db))
    assert count == 3
    np.testing.assert_array_equal(found, expected)
    for name in ("mean.binaryproto", "mean.npy"):
        assert main(["compute_image_mean", str(db), str(tmp_path / name)]) == 0
    np.testing.assert_array_equal(read_mean(tmp_path / "mean.binaryproto"), expected[np.newaxis])
    np.testing.assert_array_equal(np.load(tmp_path / "mean.npy", allow_pickle=False), expected)
    assert f"mean_value channel [2]: {expected[2].mean(dtype='float64'):.6g}" in capsys.readouterr().out


def test_mean_of_images_that_differ_in_size(tmp_path: Path) -> None:
    db = database(tmp_path / "db", [datum(pixels(0)), datum(pixels(1, 7, 8))])
    with pytest.raises(DataError, match=r"record '00000001': the image is \(3, 7, 8\), the first was \(3, 6, 8\)"):
        mean_image(str(db))


def test_extract_features(tmp_path: Path) -> None:
    db = database(tmp_path / "db", [datum(pixels(i)) for i in range(4)])
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text(
        f'layer {{ name: "data" type: "Data" top: "data" data_param {{ source: "{db}" backend: LMDB batch_size: 2 }} }}\n'
        'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 2 kernel_size: 3\n'
        '        weight_filler { type: "xavier" } } }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 5\n'
        '        weight_filler { type: "xavier" } } }\n'
    )
    weights = tmp_path / "net.caffemodel"
    caffe_lite.Net(prototxt, caffe_lite.TEST).save(weights)
    outs = f"{tmp_path / 'conv_db'},{tmp_path / 'ip_db'}"
    assert main(["extract_features", str(weights), str(prototxt), "conv,ip", outs, "2", "lmdb"]) == 0
    net = caffe_lite.Net(prototxt, caffe_lite.TEST, weights=weights)
    expected = batches(net, 2)
    for name, shape in (("conv", (2, 4, 6)), ("ip", (5, 1, 1))):
        found = records(tmp_path / f"{name}_db")
        assert [key for key, _ in found] == [f"{i:010d}" for i in range(4)]
        assert all((d.channels, d.height, d.width) == shape for _, d in found)
        values = np.concatenate([batch[name] for batch in expected]).reshape(4, -1)
        np.testing.assert_array_equal([list(d.float_data) for _, d in found], values)
    assert main(["extract_features", str(weights), str(prototxt), "conv", str(tmp_path / "conv_db"), "2", "lmdb"]) == 1
    assert main(["extract_features", str(weights), str(prototxt), "con", str(tmp_path / "x"), "2", "lmdb"]) == 1
    assert not (tmp_path / "x").exists()
