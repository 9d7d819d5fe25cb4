"""transform_param against its definition, pixel by pixel; images decoded as stored; bad input."""

from __future__ import annotations

import logging
import struct

import cv2
import numpy as np
import pytest

from caffe_lite import prototxt, weights
from caffe_lite.data.transformer import (
    Transformer,
    _warn_not_encoded,
    datum_to_array,
    decode_image,
    planes_of,
    read_image,
)
from caffe_lite.errors import DataError
from caffe_lite.proto import caffe_pb2
from tests.data.data_files import datum, encode, pixels

TRAIN, TEST = 0, 1


def transformer(text, phase=TEST, seed=0):
    param = caffe_pb2.TransformationParameter()
    prototxt.parse(text, param)
    return Transformer(param, phase, np.random.default_rng(seed))


def draws(seed=0):
    """The generator of a transformer that was built from this seed."""
    return np.random.default_rng(int(np.random.default_rng(seed).integers(1 << 63)))


def expected(image, phase, rng, crop=0, mirror=False, mean=None, scale=1.0):
    """The definition, one pixel at a time; ``mean`` (C, H, W)."""
    flip = mirror and rng.integers(2)
    channels, height, width = image.shape
    h, w = (crop, crop) if crop else (height, width)
    y0, x0 = (height - h) // 2, (width - w) // 2
    if crop and phase == TRAIN:
        y0 = rng.integers(height - h + 1)
        x0 = rng.integers(width - w + 1)
    out = np.empty((channels, h, w), np.float32)
    for c in range(channels):
        for y in range(h):
            for x in range(w):
                at = (c, y0 + y, x0 + (w - 1 - x if flip else x))
                value = np.float32(image[at])
                out[c, y, x] = (value if mean is None else value - mean[at]) * np.float32(scale)
    return out


@pytest.mark.parametrize("phase", [TRAIN, TEST])
@pytest.mark.parametrize("crop", [0, 3])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("mean", ["", "one", "each", "file"])
def test_definition(tmp_path, phase, crop, mirror, mean):
    mean_image = np.random.default_rng(9).uniform(0, 255, (3, 6, 8)).astype(np.float32)
    weights.write_mean(tmp_path / "mean.binaryproto", mean_image)
    values = {"one": [100.5], "each": [104, 117, 123]}.get(mean, [])
    text = f"crop_size: {crop} mirror: {str(mirror).lower()} scale: 0.0125 "
    text += "".join(f"mean_value: {v} " for v in values)
    text += f'mean_file: "{tmp_path}/mean.binaryproto"' if mean == "file" else ""
    whole = mean_image if mean == "file" else None
    if values:
        whole = np.broadcast_to(np.float32(values).reshape(-1, 1, 1), (3, 6, 8))
    transform, rng = transformer(text, phase), draws()
    seen = set()
    for seed in range(8):
        for image in (pixels(seed), pixels(seed).astype(np.float32) / 3):
            want = expected(image, phase, rng, crop, mirror, whole, 0.0125)
            got = np.empty(transform.shape_of(image.shape, "here"), np.float32)
            transform(image, got, "here")
            np.testing.assert_array_equal(got, want)
        seen.add(str(rng.bit_generator.state))
    assert (len(seen) > 1) == bool(mirror or (crop and phase == TRAIN)), "draws only where something is random"


def test_mirror_is_random_in_both_phases_and_crops_reach_every_corner():
    image = np.arange(4 * 5, dtype=np.uint8).reshape(1, 4, 5)
    for phase, places in ((TEST, 1), (TRAIN, 3 * 4)):
        transform, found = transformer("mirror: true crop_size: 2", phase), set()
        out = np.empty((1, 2, 2), np.float32)
        for _ in range(400):
            transform(image, out, "here")
            found.add(tuple(out.ravel()))
        assert len(found) == 2 * places


def test_it_takes_from_the_process_stream_only_what_it_needs():
    for text, phase, taken in (
        ("", TRAIN, False),
        ("crop_size: 2", TEST, False),
        ("crop_size: 2", TRAIN, True),
        ("mirror: true", TEST, True),
    ):
        param, rng = caffe_pb2.TransformationParameter(), np.random.default_rng(0)
        prototxt.parse(text, param)
        Transformer(param, phase, rng)
        assert (rng.random() != np.random.default_rng(0).random()) == taken


