"""io: messages and images, and the order in which Transformer prepares them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import caffe_lite as caffe
from caffe_lite.proto import caffe_pb2


def blob_proto(values: np.ndarray, **fields):
    return caffe_pb2.BlobProto(data=values.ravel(), **fields)


def test_blobproto_of_either_age() -> None:
    values = np.arange(6.0).reshape(2, 3)
    new = blob_proto(values, shape=caffe_pb2.BlobShape(dim=[2, 3]))
    old = blob_proto(values, num=1, channels=1, height=2, width=3)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(new), values)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(old), values[np.newaxis, np.newaxis])
    assert caffe.io.blobproto_to_array(blob_proto(np.array([123.0]))) == 123
    assert caffe.io.blobproto_to_array(new).dtype == np.float64
    with pytest.raises(ValueError, match="needs 1 values and has 6"):
        caffe.io.blobproto_to_array(blob_proto(values))


@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 4), (1, 2, 3, 2)])
def test_arrays_survive_the_messages(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    array, diff = (rng.integers(-9, 9, shape) / 4 for _ in range(2))
    blob = caffe.io.array_to_blobproto(array, diff)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob), array)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob, return_diff=True), diff)
    assert len(blob.data) == array.size and not blob.double_data, "float32, as pycaffe writes it"
    text = caffe.io.arraylist_to_blobprotovector_str([array, diff])
    assert isinstance(text, bytes)
    for found, expected in zip(caffe.io.blobprotovector_str_to_arraylist(text), (array, diff), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert caffe.io.blobprotovector_str_to_arraylist(b"") == []


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64"])
def test_datum(dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    datum = caffe.io.array_to_datum(array, label=5)
    assert (datum.channels, datum.height, datum.width, datum.label) == (2, 3, 4, 5)
    assert bool(datum.data) == (dtype == "uint8") and len(datum.float_data) == (0 if dtype == "uint8" else 24)
    back = caffe.io.datum_to_array(datum)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == (np.uint8 if dtype == "uint8" else np.float64)
    without = caffe.io.array_to_datum(array)
    assert len(without.SerializeToString()) < len(datum.SerializeToString()) and not without.HasField("label")


def test_datum_refuses_what_is_none() -> None:
    with pytest.raises(ValueError, match=r"\(C, H, W\), got shape \(2, 2\)"):
        caffe.io.array_to_datum(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="needs 4 values and has 3"):
        caffe.io.datum_to_array(caffe_pb2.Datum(channels=1, height=2, width=2, data=b"abc"))
    with pytest.raises(ValueError, match="encoded"):
        caffe.io.datum_to_array(caffe_pb2.Datum(encoded=True, data=b"abc"))


BGR = np.array([[[10, 20, 30], [255, 0, 0]], [[0, 255, 0], [0, 0, 255]]], np.uint8)


@pytest.mark.parametrize("depth", [8, 16])
def test_load_image_is_rgb_in_0_1(tmp_path, depth: int) -> None:
    path = str(tmp_path / "image.png")
    cv2.imwrite(path, BGR if depth == 8 else BGR.astype(np.uint16) * 257)
    image = caffe.io.load_image(path)
    assert image.dtype == np.float32 and image.shape == (2, 2, 3)
    np.testing.assert_allclose(image, BGR[..., ::-1] / 255, atol=1e-6)
    grey = caffe.io.load_image(path, color=False)
    assert grey.shape == (2, 2, 1)
    np.testing.assert_allclose(grey[1, :, 0], [0.7154, 0.2125], atol=1e-6)


def test_load_image_of_grey_and_of_transparent_files(tmp_path) -> None:
    grey, transparent = str(tmp_path / "grey.png"), str(tmp_path / "transparent.png")
    cv2.imwrite(grey, BGR[..., 0])
    cv2.imwrite(transparent, np.dstack([BGR, np.zeros((2, 2), np.uint8)]))
    for channel in np.moveaxis(caffe.io.load_image(grey), -1, 0):
        np.testing.assert_allclose(channel, BGR[..., 0] / 255, atol=1e-6)
    assert caffe.io.load_image(grey, color=False).shape == (2, 2, 1)
    np.testing.assert_allclose(caffe.io.load_image(transparent), BGR[..., ::-1] / 255, atol=1e-6)


def test_load_image_says_what_is_wrong(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.jpg: cannot be read"):
        caffe.io.load_image(str(tmp_path / "none.jpg"))
    for content in (b"", b"no image"):
        (tmp_path / "text.jpg").write_bytes(content)
        with pytest.raises(RuntimeError, match=r"text\.jpg: not an image"):
            caffe.io.load_image(str(tmp_path / "text.jpg"))


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Areas of pixels, half-pixel centres, the smallest value outside."""
    low = image.min()
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=low)
    out = np.empty((height, width, image.shape[2]))
    for i, j in np.ndindex(height, width):
        y, x = (i + 0.5) * image.shape[0] / height + 0.5, (j + 0.5) * image.shape[1] / width + 0.5
        a, b = int(y), int(x)
        v, u = y - a, x - b
        below = padded[min(a + 1, len(padded) - 1)], padded[a]
        right = min(b + 1, padded.shape[1] - 1)
        out[i, j] = (1 - v) * ((1 - u) * below[1][b] + u * below[1][right]) + v * (
            (1 - u) * below[0][b] + u * below[0][right]
        )
    return out


