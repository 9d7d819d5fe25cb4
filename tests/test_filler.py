"""Fillers: the law of each, by its moments or its definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from caffe_lite import filler
from caffe_lite.errors import CaffeError
from caffe_lite.proto import caffe_pb2

SHAPE = (40, 30, 5, 5)


def fill(shape: tuple[int, ...] = SHAPE, **fields: Any) -> np.ndarray:
    values = np.empty(shape, "float32")
    filler.fill(values, caffe_pb2.FillerParameter(**fields), np.random.default_rng(1), "here")
    return values


def test_constant() -> None:
    assert (fill(type="constant", value=2.5) == 2.5).all()
    assert not fill().any(), "the default filler is constant 0"


def test_uniform_stays_within_its_bounds() -> None:
    values = fill(type="uniform", min=-1, max=3)
    assert values.min() >= -1 and values.max() <= 3
    assert abs(values.mean() - 1) < 0.05 and abs(values.var() - 16 / 12) < 0.05


def test_gaussian_moments_and_sparsity() -> None:
    values = fill(type="gaussian", mean=1, std=2)
    assert abs(values.mean() - 1) < 0.05 and abs(values.std() - 2) < 0.05
    sparse = fill(type="gaussian", std=1, sparse=10)
    assert abs((sparse != 0).mean() - 10 / 40) < 0.01


def test_positive_unitball_sums_to_one_in_each_slice() -> None:
    values = fill(type="positive_unitball")
    assert (values >= 0).all()
    np.testing.assert_allclose(values.reshape(40, -1).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(("norm", "n"), [("FAN_IN", 750), ("FAN_OUT", 1000), ("AVERAGE", 875)])
def test_xavier_and_msra_scale_with_the_fan(norm: str, n: int) -> None:
    variance = getattr(caffe_pb2.FillerParameter, norm)
    xavier = fill(type="xavier", variance_norm=variance)
    assert math.sqrt(3 / n) * 0.99 < np.abs(xavier).max() <= math.sqrt(3 / n) * (1 + 1e-6)
    msra = fill(type="msra", variance_norm=variance)
    assert abs(msra.std() / math.sqrt(2 / n) - 1) < 0.02


def test_bilinear_interpolates() -> None:
    kernel = fill((1, 1, 4, 4), type="bilinear")[0, 0]
    np.testing.assert_allclose(kernel[0], np.array([0.25, 0.75, 0.75, 0.25]) * 0.25, rtol=1e-6)
    np.testing.assert_array_equal(kernel, kernel.T)


def test_bilinear_of_odd_size_follows_caffe() -> None:
    kernel = fill((1, 1, 3, 3), type="bilinear")[0, 0]
    f, center = 2, 2 / 4  # f = ceil(3 / 2), c = (3 - 1) / (2 f)
    row = [1 - abs(x / f - center) for x in range(3)]
    np.testing.assert_allclose(kernel, np.outer(row, row), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"type": "gausian"}, SHAPE, "here: unknown filler type 'gausian'; did you mean 'gaussian'?"),
        ({"type": "gaussian", "std": 0}, SHAPE, "std must be > 0"),
        ({"type": "uniform", "min": 2, "max": 1}, SHAPE, "greater than max"),
        ({"type": "xavier", "sparse": 3}, SHAPE, "takes no 'sparse'"),
        ({"type": "bilinear"}, (1, 1, 3, 4), "square kernels"),
        ({"type": "constant"}, (0, 3), "no elements"),
    ],
)
def test_bad_fillers_are_refused(fields: dict[str, Any], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(CaffeError, match=message.replace("?", r"\?")):
        fill(shape, **fields)