def test_double_precision():
    transform, out = transformer("mean_value: 0.1 scale: 0.1"), np.empty((3, 6, 8))
    transform(pixels(0), out, "here")
    np.testing.assert_array_equal(out, (pixels(0) - float(np.float32(0.1))) * float(np.float32(0.1)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crop_size: 7", "here: crop_size 7 is larger than the image, 6 high and 8 wide"),
        ("mean_value: 1 mean_value: 2", r"here: 2 mean_value for 3 channel\(s\)"),
        ('mean_file: "wrong"', r"here: the image has shape \(3, 6, 8\) and mean_file .*wrong \(3, 6, 7\)"),
        ('mean_file: "absent"', "mean_file .*absent: cannot be read"),
        ('mean_file: "two"', r"mean_file .*two: expected one image.*\(2, 3, 6, 8\)"),
        ('mean_file: "wrong" mean_value: 1', "mean_file or mean_value, not both"),
        ("force_color: true force_gray: true", "force_color or force_gray, not both"),
    ],
)
def test_bad_parameters(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    weights.write_mean("wrong", np.zeros((3, 6, 7), np.float32))
    weights.write_mean("two", np.zeros((2, 3, 6, 8), np.float32))
    with pytest.raises(DataError, match=message):
        transformer(text).shape_of((3, 6, 8), "here")


def test_an_image_unlike_the_first_of_its_batch():
    with pytest.raises(DataError, match=r"here: the image becomes \(3, 6, 8\), the first of its batch \(3, 6, 9\)"):
        transformer("")(pixels(0), np.empty((3, 6, 9), np.float32), "here")


# ---- images


def test_images_are_decoded_as_opencv_does():
    color, gray = pixels(1), pixels(2, channels=1)
    for planes, native in ((color, color), (gray, gray[0])):
        content = encode(planes)
        native = native.transpose(1, 2, 0) if native.ndim == 3 else native
        np.testing.assert_array_equal(decode_image(content, None, "x"), native)
    np.testing.assert_array_equal(decode_image(encode(color), True, "x"), color.transpose(1, 2, 0))
    np.testing.assert_array_equal(decode_image(encode(gray), True, "x"), np.repeat(gray[0][..., None], 3, axis=2))
    want = cv2.imdecode(np.frombuffer(encode(color), np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(decode_image(encode(color), False, "x"), want)
    alpha = pixels(3, channels=4)
    np.testing.assert_array_equal(planes_of(decode_image(encode(alpha), None, "x")), alpha)
    np.testing.assert_array_equal(planes_of(gray[0]), gray)


def test_an_orientation_in_the_file_is_not_applied():
    jpeg = encode(pixels(0, 16, 8), ".jpg")
    tag = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + b"\0\0\0\0"  # turn by 90 degrees
    segment = b"Exif\0\0" + tag
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (8, 16, 3), "the test's file"
    for color in (None, True, False):
        assert decode_image(turned, color, "x").shape[:2] == (16, 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x: the image file is empty"),
        (b"no image at all", "x: not an image that OpenCV can read"),
        (encode(pixels(0, 64, 64), ".jpg")[:-200], "x: the image file is cut short"),
        (encode(pixels(0, 64, 64))[:-200], "x: the image file is cut short"),
        (cv2.imencode(".png", np.zeros((4, 4), np.uint16))[1].tobytes(), "x: the image has uint16 pixels"),
    ],
)
def test_damaged_images(content, message):
    with pytest.raises(DataError, match=message):
        decode_image(content, None, "x")


def test_read_image(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(pixels(0, 6, 8)))
    image = cv2.imread(str(tmp_path / "a.png"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", True, (5, 11)), cv2.resize(image, (11, 5)))
    with pytest.raises(DataError, match="absent.png: cannot read the image: No such file"):
        read_image(tmp_path / "absent.png", True)


# ---- datums


def parsed(content):
    message = caffe_pb2.Datum()
    message.ParseFromString(content)
    return message


@pytest.mark.parametrize("kind", ["uint8", "float", "encoded"])
def test_datums(kind):
    planes = pixels(4)
    array = datum_to_array(parsed(datum(planes, kind=kind)), None, "x")
    np.testing.assert_array_equal(array, planes)
    assert array.dtype == ("float32" if kind == "float" else "uint8")


def test_bytes_come_before_floats():
    message = parsed(datum(pixels(4)))
    message.float_data.extend([1.5] * pixels(4).size)
    np.testing.assert_array_equal(datum_to_array(message, None, "x"), pixels(4))


def test_color_of_a_datum(caplog):
    _warn_not_encoded.cache_clear()
    gray = pixels(5, channels=1)
    assert datum_to_array(parsed(datum(gray, kind="encoded")), True, "x").shape == (3, 6, 8)
    assert datum_to_array(parsed(datum(pixels(5), kind="encoded")), False, "x").shape == (1, 6, 8)
    with caplog.at_level(logging.WARNING, "caffe_lite"):
        assert datum_to_array(parsed(datum(gray)), True, "x").shape == (1, 6, 8)
    assert "for encoded images only" in caplog.text


@pytest.mark.parametrize("field", ["channels", "height", "data"])
def test_a_datum_without_as_many_values_as_its_shape(field):
    message = parsed(datum(pixels(4)))
    setattr(message, field, {"channels": 4, "height": 0, "data": b"abc"}[field])
    with pytest.raises(DataError, match=r"x: a datum of .* has (144|3) values"):
        datum_to_array(message, None, "x")