@pytest.mark.parametrize("dims", [(5, 7), (3, 2), (12, 9), (4, 6)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_image(dims: tuple[int, int], channels: int) -> None:
    image = np.random.default_rng(0).normal(size=(4, 6, channels)).astype(np.float32)
    resized = caffe.io.resize_image(image, dims)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, bilinear(image, *dims), atol=1e-5)


def test_resize_image_of_constants_and_of_many_channels() -> None:
    constant = caffe.io.resize_image(np.full((4, 4, 3), 7.0), (2, 6))
    assert constant.shape == (2, 6, 3) and (constant == 7).all()
    ramp = np.stack([np.add.outer(np.arange(3.0), np.arange(5.0))] * 4, axis=2)
    corners = caffe.io.resize_image(ramp, (5, 9))
    np.testing.assert_allclose(corners[..., 0], np.add.outer(np.linspace(0, 2, 5), np.linspace(0, 4, 9)), atol=1e-6)


def test_oversample_takes_corners_centre_and_mirrors() -> None:
    images = np.random.default_rng(0).normal(size=(2, 7, 9, 3)).astype(np.float32)
    crops = caffe.io.oversample(images, (4, 6))
    assert crops.shape == (20, 4, 6, 3) and crops.dtype == np.float32
    for image, of_image in zip(images, crops.reshape(2, 10, 4, 6, 3), strict=True):
        for crop, (y, x) in zip(of_image, [(0, 0), (0, 3), (3, 0), (3, 3), (1, 1)], strict=False):
            np.testing.assert_array_equal(crop, image[y : y + 4, x : x + 6])
        np.testing.assert_array_equal(of_image[5:], of_image[:5, :, ::-1])
    with pytest.raises(ValueError, match="does not fit"):
        caffe.io.oversample(images, (8, 6))


@pytest.fixture
def transformer() -> caffe.io.Transformer:
    return caffe.io.Transformer({"data": (1, 3, 4, 5)})


def test_transformer_order_of_steps(transformer: caffe.io.Transformer) -> None:
    image = np.random.default_rng(0).uniform(size=(4, 5, 3))
    before = image.copy()
    np.testing.assert_allclose(transformer.preprocess("data", image), image, rtol=1e-6)
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", np.array([104.0, 117.0, 123.0]))
    transformer.set_input_scale("data", 0.017)
    out = transformer.preprocess("data", image)
    mean = np.array([104, 117, 123]).reshape(3, 1, 1)
    np.testing.assert_allclose(out, (image.transpose(2, 0, 1)[::-1] * 255 - mean) * 0.017, rtol=1e-4, atol=1e-5)
    assert out.dtype == np.float32
    np.testing.assert_allclose(transformer.deprocess("data", out[np.newaxis]), image, atol=1e-5)
    np.testing.assert_array_equal(image, before)
    single = image.astype(np.float32)
    transformer.preprocess("data", single)
    np.testing.assert_array_equal(single, before.astype(np.float32))


def test_transformer_swaps_channels_back_by_the_inverse_order(transformer: caffe.io.Transformer) -> None:
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (1, 2, 0))
    image = np.random.default_rng(0).uniform(size=(4, 5, 3))
    out = transformer.preprocess("data", image)
    np.testing.assert_allclose(out[0], image[..., 1], rtol=1e-6)
    np.testing.assert_allclose(transformer.deprocess("data", out), image, rtol=1e-6)


def test_transformer_resizes(transformer: caffe.io.Transformer) -> None:
    image = np.random.default_rng(0).uniform(size=(8, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(transformer.preprocess("data", image), bilinear(image, 4, 5), atol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (4, 5), (1, 4, 5), (3, 4, 5), (3, 8, 10)])
def test_mean_shapes(transformer: caffe.io.Transformer, shape: tuple[int, ...]) -> None:
    mean = np.full(shape, 2.0)
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_mean("data", mean)
    np.testing.assert_allclose(transformer.preprocess("data", np.full((4, 5, 3), 3.0)), 1)


@pytest.mark.parametrize("shape", [(1,), (4,), (2, 4, 5), (1, 3, 4, 5), ()])
def test_means_that_do_not_fit(transformer: caffe.io.Transformer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the mean of data has"):
        transformer.set_mean("data", np.zeros(shape))


def test_transformer_refuses_what_is_no_input(transformer: caffe.io.Transformer) -> None:
    image = np.zeros((4, 5, 3))
    for call in (
        lambda: transformer.preprocess("x", image),
        lambda: transformer.deprocess("x", image),
        lambda: transformer.set_transpose("x", (2, 0, 1)),
        lambda: transformer.set_channel_swap("x", (2, 1, 0)),
        lambda: transformer.set_raw_scale("x", 1),
        lambda: transformer.set_mean("x", np.zeros(3)),
        lambda: transformer.set_input_scale("x", 1),
    ):
        with pytest.raises(Exception, match="x is not one of the net inputs"):
            call()
    with pytest.raises(Exception, match="transpose of data needs 3 axes"):
        transformer.set_transpose("data", (1, 0))
    with pytest.raises(Exception, match="channel swap of data needs 3 numbers"):
        transformer.set_channel_swap("data", (1, 0))
