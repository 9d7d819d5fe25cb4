"""Images: reading, what is refused, and scaling for the data blob."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from caffe_lite.data.config import cfg
from caffe_lite.data.image_blob import as_image, image_size, prep_im_for_blob, read_image
from caffe_lite.errors import DataError


def test_pixels_are_scaled_bilinearly_after_subtracting_the_means():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    scaled, scale = prep_im_for_blob(image, cfg.PIXEL_MEANS, 50, 1000)
    assert scale == 2.5 and scaled.shape == (50, 75, 3) and scaled.dtype == np.float32

    def taps(count, size):  # pixel centres lie at half pixels; beyond the edge the edge is repeated
        at = np.clip((np.arange(count) + 0.5) / scale - 0.5, 0, size - 1)
        low = np.minimum(np.floor(at).astype(int), size - 2)
        return low, at - low

    (y, fy), (x, fx) = taps(50, 20), taps(75, 30)
    centred = image.astype(np.float64) - [102.9801, 115.9465, 122.7717]
    rows = centred[y] * (1 - fy)[:, None, None] + centred[y + 1] * fy[:, None, None]
    expected = rows[:, x] * (1 - fx)[:, None] + rows[:, x + 1] * fx[:, None]
    np.testing.assert_allclose(scaled, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [
        (300, 400, 2.0),
        (400, 300, 2.0),
        (300, 500, 2.0),
        (300, 501, 1000 / 501),
        (200, 4000, 0.25),
        (598, 997, 600 / 598),  # 1000.3 pixels count as 1000
        (599, 999, 1000 / 999),  # 1000.7 as 1001
    ],
)
def test_the_longest_side_is_capped(height, width, scale):
    scaled, got = prep_im_for_blob(np.zeros((height, width, 3), np.uint8), cfg.PIXEL_MEANS, 600, 1000)
    assert got == scale and scaled.shape[:2] == (round(height * scale), round(width * scale))


def cut(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.98])
def test_a_missing_or_truncated_image_is_named(tmp_path, suffix, keep):
    path = tmp_path / f"photo{suffix}"
    with pytest.raises(DataError, match=rf"photo\{suffix}: cannot read the image"):
        read_image(path)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    assert read_image(path).shape == (60, 80, 3)
    with pytest.raises(DataError, match=rf"photo\{suffix}: .*(cut short|empty|not an image)"):
        read_image(cut(path, keep))


def test_a_file_that_is_no_image_is_named(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("not an image")
    with pytest.raises(DataError, match=r"notes\.jpg: not an image"):
        read_image(path)


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]])
def test_jpegs_of_every_kind_are_whole_and_have_a_size(tmp_path, options):
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8), options)
    assert read_image(path).shape == (61, 83, 3)
    assert image_size(path) == (83, 61)
    content = path.read_bytes()
    # a comment that holds an end mark, as a thumbnail does, and bytes after the true one
    path.write_bytes(content[:2] + b"\xff\xfe\x00\x06\xff\xd9\xff\xd9" + content[2:] + b"trailing")
    assert read_image(path).shape == (61, 83, 3) and image_size(path) == (83, 61)
    path.write_bytes(content[:2] + b"\xff\xfe\x00\x06\xff\xd9\xff\xd9" + content[2:-2])
    with pytest.raises(DataError, match="cut short"):
        read_image(path)


def test_sizes_come_from_the_file_head(tmp_path):
    for name, size in (("a.png", (9, 7)), ("a.jpg", (9, 7)), ("a.bmp", None)):
        cv2.imwrite(str(tmp_path / name), np.zeros((7, 9, 3), np.uint8))
        assert image_size(tmp_path / name) == size
    with pytest.raises(DataError, match=r"b\.png: cannot read"):
        image_size(tmp_path / "b.png")


PIXELS = np.random.default_rng(2).integers(0, 256, (7, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (PIXELS[:, :, 0], np.repeat(PIXELS[:, :, :1], 3, axis=2)),  # grey
        (np.dstack((PIXELS, PIXELS[:, :, 0])), PIXELS),  # with transparency
        (PIXELS.astype(np.uint16) * 256 + 255, PIXELS),  # 16 bits: the upper 8
        (PIXELS[:, :, 1].astype(np.uint16) * 256 + 128, np.repeat(PIXELS[:, :, 1:2], 3, axis=2)),
    ],
)
def test_a_file_and_the_array_that_it_holds_are_the_same_image(tmp_path, stored, expected):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), stored)
    for image in (read_image(path), as_image(path), as_image(str(path)), as_image(stored)):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, expected)


def test_an_array_with_one_channel_is_grey():
    np.testing.assert_array_equal(as_image(PIXELS[:, :, :1]), np.repeat(PIXELS[:, :, :1], 3, axis=2))
    np.testing.assert_array_equal(as_image(PIXELS[:, ::-1]), PIXELS[:, ::-1])


def test_a_grey_jpeg_has_three_equal_channels(tmp_path):
    path = tmp_path / "grey.jpg"
    cv2.imwrite(str(path), np.full((20, 30), 90, np.uint8))
    image = read_image(path)
    assert image.shape == (20, 30, 3) and np.abs(image.astype(int) - 90).max() <= 1


@pytest.mark.parametrize(
    ("inks", "bgr"),
    [
        ((0, 255, 255, 0), (0, 0, 255)),  # magenta and yellow: red
        ((255, 0, 0, 0), (255, 255, 0)),  # cyan
        ((0, 0, 0, 155), (100, 100, 100)),  # black alone
        ((0, 51, 102, 0), (153, 204, 255)),
    ],
)
def test_a_cmyk_jpeg_has_the_colours_of_its_inks(tmp_path, inks, bgr):
    from PIL import Image

    path = tmp_path / "print.jpg"
    Image.new("CMYK", (24, 16), inks).save(path, quality=100)
    image = read_image(path)
    assert image.shape == (16, 24, 3) and image_size(path) == (24, 16)
    assert np.abs(image.astype(int) - bgr).max() <= 4


def test_an_exif_orientation_is_not_applied(tmp_path):
    """Annotations count stored pixels, and so do image_size and read_image."""
    plain, turned = tmp_path / "plain.jpg", tmp_path / "turned.jpg"
    cv2.imwrite(str(plain), cv2.resize(PIXELS, (48, 32)))
    content = plain.read_bytes()
    # one TIFF directory with one entry: Orientation (0x0112) = 6, "turn by 90 degrees to the right"
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    segment = b"Exif\x00\x00" + tiff
    exif = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment
    turned.write_bytes(content[:2] + exif + content[2:])
    assert cv2.imread(str(turned)).shape == (48, 32, 3)  # what OpenCV does unless told otherwise
    np.testing.assert_array_equal(read_image(turned), read_image(plain))
    assert image_size(turned) == (48, 32)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 5, 2), np.uint8), r"got \(4, 5, 2\)"),
        (np.zeros((5,), np.uint8), r"got \(5,\)"),
        (np.zeros((0, 5, 3), np.uint8), r"got \(0, 5, 3\)"),
        (np.zeros((4, 5, 3), np.float32), "must be uint8 .* got float32; convert it first"),
        (np.zeros((4, 5, 3), bool), "got bool"),
    ],
)
def test_an_array_that_is_no_image_is_refused(array, said):
    with pytest.raises(DataError, match=said):
        as_image(array)
