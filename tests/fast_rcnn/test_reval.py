"""Evaluating again: the curves on disk, and detections with another NMS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from caffe_lite.data.config import cfg
from caffe_lite.data.factory import get_imdb
from caffe_lite.data.pascal_voc import PascalVoc
from caffe_lite.data.voc_curves import read_curve, write_curve
from caffe_lite.data.voc_eval import VocResult
from caffe_lite.errors import DataError
from caffe_lite.fast_rcnn.cli import main
from caffe_lite.fast_rcnn.reval import curve_table, from_curves, from_detections
from caffe_lite.fast_rcnn.test import AllBoxes, save_detections


@pytest.fixture
def imdb(devkit: str) -> PascalVoc:
    return get_imdb("synthetic_test", data=devkit)


def perfect(imdb: PascalVoc, doubled: bool = False) -> AllBoxes:
    """Every object with score 0.9; doubled: and a box that overlaps it by half with score 0.8."""
    all_boxes: AllBoxes = [[np.zeros((0, 5), np.float32)] * imdb.num_images for _ in imdb.classes]
    for i, found in enumerate(imdb.annotations()):
        for k in range(1, imdb.num_classes):
            objects = found.boxes[found.classes == k].astype(np.float32)
            dets = np.hstack((objects, np.full((len(objects), 1), 0.9, np.float32)))
            if doubled:
                beside = dets.copy()
                beside[:, 4] = 0.8
                beside[:, 0] += (dets[:, 2] - dets[:, 0]) / 2
                dets = np.vstack((dets, beside)).astype(np.float32)
            all_boxes[k][i] = dets
    return all_boxes


def test_a_curve_comes_back_with_both_metrics(tmp_path: Path) -> None:
    """Recall 1/3, 2/3 at precision 1, 2/3: 4 of 11 points at 1 and 3 at 2/3; area 1/3 + 2/9."""
    write_curve(tmp_path / "a.mat", VocResult(np.array([1, 1, 2]) / 3, np.array([1, 1 / 2, 2 / 3]), 0.0))
    curve = read_curve(tmp_path / "a.mat")
    np.testing.assert_array_equal(curve.recall, np.array([1, 1, 2]) / 3)
    np.testing.assert_array_equal(curve.prec, [1, 1 / 2, 2 / 3])
    assert (curve.ap, curve.ap_auc) == pytest.approx(((4 + 3 * 2 / 3) / 11, 1 / 3 + 2 / 9))
    assert loadmat(tmp_path / "a.mat")["recall"].shape == (3, 1)  # a column, as MATLAB has it


def test_a_class_without_objects_is_unknown_and_one_without_detections_is_0(tmp_path: Path) -> None:
    empty = np.zeros(0)
    write_curve(tmp_path / "absent.mat", VocResult(empty, empty, float("nan")))
    write_curve(tmp_path / "missed.mat", VocResult(empty, empty, 0.0))
    absent, missed = read_curve(tmp_path / "absent.mat"), read_curve(tmp_path / "missed.mat")
    assert np.isnan([absent.ap, absent.ap_auc]).all() and (missed.ap, missed.ap_auc) == (0, 0)


def test_a_file_that_is_no_curve_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"b_pr\.mat: no such file.*--rerun"):
        read_curve(tmp_path / "b_pr.mat")
    (tmp_path / "b_pr.mat").write_bytes(b"no mat")
    with pytest.raises(DataError, match=r"b_pr\.mat: not a recall-precision curve"):
        read_curve(tmp_path / "b_pr.mat")


def test_detections_are_suppressed_by_the_setting_and_evaluated(imdb: PascalVoc, tmp_path: Path) -> None:
    """The second box of each object is suppressed at 0.3 and wrong at 0.99: precision 1 or 1/2 at the end."""
    save_detections(tmp_path / "detections.npz", perfect(imdb, doubled=True), imdb)
    present = {name for name, ap in from_detections(tmp_path, imdb).items() if not np.isnan(ap)}
    ends = []
    for threshold in (0.3, 0.99):
        cfg.TEST.NMS = threshold
        aps = from_detections(tmp_path, imdb)
        curves = from_curves(tmp_path, imdb.classes)
        assert all(aps[name] == curves[name].ap == 1 for name in present)
        ends.append({name: curves[name].prec[-1] for name in present})
    assert present and set(ends[0].values()) == {1.0} and set(ends[1].values()) == {0.5}


def test_detections_of_another_dataset_are_refused(imdb: PascalVoc, devkit: str, tmp_path: Path) -> None:
    save_detections(tmp_path / "detections.npz", perfect(imdb), imdb)
    with pytest.raises(DataError, match="of 2 images, which are not the 4 of imdb synthetic_trainval"):
        from_detections(tmp_path, get_imdb("synthetic_trainval", data=devkit))


def test_means_leave_unknown_classes_out(tmp_path: Path) -> None:
    write_curve(tmp_path / "a_pr.mat", VocResult(np.ones(1), np.ones(1), 1.0))
    write_curve(tmp_path / "b_pr.mat", VocResult(np.zeros(0), np.zeros(0), float("nan")))
    rows = [row.split() for row in curve_table(from_curves(tmp_path, ("__background__", "a", "b"))).split("\n")]
    assert rows[2:] == [["a", "100.0", "100.0"], ["b", "nan", "nan"], ["mean", "100.0", "100.0"]]


def test_the_command(imdb: PascalVoc, devkit: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    save_detections("out/detections.npz", perfect(imdb), imdb)
    command = ["reval", "out", "--imdb", "synthetic_test", "--data", devkit]
    assert main(command) == 1
    assert "disc_pr.mat: no such file" in capsys.readouterr().err
    assert main([*command, "--rerun", "--comp", "--set", "TEST.NMS", "0.5"]) == 0
    rerun = capsys.readouterr().out
    assert len(list(Path("out").glob("comp4_det_test_*.txt"))) == 6
    assert main(command) == 0
    assert capsys.readouterr().out.strip() in rerun and "mean         100.0  100.0" in rerun
