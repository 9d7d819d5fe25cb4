"""The console script: its words, its exit status, and each command once on tiny data."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe_lite
from caffe_lite import models
from caffe_lite.data.config import cfg
from caffe_lite.errors import CaffeError
from caffe_lite.fast_rcnn import demo, draw
from caffe_lite.fast_rcnn.cli import main
from caffe_lite.fast_rcnn.report import detection_table, table

TINY = ["--set", "TRAIN.SCALES", "(64,)", "TEST.SCALES", "(64,)", "TRAIN.BATCH_SIZE", "16"]
TEST_NET = str(models.path("mini/test.prototxt"))


@pytest.mark.parametrize("command", ["train-net", "test-net", "train-svms", "compress-net", "reval", "detect", "demo"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"fast-rcnn {command}" in capsys.readouterr().out.split("example")[1]


def test_train_then_test(devkit: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a user types it, from a folder that holds no models/."""
    solver, settings = "models/mini/solver.prototxt", ["--cfg", "models/mini/mini.yml", *TINY]
    data = ["--data", devkit]
    assert (
        main(["train-net", "--solver", solver, "--imdb", "synthetic_trainval", "--iters", "2", *data, *settings]) == 0
    )
    weights = Path("output/mini/synthetic_trainval/mini_fast_rcnn_iter_2.caffemodel")
    assert weights.is_file() and weights.with_name("loss.png").is_file()
    assert f"wrote {weights.resolve()}" in capsys.readouterr().out

    test = ["test-net", "--def", TEST_NET, "--net", str(weights), "--imdb", "synthetic_test", *data, *settings]
    assert main(test) == 0
    assert "mAP" in capsys.readouterr().out
    out = Path("output/mini/synthetic_test/mini_fast_rcnn_iter_2")
    assert sorted(p.name for p in out.iterdir() if not p.name.endswith("_pr.mat")) == ["detections.npz"]
    assert len(list(out.glob("*_pr.mat"))) == 6
    assert main([*test, "--comp", "--wait", "--out", "comp"]) == 0
    assert len(list(Path("comp").glob("comp4_det_test_*.txt"))) == 6


