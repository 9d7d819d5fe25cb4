"""ImageData: batches of listed image files as Caffe's ImageDataLayer makes them."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from caffe_lite.errors import DataError, NetError
from tests.data.data_files import assert_resumes, assert_same, batches, build, encode, pixels

IMAGES = [pixels(i) for i in range(5)]


@pytest.fixture
def folder(tmp_path):
    """Five images, one with spaces in its name, and the list of them: labels 10 to 14."""
    for i, image in enumerate(IMAGES):
        (tmp_path / f"an image {i}.png").write_bytes(encode(image))
    (tmp_path / "list.txt").write_text("".join(f"an image {i}.png {10 + i}\n" for i in range(5)))
    return tmp_path


def layer(folder, batch=2, data="", transform="", more=""):
    return (
        f'type: "ImageData" top: "a" top: "b" transform_param {{ {transform} }} {more} image_data_param {{ '
        f'source: "{folder}/list.txt" root_folder: "{folder}/" batch_size: {batch} {data} }}'
    )


def test_batches_go_round(device, folder):
    net = build(folder, layer(folder))
    assert net.blobs["a"].shape == (2, 3, 6, 8) and net.blobs["b"].shape == (2,)
    for i, batch in enumerate(batches(net, 6)):
        which = [2 * i % 5, (2 * i + 1) % 5]
        np.testing.assert_array_equal(batch["a"], [IMAGES[k] for k in which])
        np.testing.assert_array_equal(batch["b"], [10 + k for k in which])


def test_gray_and_scaled(folder):
    net = build(folder, layer(folder, 1, "is_color: false new_height: 9 new_width: 7"))
    image = cv2.imread(str(folder / "an image 0.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(batches(net, 1)[0]["a"], [[cv2.resize(image, (7, 9))]])


def test_transformed(folder):
    net = build(folder, layer(folder, 5, transform="crop_size: 4 mean_value: 1 mean_value: 2 mean_value: 3"))
    want = np.float32(IMAGES)[:, :, 1:5, 2:6] - np.float32([1, 2, 3]).reshape(3, 1, 1)
    np.testing.assert_array_equal(batches(net, 1)[0]["a"], want)


def test_the_list(folder):
    """Ends of lines as other systems write them, blank lines, blanks at the end, no line end at the end."""
    names = [f"an image {i}.png" for i in range(3)]
    (folder / "list.txt").write_bytes(f"{names[0]} 7\r\n\n{names[1]}  -8 \n{names[2]} 9".encode())
    assert batches(build(folder, layer(folder, 3)), 1)[0]["b"].tolist() == [7, -8, 9]


def test_images_of_various_sizes(folder):
    (folder / "an image 1.png").write_bytes(encode(pixels(1, 7, 9)))
    assert [b["a"].shape[2:] for b in batches(build(folder, layer(folder, 1)), 3)] == [(6, 8), (7, 9), (6, 8)]
    with pytest.raises(DataError, match=r"layer 'source' \(ImageData\): .*an image 1.png: .* give crop_size"):
        batches(build(folder, layer(folder, 2)), 1)


def test_shuffle_gives_every_image_once_in_each_pass_in_other_orders(folder):
    labels = [int(b["b"][0]) for b in batches(build(folder, layer(folder, 1, "shuffle: true"), seed=1), 40)]
    passes = [tuple(labels[i : i + 5]) for i in range(0, 40, 5)]
    assert all(sorted(p) == [10, 11, 12, 13, 14] for p in passes)
    assert len(set(passes)) > 3


def test_rand_skip_moves_the_first_pass(folder):
    firsts = set()
    for seed in range(30):
        labels = [int(b["b"][0]) for b in batches(build(folder, layer(folder, 1, "rand_skip: 3"), seed=seed), 6)]
        assert labels == [10 + (labels[0] - 10 + i) % 5 for i in range(6)]
        firsts.add(labels[0])
    assert firsts == {10, 11, 12}


RANDOM = {"data": "shuffle: true rand_skip: 2", "transform": "mirror: true crop_size: 4"}


def test_a_seed_decides_whatever_is_read_ahead(folder):
    want = batches(build(folder, layer(folder, **RANDOM, more="data_param { prefetch: 0 }"), "TRAIN", 3), 8)
    for more in ("", "data_param { prefetch: 1 }", "data_param { prefetch: 9 }"):
        assert_same(batches(build(folder, layer(folder, **RANDOM, more=more), "TRAIN", 3), 8), want)


@pytest.mark.parametrize("prefetch", [0, 4])
def test_resumes(folder, prefetch):
    text = layer(folder, **RANDOM, more=f"data_param {{ prefetch: {prefetch} }}")
    assert_resumes(lambda seed: build(folder, text, "TRAIN", seed))


def test_a_state_of_another_list(folder):
    net = build(folder, layer(folder))
    with pytest.raises(DataError, match="it is of a list of 9 images, this one has 5"):
        net.layers[0].set_state(net.layers[0].state() | {"images": 9})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "list.txt: the list of images is empty"),
        ("an image 0.png\n", "list.txt:1: expected an image path, a space and a whole-number label"),
        ("an image 0.png 1\nan image 1.png 2.5\n", "list.txt:2: expected .*got 'an image 1.png 2.5'"),
        ("7\n", "list.txt:1: expected"),
        ("absent.png 1\n", "absent.png: cannot read the image: No such file"),
        ("list.txt 1\n", "list.txt: not an image"),
        (None, "list.txt: cannot read the list of images: No such file"),
    ],
)
def test_bad_lists(folder, content, message):
    if content is None:
        os.remove(folder / "list.txt")
    else:
        (folder / "list.txt").write_text(content)
    with pytest.raises(DataError, match=r"layer 'source' \(ImageData\): .*" + message):
        build(folder, layer(folder))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_image_thatis_cut_short(folder, suffix):
    (folder / "an image 3.png").write_bytes(encode(pixels(3, 64, 64), suffix)[:-100])
    net = build(folder, layer(folder))
    batches(net, 1)
    with pytest.raises(DataError, match=r"layer 'source' \(ImageData\): .*an image 3.png: the image file is cut short"):
        net.forward()


def test_bad_parameters(folder):
    with pytest.raises(NetError, match="batch_size must be > 0"):
        build(folder, layer(folder, 0))
    with pytest.raises(NetError, match="give both new_height and new_width, or neither; got 4 and 0"):
        build(folder, layer(folder, data="new_height: 4"))
    with pytest.raises(NetError, match="rand_skip skips .* of 5 images"):
        for seed in range(20):
            build(folder, layer(folder, data="rand_skip: 1000"), seed=seed)
    with pytest.raises(DataError, match="an image 0.png: crop_size 7 is larger"):
        build(folder, layer(folder, transform="crop_size: 7"))
