"""Settings: the original's defaults, files and command-line pairs, and what is refused."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest

from caffe_lite.data.config import (
    ConfigError,
    cfg,
    cfg_from_file,
    cfg_from_list,
    get_output_dir,
    preserved_cfg,
    reset_cfg,
)


@pytest.fixture(autouse=True)
def _restored():
    with preserved_cfg():
        reset_cfg()
        yield


def from_text(tmp_path, text):
    path = tmp_path / "settings.yml"
    path.write_text(text)
    cfg_from_file(path)


def test_there_are_the_25_settings_of_fast_rcnn():
    leaves = len(cfg.TRAIN) + len(cfg.TEST) + len(cfg) - 2
    assert leaves == 14 + 5 + 6  # SNAPSHOT_INFIX and BG_THRESH_LO among them
    assert cfg.TRAIN.SCALES == (600,) and cfg.TRAIN.MAX_SIZE == 1000
    assert (cfg.TRAIN.IMS_PER_BATCH, cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.FG_FRACTION) == (2, 128, 0.25)
    assert (cfg.TRAIN.FG_THRESH, cfg.TRAIN.BG_THRESH_HI, cfg.TRAIN.BG_THRESH_LO) == (0.5, 0.5, 0.1)
    assert cfg.PIXEL_MEANS.shape == (1, 1, 3) and cfg.PIXEL_MEANS[0, 0, 0] == 102.9801
    assert (cfg.EPS, cfg.RNG_SEED, cfg.DEDUP_BOXES, cfg.EXP_DIR) == (1e-14, 3, 1 / 16, "default")


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path):
    train = cfg.TRAIN  # others hold this object
    from_text(
        tmp_path,
        "EXP_DIR: multiscale\nTRAIN:\n  SCALES: !!python/tuple [480, 576]\n  BBOX_REG: false\n"
        "TEST:\n  NMS: 1\n  SCALES: [300]\nPIXEL_MEANS: [1, 2, 3.5]\n",
    )
    assert cfg.EXP_DIR == "multiscale"
    assert train.SCALES == (480, 576) and train.BBOX_REG is False
    assert cfg.TEST.SCALES == (300,) and type(cfg.TEST.NMS) is float
    assert cfg.PIXEL_MEANS.tolist() == [[[1.0, 2.0, 3.5]]]
    assert train.BATCH_SIZE == 128


def test_an_empty_file_changes_nothing(tmp_path):
    from_text(tmp_path, "# nothing\n")
    assert cfg.TRAIN.SCALES == (600,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("TRAIN:\n  BATCHSIZE: 64\n", "no setting TRAIN.BATCHSIZE; did you mean 'BATCH_SIZE'?"),
        ("Train: {}\n", "did you mean 'TRAIN'"),
        ("TRAIN: 3\n", "TRAIN: expected settings"),
        ("- 1\n", "expected settings"),
        ("TRAIN: {MAX_SIZE: 10.5}\n", "TRAIN.MAX_SIZE: expected int, got float 10.5"),
        ("TRAIN: {MAX_SIZE: true}\n", "expected int, got bool"),
        ("TRAIN: {BBOX_REG: 1}\n", "expected bool, got int"),
        ("TRAIN: {SCALES: 600}\n", "TRAIN.SCALES: expected a list of numbers"),
        ("TRAIN: {SCALES: []}\n", "expected a list of numbers"),
        ("TRAIN: {SCALES: [a]}\n", "expected a list of numbers"),
        ("EPS: 1e-10\n", "write it as 1.0e-10"),
        ("TEST: {NMS: .nan}\n", "finite"),
        ("PIXEL_MEANS: [1, 2]\n", "expected 3 numbers"),
        ("EXP_DIR: 3\n", "expected str"),
        ("a: [1\n", "not a YAML file"),
        ("EXP_DIR: !!python/object/apply:os.getcwd []\n", "not a YAML file"),  # loaded files never run code
        ("[" * 5000, "not a YAML file"),
    ],
)
def test_a_bad_file_is_refused_whole(tmp_path, text, said):
    text = "RNG_SEED: 99\n" + text if text.startswith(("TRAIN", "EPS")) else text
    with pytest.raises(ConfigError) as caught:
        from_text(tmp_path, text)
    assert said in str(caught.value) and "settings.yml" in str(caught.value)
    assert isinstance(caught.value, (KeyError, ValueError))
    assert cfg.RNG_SEED == 3 and cfg.TRAIN.MAX_SIZE == 1000


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.yml: cannot read"):
        cfg_from_file(tmp_path / "no.yml")


def test_pairs_are_literals_or_text():
    cfg_from_list(["TRAIN.SCALES", "(480, 600)", "TEST.SVM", "True", "EXP_DIR", "my run", "TEST.NMS", "0"])
    assert cfg.TRAIN.SCALES == (480, 600) and cfg.TEST.SVM is True and cfg.EXP_DIR == "my run" and cfg.TEST.NMS == 0.0


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["TRAIN.SCALES"], "KEY VALUE pairs"),
        (["TRAIN.SCALE", "(1,)"], "did you mean 'SCALES'"),
        (["TRAIN.SCALES.X", "1"], "TRAIN.SCALES"),
        (["TRAIN", "1"], "expected settings"),
        (["EXP_DIR", "ok", "TRAIN.BBOX_REG", "yes"], "expected bool, got str 'yes'"),
    ],
)
def test_bad_pairs_are_refused_whole(pairs, said):
    with pytest.raises(ConfigError) as caught:
        cfg_from_list(pairs)
    assert said in str(caught.value)
    assert cfg.EXP_DIR == "default" and cfg.TRAIN.SCALES == (600,)


def test_a_misspelt_attribute_fails():
    with pytest.raises(AttributeError, match="BATCH_SIZE"):
        cfg.TRAIN.BATCHSIZE = 64
    with pytest.raises(AttributeError, match="did you mean 'TRAIN'"):
        _ = cfg.TRIAN


def test_what_is_changed_in_the_block_is_undone_after_it():
    train = cfg.TRAIN
    with pytest.raises(ZeroDivisionError), preserved_cfg():
        cfg.TRAIN.SCALES = (10,)
        cfg["NEW"] = 1
        cfg.PIXEL_MEANS[...] = 0
        1 / 0  # noqa: B018
    assert cfg.TRAIN is train and train.SCALES == (600,) and "NEW" not in cfg
    assert np.all(cfg.PIXEL_MEANS > 100)


def test_output_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    imdb, net = SimpleNamespace(name="voc_2007_test"), SimpleNamespace(name="vgg16")
    assert get_output_dir(imdb) == os.path.join(os.getcwd(), "output", "default", "voc_2007_test")
    cfg.ROOT_DIR, cfg.EXP_DIR = "/data", "mine"
    assert get_output_dir(imdb, net) == os.path.abspath("/data/output/mine/voc_2007_test/vgg16")