def test_detect_draws_and_lists(capsys: pytest.CaptureFixture[str]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite("photo.png", image)
    np.savez("boxes.npz", boxes=np.array([[0, 0, 40, 40], [10, 5, 79, 59]], np.uint16))
    command = ["detect", "--def", TEST_NET, "--image", "photo.png", "--boxes", "boxes.npz", "--conf", "1.5", *TINY]
    assert main([*command, "--classes", "a", "b", "c", "d", "e", "f"]) == 0
    out = capsys.readouterr().out
    assert "weights are random" in out and "2 regions" in out and "nothing scores 1.5 or more; the best:" in out
    assert len(re.findall(r"^[a-f]  +\d\.\d{3}  .*\d\.\d$", out, re.MULTILINE)) == 5
    assert cv2.imread("output/detect/photo.png").shape[0] >= 480
    assert main([*command, "--conf", "0", "--top", "3"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^class \d  ", out, re.MULTILINE)) == 3 and re.search(r"^and \d+ more", out, re.MULTILINE)
    assert main([*command, "--classes", "a"]) == 1
    assert "2 class names" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train-net", "--solver", "absent.prototxt"], "absent.prototxt"),
        (
            ["train-net", "--solver", "models/mini/solver.prototxt", "--set", "TRAIN.SCALE", "3"],
            "did you mean 'SCALES'",
        ),
        (["train-net", "--solver", "models/mini/solver.prototxt", "--cfg", "absent.yml"], "absent.yml"),
        (["test-net", "--def", TEST_NET, "--net", "absent.caffemodel"], "absent.caffemodel"),
        (["detect", "--def", TEST_NET, "--image", "absent.jpg"], "absent.jpg"),
        (["detect", "--def", TEST_NET, "--image", "photo.png", "--boxes", "absent.npz"], "absent.npz"),
        (["detect", "--def", TEST_NET, "--image", "photo.png", "--boxes", "outside.npz"], "row 1, (0, 0, 80, 40)"),
    ],
)
def test_errors_are_one_line_and_status_1(
    devkit: str, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite("photo.png", np.zeros((60, 80, 3), np.uint8))
    np.savez("outside.npz", boxes=np.array([[0, 0, 79, 40], [0, 0, 80, 40]]))
    words += ["--data", devkit] if words[0] != "detect" else []
    words += ["--imdb", "synthetic_test"] if words[0] != "detect" else []
    assert main(words) == 1
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert error.startswith("fast-rcnn: error: ") and expected in error
    with pytest.raises((CaffeError, OSError)):
        main([*words[:1], "--debug", *words[1:]])


def test_weights_of_another_net_are_refused(devkit: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path("other.prototxt")
    other.write_text(Path(TEST_NET).read_text().replace("fc6", "fc9"))
    caffe_lite.Net(str(other), caffe_lite.TEST).save("other.caffemodel")
    words = ["test-net", "--def", TEST_NET, "--net", "other.caffemodel", "--imdb", "synthetic_test", "--data", devkit]
    assert main(words) == 1
    assert "no weights for fc6" in capsys.readouterr().err


def test_a_missing_gpu_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        caffe_lite.set_mode_gpu()
    except CaffeError:
        assert main(["detect", "--gpu", "0", "--def", TEST_NET, "--image", "x"]) == 1
        assert "fast-rcnn: error" in capsys.readouterr().err
    else:
        pytest.skip("there is a GPU")
    finally:
        caffe_lite.set_mode_cpu()


def test_demo_gives_the_same_twice_and_leaves_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Cold, then with every cache warm."""
    small = {"iters": 3, "images": {"trainval": 4, "test": 3}, "settings": TINY[1:], "progress": False}
    scales = cfg.TEST.SCALES
    first = demo.run_demo("out", **small)
    again = demo.run_demo("out", **small)
    assert first == again
    assert Path(first.weights).is_file() and Path("out/demo_loss.png").is_file()
    assert cv2.imread("out/demo_detections.png") is not None
    assert len(list(Path("out/demo/pictures").glob("*.png"))) == 3
    assert cfg.TEST.SCALES == scales
    assert f"mAP = {first.mean_ap!r}" in capsys.readouterr().out


def test_tables_are_aligned() -> None:
    text = table([("name", "x"), ("a", "1.5"), ("longer", "10.25")])
    assert text.split("\n") == ["name        x", "-------------", "a         1.5", "longer  10.25"]
    dets = [np.zeros((0, 5)), np.float32([[1, 2, 3, 4, 0.5]]), np.float32([[5, 6, 7, 8, 0.9]])]
    rows = detection_table(dets, ["__background__", "cat", "dog"]).split("\n")[2:]
    assert [row.split() for row in rows] == [
        ["dog", "0.900", "5.0", "6.0", "7.0", "8.0"],
        ["cat", "0.500", "1.0", "2.0", "3.0", "4.0"],
    ]
    assert detection_table([np.zeros((0, 5))] * 2, ["__background__", "cat"]) == "no detection"


def test_drawing_marks_the_box_and_leaves_the_rest() -> None:
    image = np.zeros((500, 500, 3), np.uint8)
    dets = [np.zeros((0, 5)), np.array([[100.0, 200.0, 299.0, 399.0, 0.9]])]
    picture = draw.draw_detections(image, dets, ["__background__", "cat"], shortest=100)
    assert not image.any() and picture.shape == image.shape
    assert picture[300, 100].tolist() == picture[399, 200].tolist() == list(draw.colour(1))
    assert not picture[:150].any() and not picture[:, 310:].any() and not picture[250:380, 120:280].any()


def test_labels_do_not_cover_each_other() -> None:
    taken: list[tuple[int, int, int, int]] = []
    picture = np.zeros((400, 400, 3), np.uint8)
    for _ in range(4):
        draw._label(picture, "triangle 0.99", np.array([100.0, 100, 250, 250]), (255, 0, 0), taken)
    assert not any(draw._overlap(a, b) for i, a in enumerate(taken) for b in taken[:i])
    assert all(x >= 0 and y >= 0 and x + w <= 400 and y + h <= 400 for x, y, w, h in taken)


def test_contact_sheet_and_curve(tmp_path: Path) -> None:
    sheet = draw.contact_sheet([np.zeros((10, 20, 3), np.uint8)] * 3, columns=2, gap=1)
    assert sheet.shape == (23, 43, 3)
    draw.loss_curve(tmp_path / "a.png", {"loss": [2.0, 1.5, 1.0], "loss_cls": []})
    draw.loss_curve(tmp_path / "b.png", {"loss": [2.0, 1.5, 1.0], "loss_cls": []})
    assert cv2.imread(str(tmp_path / "a.png")) is not None
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
