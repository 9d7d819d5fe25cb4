"""Data: batches of Datum messages as Caffe's DataLayer makes them."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import caffe_lite
from caffe_lite.errors import DataError, NetError
from tests.data.data_files import assert_resumes, assert_same, batches, build, database, datum, pixels

IMAGES = [pixels(i) for i in range(5)]


def layer(source, batch=2, data="", transform="", tops="ab", backend="LMDB"):
    names = " ".join(f'top: "{top}"' for top in tops)
    return (
        f'type: "Data" {names} data_param {{ source: "{source}" backend: {backend} batch_size: {batch} {data} }} '
        f"transform_param {{ {transform} }}"
    )


@pytest.fixture
def five(tmp_path):
    return database(tmp_path / "five", [datum(image, 10 + i) for i, image in enumerate(IMAGES)])


def test_batches_go_round(device, tmp_path, five):
    net = build(tmp_path, layer(five))
    assert net.blobs["a"].shape == (2, 3, 6, 8) and net.blobs["b"].shape == (2,), "sized before the first forward"
    for i, batch in enumerate(batches(net, 6)):
        which = [2 * i % 5, (2 * i + 1) % 5]
        np.testing.assert_array_equal(batch["a"], [IMAGES[k] for k in which])
        np.testing.assert_array_equal(batch["b"], [10 + k for k in which])


@pytest.mark.parametrize("kind", ["uint8", "float", "encoded"])
def test_kinds_of_datum_and_no_labels(tmp_path, kind):
    source = database(tmp_path / "db", [datum(image, kind=kind) for image in IMAGES])
    net = build(tmp_path, layer(source, 5, tops="a", transform="mean_value: 7 scale: 0.5"))
    np.testing.assert_array_equal(batches(net, 1)[0]["a"], (np.float32(IMAGES) - 7) * np.float32(0.5))


def test_leveldb(tmp_path):
    pytest.importorskip("plyvel", reason="LevelDB needs the extra leveldb")
    source = database(tmp_path / "db", [datum(image, i) for i, image in enumerate(IMAGES)], "LEVELDB")
    net = build(tmp_path, layer(source, 5, backend="LEVELDB"))
    np.testing.assert_array_equal(batches(net, 2)[1]["b"], range(5))


def test_images_of_various_sizes(tmp_path):
    values = [datum(pixels(i, 6 + i, 9 - i), i) for i in range(3)]
    source = database(tmp_path / "db", values)
    shapes = [batch["a"].shape for batch in batches(build(tmp_path, layer(source, 1)), 4)]
    assert shapes == [(1, 3, 6, 9), (1, 3, 7, 8), (1, 3, 8, 7), (1, 3, 6, 9)]
    net = build(tmp_path, layer(source, 3, transform="crop_size: 4"))
    want = [pixels(i, 6 + i, 9 - i)[:, (2 + i) // 2 :, (5 - i) // 2 :][:, :4, :4] for i in range(3)]
    np.testing.assert_array_equal(batches(net, 1)[0]["a"], want)
    with pytest.raises(DataError, match=r"layer 'source' \(Data\): .*db: record '00000001': .* batch"):
        batches(build(tmp_path, layer(source, 2)), 1)


RANDOM = "mirror: true crop_size: 4"


def test_a_seed_decides_whatever_is_read_ahead(tmp_path, five):
    want = batches(build(tmp_path, layer(five, transform=RANDOM, data="prefetch: 0"), "TRAIN", 3), 8)
    for prefetch in ("", "prefetch: 1", "prefetch: 9"):
        assert_same(batches(build(tmp_path, layer(five, transform=RANDOM, data=prefetch), "TRAIN", 3), 8), want)
    other = batches(build(tmp_path, layer(five, transform=RANDOM), "TRAIN", 4), 8)
    assert any((a["a"] != b["a"]).any() for a, b in zip(other, want, strict=True))


@pytest.mark.parametrize("prefetch", [0, 4])
def test_resumes(tmp_path, five, prefetch):
    text = layer(five, transform=RANDOM, data=f"prefetch: {prefetch}")
    assert_resumes(lambda seed: build(tmp_path, text, "TRAIN", seed))


def test_a_state_of_another_database(tmp_path, five):
    state = build(tmp_path, layer(five, 5)).layers[0].state()
    other = database(tmp_path / "other", [datum(IMAGES[0])])
    net = build(tmp_path, layer(other, 1))
    state["key"] = "00000003"
    with pytest.raises(DataError, match="the saved state cannot be used: .*other: has no record '00000003'"):
        net.layers[0].set_state(state)
    batches(net, 1)


def test_two_nets_read_one_database_each_at_its_own_place(tmp_path, five):
    train, test = build(tmp_path, layer(five, 2)), build(tmp_path, layer(five, 1))
    batches(train, 2)
    assert batches(test, 1)[0]["b"] == [10]
    assert batches(train, 1)[0]["b"].tolist() == [14, 10]


def test_fields_of_older_caffes(tmp_path, caplog):
    source = database(tmp_path / "db", [datum(pixels(i, channels=1), i, "encoded") for i in range(2)])
    with caplog.at_level(logging.WARNING, "caffe_lite"):
        net = build(tmp_path, layer(source, 1, "rand_skip: 1000 force_encoded_color: true"))
    assert "rand_skip of data_param is not used" in caplog.text
    batch = batches(net, 1)[0]
    assert batch["b"] == [0] and batch["a"].shape == (1, 3, 6, 8)


def test_old_nets(tmp_path, five):
    path = tmp_path / "v1.prototxt"
    path.write_text(f"""layers {{ name: "source" type: DATA top: "a" data_param {{
        source: "{five}" backend: LMDB batch_size: 1 crop_size: 2 scale: 0.5 }} }}""")
    net = caffe_lite.Net(path, caffe_lite.TEST)
    net.forward()
    np.testing.assert_array_equal(net.blobs["a"].data[0], IMAGES[0][:, 2:4, 3:5] * 0.5)


@pytest.mark.parametrize(
    ("values", "text", "message"),
    [
        ([b"\xff\xff"], {}, "db: record '00000000': not a Datum message"),
        ([b""], {}, r"record '00000000': a datum of .* = \(0, 0, 0\) has 0 values"),
        ([datum(IMAGES[0], kind="encoded")[:-60]], {}, "record '00000000': not a Datum"),
        ([datum(IMAGES[0])], {"transform": "crop_size: 7"}, "record '00000000': crop_size 7 is larger than the image"),
        ([datum(IMAGES[0])], {"backend": "LEVELDB"}, "write backend: LMDB"),
        ([], {}, "db: the LMDB database holds no records"),
    ],
)
def test_bad_data(tmp_path, values, text, message):
    source = database(tmp_path / "db", values)
    with pytest.raises(DataError, match=r"layer 'source' \(Data\): .*" + message):
        build(tmp_path, layer(source, **text))


def test_a_record_that_is_damaged_later_on(tmp_path):
    values = [datum(image) for image in IMAGES]
    values[3] = values[3][:50]
    net = build(tmp_path, layer(database(tmp_path / "db", values)))
    batches(net, 1)
    for _ in range(2):
        with pytest.raises(DataError, match=r"layer 'source' \(Data\): .*db: record '00000003'"):
            net.forward()


def test_bad_parameters(tmp_path, five):
    with pytest.raises(NetError, match="batch_size must be > 0"):
        build(tmp_path, layer(five, 0))
    with pytest.raises(NetError, match="at most 2 top"):
        build(tmp_path, layer(five, tops="abc"))
    with pytest.raises(DataError, match="absent: there is no such LMDB database"):
        build(tmp_path, layer(tmp_path / "absent"))
