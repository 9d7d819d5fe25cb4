"""Classifier and Detector on a net whose output is the mean colour of its input."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import caffe_lite as caffe

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } } }
layer { name: "mix" type: "Convolution" bottom: "data" top: "mix"
        convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "constant" } } }
layer { name: "mean" type: "Pooling" bottom: "mix" top: "mean" pooling_param { pool: AVE global_pooling: true } }
layer { name: "flat" type: "Flatten" bottom: "mean" top: "flat" }
"""


@pytest.fixture
def files(tmp_path) -> tuple[str, str]:
    prototxt, weights = tmp_path / "deploy.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(NET)
    net = caffe.Net(str(prototxt), caffe.TEST)
    net.params["mix"][0].data[...] = np.eye(3).reshape(3, 3, 1, 1)
    net.save(str(weights))
    return str(prototxt), str(weights)


@pytest.fixture
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(size=(h, w, 3)).astype(np.float32) for h, w in ((12, 12), (20, 15), (9, 30))] * 2


def test_classifier_takes_the_centre_or_the_mean_of_ten_crops(files, images) -> None:
    classifier = caffe.Classifier(*files, image_dims=(12, 10), channel_swap=(2, 1, 0), raw_scale=255)
    resized = [caffe.io.resize_image(image, (12, 10)) for image in images]
    centre = classifier.predict(images, oversample=False)
    assert centre.shape == (6, 3)
    expected = [image[2:10, 1:9].mean(axis=(0, 1))[::-1] * 255 for image in resized]
    np.testing.assert_allclose(centre, expected, rtol=1e-4)
    crops = [
        [image[y : y + 8, x : x + 8].mean(axis=(0, 1)) for y, x in ((0, 0), (0, 2), (4, 0), (4, 2), (2, 1))]
        for image in resized
    ]
    np.testing.assert_allclose(classifier.predict(images), np.mean(crops, axis=1)[:, ::-1] * 255, rtol=1e-4)


def test_classifier_is_a_net_with_a_transformer(files, images) -> None:
    classifier = caffe.Classifier(*files, mean=np.array([1.0, 2.0, 3.0]), input_scale=2)
    assert isinstance(classifier, caffe.Net) and list(classifier.image_dims) == list(classifier.crop_dims) == [8, 8]
    small = images[0][:8, :8]
    expected = 2 * (small.mean(axis=(0, 1)) - [1, 2, 3])
    np.testing.assert_allclose(classifier.predict([small], oversample=False)[0], expected, rtol=1e-4)


@pytest.fixture
def photo(tmp_path) -> tuple[str, np.ndarray]:
    path = str(tmp_path / "photo.png")
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8), (60, 50))
    cv2.imwrite(path, pixels)
    return path, pixels[..., ::-1] / np.float32(255)


def test_detector_runs_windows(files, photo) -> None:
    path, image = photo
    detector = caffe.Detector(*files, raw_scale=255, channel_swap=(2, 1, 0))
    windows = np.array([[0, 0, 8, 8], [10, 5, 18, 13], [0, 0, 50, 60], [2, 3, 4, 9], [40, 50, 48, 58]])
    found = detector.detect_windows([(path, windows[:2]), (path, windows[2:])])
    assert [d["filename"] for d in found] == [path] * 5
    for detection, window in zip(found, windows, strict=True):
        np.testing.assert_array_equal(detection["window"], window)
        y0, x0, y1, x1 = window
        expected = caffe.io.resize_image(image[y0:y1, x0:x1], (8, 8)).mean(axis=(0, 1))[::-1] * 255
        np.testing.assert_allclose(detection["prediction"], expected, rtol=1e-4)
    assert detector.detect_windows([]) == []
    with pytest.raises(ValueError, match=r"photo\.png: window \[60, 0, 70, 9\].*holds no pixel"):
        detector.detect_windows([(path, [[60, 0, 70, 9]])])


def test_context_pad_shows_what_is_around_and_the_mean_outside(files, photo) -> None:
    _, image = photo
    mean = np.array([30.0, 20.0, 10.0])
    detector = caffe.Detector(*files, mean=mean, raw_scale=255, channel_swap=(2, 1, 0), context_pad=2)
    crop = detector.crop(image, np.array([20, 20, 24, 24]))
    # 5 pixels a side (pycaffe counts both ends), twice as large with its context: 17.5 .. 27.5, rounded to even
    assert crop.shape == (8, 8, 3)
    np.testing.assert_allclose(crop, caffe.io.resize_image(image[18:28, 18:28], (8, 8)), atol=1e-5)
    corner = detector.crop(image, np.array([0, 0, 20, 20]))
    outside = corner[:2]
    np.testing.assert_allclose(outside, np.broadcast_to(mean[::-1] / 255, outside.shape), rtol=1e-5)
    assert not np.allclose(corner[4:, 4:], mean[::-1] / 255, atol=1e-2)
    detector.configure_crop(None)
    assert detector.crop(image, np.array([20, 20, 24, 24])).shape == (4, 4, 3)


def test_detect_selective_search_finds_windows_by_itself(files, photo) -> None:
    path, image = photo
    found = caffe.Detector(*files).detect_selective_search([path])
    assert found and all(d["prediction"].shape == (3,) for d in found)
    for d in found:
        y0, x0, y1, x1 = d["window"]
        assert 0 <= y0 < y1 <= image.shape[0] and 0 <= x0 < x1 <= image.shape[1]
