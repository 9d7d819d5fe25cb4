"""Every test of the detector has a working directory and settings of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from caffe_lite import models
from caffe_lite.data.config import cfg_from_file, preserved_cfg
from tests.fast_rcnn.rcnn_inputs import seed


@pytest.fixture(autouse=True)
def own_folder_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)  # the commands write into output/
    with preserved_cfg():
        yield


@pytest.fixture
def rcnn_settings(own_folder_and_settings: None) -> None:
    """The settings of models/mini, and the same random numbers for every test."""
    cfg_from_file(models.path("mini/mini.yml"))
    seed()
