"""Fixtures of the tests of roidb, minibatch and RoIDataLayer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe_lite.data.config import preserved_cfg, reset_cfg


@pytest.fixture
def original_settings() -> Iterator[None]:
    """The original's settings, which a test may change, and random numbers that go on afterwards as if it had drawn none."""
    before = np.random.get_state()
    with preserved_cfg():
        reset_cfg()
        yield
    np.random.set_state(before)


@pytest.fixture(scope="session")
def stand_in_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of random images with the names (but for the suffix) and sizes of the golden roidb's photographs."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, width, height in (("000004", 500, 406), ("001551", 500, 375)):
        cv2.imwrite(str(folder / f"{name}.png"), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return folder
