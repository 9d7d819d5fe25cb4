"""WindowData: window files, sampling, and boxes warped as Caffe's WindowDataLayer does."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest

from caffe_lite import weights
from caffe_lite.data.window_file import place_window, read_window_file
from caffe_lite.errors import DataError, NetError
from tests.data.data_files import assert_resumes, assert_same, batches, build, encode, pixels

IMAGES = [pixels(i, 20, 30) for i in range(2)]
FOREGROUND = [(0, 3, 2, 4, 9, 12), (0, 5, 10, 0, 29, 19), (1, 7, 3, 3, 3, 3)]  # image, label, x1, y1, x2, y2
BACKGROUND = [(0, 0, 20, 10, 28, 18), (1, 0, 0, 5, 15, 19)]
TEXT = """\
# 0
an image 0.png
3
20
30
4
3 0.9 2 4 9 12
5 0.5 10 0 29 19
2 0.49 20 10 28 18
4 0.495 1 1 2 2
# 1
an image 1.png
3
20
30
2
7 1 3 3 3 3
0 0 0 5 15 19
"""


@pytest.fixture
def folder(tmp_path):
    for i, image in enumerate(IMAGES):
        (tmp_path / f"an image {i}.png").write_bytes(encode(image))
    (tmp_path / "windows.txt").write_text(TEXT)
    return tmp_path


def layer(folder, batch=4, size=6, data="", transform="", more=""):
    return (
        f'type: "WindowData" top: "a" top: "b" transform_param {{ crop_size: {size} {transform} }} {more} '
        f'window_data_param {{ source: "{folder}/windows.txt" root_folder: "{folder}/" batch_size: {batch} '
        f"bg_threshold: 0.495 {data} }}"
    )


def warp(window, size=6):
    """The window stretched to (3, size, size)."""
    image, _, x1, y1, x2, y2 = window
    crop = np.ascontiguousarray(IMAGES[image][:, y1 : y2 + 1, x1 : x2 + 1].transpose(1, 2, 0))
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1).astype(np.float32)


def drawn(seed, count, mirror=False):
    """The windows, and whether they are mirrored, of ``count`` batches of 4 with fg_fraction 0.25."""
    rng = np.random.default_rng(int(np.random.default_rng(seed).integers(1 << 63)))
    for _ in range(count):
        for windows, n in ((BACKGROUND, 3), (FOREGROUND, 1)):
            for _ in range(n):
                window = windows[rng.integers(len(windows))]
                yield window, bool(mirror and rng.integers(2))


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("mirror", [False, True])
def test_background_first_then_foreground_each_drawn_from_all(device, folder, phase, mirror):
    text = layer(folder, transform=f"mirror: {str(mirror).lower()}")
    net = build(folder, text, phase, seed=4)
    assert net.blobs["a"].shape == (4, 3, 6, 6) and net.blobs["b"].shape == (4,)
    found = batches(net, 8)
    want = list(drawn(4, 8, mirror))
    np.testing.assert_array_equal(np.concatenate([b["b"] for b in found]), [w[1] for w, _ in want])
    images = [warp(w)[:, :, ::-1] if flip else warp(w) for w, flip in want]
    np.testing.assert_array_equal(np.concatenate([b["a"] for b in found]), images)
    assert {w for w, _ in want} == {*FOREGROUND, *BACKGROUND}


def test_pixels_are_scaled_by_the_scale_of_window_data_param(folder, caplog):
    plain = batches(build(folder, layer(folder), seed=1), 1)[0]["a"]
    with caplog.at_level(logging.WARNING, "caffe_lite"):
        text = layer(folder, data="scale: 0.25", transform="scale: 100 mean_value: 1 mean_value: 2 mean_value: 3")
        scaled = batches(build(folder, text, seed=1), 1)[0]["a"]
    assert "transform_param.scale is not used" in caplog.text
    np.testing.assert_array_equal(scaled, (plain - np.float32([1, 2, 3]).reshape(3, 1, 1)) * np.float32(0.25))


def test_a_mean_file_is_cropped_by_its_width_and_not_mirrored(folder):
    mean = np.random.default_rng(0).uniform(0, 255, (3, 9, 11)).astype(np.float32)
    weights.write_mean(folder / "mean", mean)
    plain = batches(build(folder, layer(folder, transform="mirror: true"), seed=1), 3)
    text = layer(folder, transform=f'mirror: true mean_file: "{folder}/mean"')
    for got, want in zip(batches(build(folder, text, seed=1), 3), plain, strict=True):
        np.testing.assert_array_equal(got["a"], want["a"] - mean[:, 2:8, 2:8])


def test_with_context_what_lies_outside_is_zero(folder):
    """The first foreground window enlarged by 3/2 reaches from -2 to 12 across, and is all inside below."""
    text = layer(folder, 1, 12, "fg_fraction: 1 context_pad: 2", "mean_value: 300")
    (folder / "windows.txt").write_text("# 0\nan image 0.png\n3\n20\n30\n1\n3 0.9 0 4 7 11\n")
    found = batches(build(folder, text), 1)[0]["a"][0]
    place = place_window((0, 4, 7, 11), (20, 30), 12, 2, False, False, "float32")
    assert (place.x1, place.x2, place.y1, place.y2) == (0, 10, 2, 14)
    assert (place.left, place.top, place.width, place.height) == (2, 0, 10, 12)
    crop = np.ascontiguousarray(IMAGES[0][:, 2:15, 0:11].transpose(1, 2, 0))
    np.testing.assert_array_equal(found[:, :, :2], 0)
    np.testing.assert_array_equal(found[:, :, 2:], cv2.resize(crop, (10, 12)).transpose(2, 0, 1) - 300.0)


def test_where_windows_go():
    """Worked by hand from the rule: corner = round(centre -+ half * size / (size - 2 context))."""

    def place(window, context=0, square=False, mirror=False, size=10, image=(20, 30)):
        p = place_window(window, image, size, context, square, mirror, "float32")
        return (p.x1, p.y1, p.x2, p.y2), (p.left, p.top, p.width, p.height)

    assert place((2, 3, 4, 9)) == ((2, 3, 4, 9), (0, 0, 10, 10))
    # half 1.5 x 3.5 -> 3.5 x 3.5 about (3.5, 6.5): 0..7 across, 3..10 down
    assert place((2, 3, 4, 9), square=True) == ((0, 3, 7, 10), (0, 0, 10, 10))
    # half 2, times 10 / 6 = 3.33, about (2, 10): -1..5 across (7 pixels, 1 outside), 7..13 down
    assert place((0, 8, 3, 11), context=2) == ((0, 7, 5, 13), (1, 0, 9, 10))
    # the same at the right edge: 25..31 (2 outside), margin round(2 * 10 / 7) = 3
    assert place((26, 8, 29, 11), context=2) == ((25, 7, 29, 13), (0, 0, 7, 10))
    assert place((26, 8, 29, 11), context=2, mirror=True) == ((25, 7, 29, 13), (3, 0, 7, 10))
    # half 1.5, times 2, about 1.5: -1.5..4.5, halves rounded away from zero: -2..5 (2 outside)
    assert place((0, 0, 2, 2), context=1, size=4)[0] == (0, 0, 5, 5)


RANDOM = {"transform": "mirror: true", "data": "cache_images: true"}


def test_a_seed_decides_whatever_is_read_ahead(folder):
    want = batches(build(folder, layer(folder, transform="mirror: true"), seed=3), 6)
    for more in ("data_param { prefetch: 0 }", "data_param { prefetch: 9 }"):
        assert_same(batches(build(folder, layer(folder, **RANDOM, more=more), seed=3), 6), want)


@pytest.mark.parametrize("prefetch", [0, 4])
def test_resumes(folder, prefetch):
    text = layer(folder, **RANDOM, more=f"data_param {{ prefetch: {prefetch} }}")
    assert_resumes(lambda seed: build(folder, text, "TRAIN", seed))


def test_thresholds_and_numbers_are_single_precision(folder):
    windows = read_window_file(str(folder / "windows.txt"), 0.5, float(np.float32(0.495)))
    assert windows.foreground.tolist() == [list(w) for w in FOREGROUND]
    assert windows.background.tolist() == [list(w) for w in BACKGROUND]
    assert windows.images == ["an image 0.png", "an image 1.png"]
    labels = batches(build(folder, layer(folder, 30, data="fg_fraction: 0.1")), 1)[0]["b"]
    assert np.count_nonzero(labels) == 3, "30 * 0.1 is 3 in float32"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (TEXT, "", "windows.txt: the window file is empty"),
        ("# 1", "1", "windows.txt:11: expected '# index' before each image, got '1'"),
        ("3\n20", "1\n20", "windows.txt:6: .*expected 3 here, got 1"),
        ("3\n20", "three\n20", "windows.txt:3: expected the number of channels, got 'three'"),
        ("5 0.5 10 0 29 19", "5 0.5 10 0 29", "windows.txt:8: expected 4 lines .* got '5 0.5 10 0 29'"),
        ("5 0.5 10 0 29 19", "5 0.5 10 0 29 x", "windows.txt:8: expected 4 lines .* got '5 0.5 10 0 29 x'"),
        ("0 0 0 5 15 19\n", "", "windows.txt:17: expected 2 lines .* found 1"),
        ("\n30\n2\n7 1 3 3 3 3\n0 0 0 5 15 19", "", "windows.txt:14: the file ends where width should follow"),
        ("5 0.5", "0 0.5", "windows.txt:8: a window that overlaps an object must have a label > 0"),
        (" 0.9", " 0.6", None),
        (" 0.49 ", " 0.6 ", None),
        ("# 1", "# 7", None),
    ],
)
def test_window_files(folder, old, new, message):
    assert old in TEXT
    (folder / "windows.txt").write_text(TEXT.replace(old, new))
    if message is None:
        build(folder, layer(folder)).forward()
        return
    with pytest.raises(DataError, match=r"layer 'source' \(WindowData\): .*" + message):
        build(folder, layer(folder))


def test_windows_and_images_that_do_not_fit(folder):
    def forward(text, transform="", data=""):
        (folder / "windows.txt").write_text(f"# 0\nan image 0.png\n3\n20\n30\n1\n{text}\n")
        build(folder, layer(folder, 1, data=f"fg_fraction: 1 {data}", transform=transform)).forward()

    forward("3 1 0 0 29 19")
    for text in ("3 1 0 0 30 19", "3 1 -1 0 5 5", "3 1 5 5 4 8"):
        with pytest.raises(DataError, match=r"'source' .*an image 0.png: window .* is not inside .*in .*windows.txt"):
            forward(text)
    with pytest.raises(DataError, match=r"window \(40, 5, 50, 8\) has nothing inside the image, 30 wide and 20 high"):
        forward("3 1 40 5 50 8", data='crop_mode: "square"')
    with pytest.raises(DataError, match="a batch needs 1 foreground window.s., the file has none"):
        forward("0 0 0 0 5 5")
    (folder / "an image 0.png").unlink()
    with pytest.raises(DataError, match=r"'source' .*an image 0.png: cannot read the image"):
        forward("3 1 0 0 5 5")


def test_bad_parameters(folder):
    weights.write_mean(folder / "mean", np.zeros((3, 5, 9), np.float32))
    for options, error, message in (
        ({"batch": 0}, NetError, "batch_size must be > 0"),
        ({"size": 0}, NetError, "crop_size must be > 0"),
        ({"data": 'crop_mode: "round"'}, NetError, "crop_mode is"),
        ({"data": "context_pad: 3"}, NetError, "context_pad 3 leaves nothing of crop_size 6"),
        ({"data": "fg_fraction: 1.5"}, NetError, "fg_fraction must be in"),
        ({"transform": "mean_value: 1 mean_value: 2"}, NetError, "2 mean_value for 3 channels"),
        ({"transform": f'mean_value: 1 mean_file: "{folder}/mean"'}, NetError, "not both"),
        ({"transform": f'mean_file: "{folder}/mean"'}, DataError, r"mean: has shape \(3, 5, 9\)"),
    ):
        with pytest.raises(error, match=message):
            build(folder, layer(folder, **options))
