"""Average recall of methods on a dataset: the integral, the table, the drawing, both commands."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from caffe_lite.data.boxes import bbox_overlaps
from caffe_lite.data.config import preserved_cfg
from caffe_lite.data.factory import get_imdb
from caffe_lite.data.imdb import _greedy_overlaps
from caffe_lite.data.proposal_methods import Options
from caffe_lite.data.recall import draw_recall, measure_recall, recall_table, with_top
from caffe_lite.errors import DataError
from caffe_lite.fast_rcnn.cli import main


def greedy(boxes, gt):
    """The pair of largest IoU again and again, ground truth first, candidate second."""
    iou = bbox_overlaps(boxes, gt)
    found = []
    while len(found) < min(iou.shape):
        g = int(iou.max(axis=0).argmax())
        b = int(iou[:, g].argmax())
        found.append(iou[b, g])
        iou[b, :], iou[:, g] = -1, -1
    return found + [0.0] * (len(gt) - len(found))


def test_matching_is_greedy_and_one_to_one():
    rng = np.random.default_rng(0)
    for boxes, objects in ((40, 6), (3, 6), (6, 6), (1, 1), (0, 2), (5, 0)):
        for _ in range(20):
            corners = [rng.integers(0, 12, (n, 2)) for n in (boxes, objects)]
            a, b = (np.hstack((c, c + rng.integers(0, 6, c.shape))) for c in corners)
            np.testing.assert_array_equal(_greedy_overlaps(a, b), greedy(a, b) if len(b) else [])


def test_average_recall_is_twice_the_integral_over_iou(devkit):
    imdb = get_imdb("synthetic_test", devkit)
    rows = measure_recall(imdb, ["ss", "gradient_edge_boxes"], [5, 50], Options(progress=False))
    assert [row.method for row in rows] == ["ss:5", "ss:50", "gradient_edge_boxes:5", "gradient_edge_boxes:50"]
    for row in rows:
        # the integral of a step function, object by object: each adds its IoU above 0.5
        exact = 2 * np.maximum(row.recall.gt_overlaps - 0.5, 0).mean()
        assert row.recall.ar == pytest.approx(exact, abs=0.002)
    assert rows[0].recall.ar < rows[1].recall.ar and rows[0].boxes == 5
    lines = recall_table(rows).splitlines()
    assert len(lines) == 5 and len({len(line) for line in lines}) == 1
    assert lines[1].split()[:3] == ["ss:5", "5.0", f"{100 * rows[0].recall.ar:.1f}"]


def test_a_count_is_given_once():
    assert with_top("ss", 7) == "ss:7" and with_top("ss:3+dense", None) == "ss:3+dense"
    for method in ("ss:3", "ss+dense"):
        with pytest.raises(DataError, match="leave out --top"):
            with_top(method, 7)


def test_drawing(devkit, tmp_path):
    rows = measure_recall(get_imdb("synthetic_test", devkit), ["ss"], [5, 50], Options(progress=False))
    draw_recall(tmp_path / "a.png", rows, "title")
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture is not None and picture.std() > 10


def test_commands(devkit, tmp_path, capsys):
    mat, png = tmp_path / "b.mat", tmp_path / "r.png"
    assert (
        main(["proposals", "--imdb", "synthetic_trainval", "--data", devkit, "--method", "dense:9", "--out", str(mat)])
        == 0
    )
    assert "36 boxes in 4 images, 9.0 an image (9 to 9); 0 images without any" in capsys.readouterr().out
    assert mat.exists()
    given = ["recall", "--imdb", "synthetic_test", "--data", devkit, "--proposals", "ss", "--out", str(png)]
    assert main([*given, "--top", "5", "9"]) == 0
    out = capsys.readouterr().out
    assert "synthetic_test: 2 images" in out and "ss:5 " in out and "ss:9 " in out and png.exists()
    assert main(["recall", "--data", devkit, "--imdb", "synthetic_test", "--proposals", "edge_boxes"]) == 1
    assert "--edge-model" in capsys.readouterr().err


def test_training_and_testing_take_the_boxes_of_a_method(devkit, tmp_path, capsys):
    out = str(tmp_path / "out")
    union = "synthetic_trainval+synthetic_test"
    settings = ["--cfg", "models/mini/mini.yml", "--data", devkit, "--out", out, "--set", "TRAIN.USE_PREFETCH", "True"]
    train = ["train-net", "--solver", "models/mini/solver.prototxt", "--imdb", union, "--iters", "2"]
    with preserved_cfg():
        assert main([*train, "--proposals", "ss:20+dense:30", *settings]) == 0
        assert "6 images, 7 classes" in capsys.readouterr().out
        (weights,) = (tmp_path / "out").glob("*_iter_2.caffemodel")
        test = ["test-net", "--def", "models/mini/test.prototxt", "--net", str(weights), *settings, "--proposals"]
        assert main([*test, "dense:40", "--imdb", "synthetic_test_no_diff"]) == 0
        assert "mAP" in capsys.readouterr().out
        assert main([*test, "dense:40", "--imdb", union]) == 1
        assert "a union is for training" in capsys.readouterr().err
        assert main([*test, "dens:40", "--imdb", "synthetic_test"]) == 1
        assert "did you mean 'dense'" in capsys.readouterr().err
