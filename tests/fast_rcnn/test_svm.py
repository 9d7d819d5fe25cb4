"""SVM heads: the mining against a slow version written from its rules, the solution against its objective."""

from __future__ import annotations

import builtins
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.sparse

import caffe_lite
from caffe_lite import models
from caffe_lite.blob import Blob
from caffe_lite.data.config import cfg
from caffe_lite.data.synthetic import make_devkit
from caffe_lite.errors import CaffeError, DataError, NetError
from caffe_lite.fast_rcnn import svm
from caffe_lite.fast_rcnn.cli import main
from caffe_lite.fast_rcnn.svm import SVMTrainer
from caffe_lite.fast_rcnn.test import im_detect

sklearn_svm = pytest.importorskip("sklearn.svm")

K, D = 3, 6


class FakeNet:
    """Features that are a function of the regions, and a cls_score on them whose weights can be written."""

    name = "fake"
    bottom_names = {"fc7": ["rois"], "split": ["fc7"], "cls_score": ["fc7_split_0"]}
    top_names = {"fc7": ["fc7"], "split": ["fc7_split_0", "fc7_split_1"], "cls_score": ["cls_score"]}
    layer_dict = {
        name: SimpleNamespace(type=kind)
        for name, kind in (("fc7", "InnerProduct"), ("split", "Split"), ("cls_score", "InnerProduct"))
    }

    def __init__(self, classes: int = K) -> None:
        self.params = {"cls_score": [Blob((classes, D)), Blob((classes,))]}
        self.blobs = {name: Blob((1, classes)) for name in ("cls_score", "cls_prob")}
        self.blobs.update(data=Blob((1, 3, 8, 8)), rois=Blob((1, 5)), fc7=Blob((1, D)))

    def forward(self, data: np.ndarray, rois: np.ndarray) -> dict[str, np.ndarray]:
        features = np.maximum(0, np.cos(rois[:, 1:] @ np.arange(1, 4 * D + 1).reshape(4, D) / 40)).astype(np.float32)
        features *= 1 + data[0, :, :, :8].std() / 100  # left and right of an image count
        weights, bias = (blob.data for blob in self.params["cls_score"])
        for name, values in (("fc7", features), ("cls_score", features @ weights.T + bias)):
            self.blobs[name].reshape(*values.shape)
            self.blobs[name].data[...] = values
        return {"cls_prob": self.blobs["cls_score"].data}


class FakeImdb:
    name = "fake_train"
    classes = ("__background__", "a", "b")
    num_classes = K

    def __init__(self, folder: Path, images: int = 8, absent: int | None = None) -> None:
        rng = np.random.default_rng(4)
        self.file = str(folder / "image.png")
        shades = (rng.integers(0, 256, (60, 90, 3)) * np.linspace(0, 1, 90)[:, np.newaxis]).astype(np.uint8)
        cv2.imwrite(self.file, shades)
        self.num_images = images
        self.roidb = []
        for i in range(images):
            corners = rng.integers(0, (60, 40), (30 + i, 2))
            boxes = np.hstack((corners, corners + rng.integers(5, 19, corners.shape))).astype(np.uint16)
            labels = np.where(np.arange(len(boxes)) < 2, rng.integers(1, K, len(boxes)), 0).astype(np.int32)
            labels[labels == absent] = 0
            overlaps = np.zeros((len(boxes), K), np.float32)
            overlaps[np.arange(len(boxes)), rng.integers(1, K, len(boxes))] = rng.choice([0, 0.2, 0.3, 0.6], len(boxes))
            overlaps[labels > 0] = 0
            overlaps[labels > 0, labels[labels > 0]] = 1
            entry = {"boxes": boxes, "gt_classes": labels, "gt_overlaps": scipy.sparse.csr_matrix(overlaps)}
            self.roidb.append(entry | {"flipped": i % 2 == 1})

    def image_path_at(self, i: int) -> str:
        return self.file


@pytest.fixture(autouse=True)
def settings() -> None:
    cfg.TEST.SCALES = (60,)


def slow_train(net: FakeNet, imdb: FakeImdb, limit: int) -> tuple[float, list[int]]:
    """The rules one by one: feature scale, positives, mining pass, last training. Returns scale and cache sizes."""
    cfg.DEDUP_BOXES, cfg.TEST.SVM, cfg.TEST.BBOX_REG = 0.0, True, False
    image = cv2.imread(imdb.file)

    def features_of(i: int, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        im = image[:, ::-1] if imdb.roidb[i]["flipped"] else image
        return im_detect(net, im, boxes)[0], net.blobs["fc7"].data.copy()

    norms = [
        np.linalg.norm(row)
        for i in np.random.choice(imdb.num_images, size=imdb.num_images, replace=False)
        for row in features_of(i, imdb.roidb[i]["boxes"])[1]
    ]
    scale = 20.0 / np.mean(norms)
    weights, bias = (blob.data for blob in net.params["cls_score"])
    weights[...], bias[...] = 0, 0
    pos: list[list[np.ndarray]] = [[] for _ in range(K)]
    neg: list[list[np.ndarray]] = [[] for _ in range(K)]
    added = [0] * K
    for i, entry in enumerate(imdb.roidb):
        objects = [r for r, label in enumerate(entry["gt_classes"]) if label]
        feats = features_of(i, entry["boxes"][objects])[1]
        for row, r in zip(feats, objects, strict=True):
            pos[entry["gt_classes"][r]].append(row)

    def train(k: int) -> None:
        added[k] = 0
        solver = sklearn_svm.LinearSVC(
            C=0.001, class_weight={1: 2, -1: 1}, intercept_scaling=10, loss="hinge", dual=True, random_state=3
        )
        solver.fit(np.array(pos[k] + neg[k]) * np.float32(scale), [1] * len(pos[k]) + [-1] * len(neg[k]))
        weights[k], bias[k] = solver.coef_[0] * scale, solver.intercept_[0]
        kept = [row for row in neg[k] if solver.decision_function([row * np.float32(scale)])[0] >= -1.1]
        neg[k] = kept or neg[k]

    for i, entry in enumerate(imdb.roidb):
        scores, feats = features_of(i, entry["boxes"])
        for k in range(1, K):
            rows = [r for r in range(len(scores)) if scores[r, k] > -1.0001 and entry["gt_overlaps"][r, k] < 0.3]
            neg[k] += [feats[r] for r in rows]
            added[k] += len(rows)
            if added[k] > limit:
                train(k)
    for k in range(1, K):
        train(k)
    return scale, [len(rows) for rows in neg]


@pytest.mark.parametrize("limit", [2000, 40])
def test_training_follows_the_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(svm, "RETRAIN_LIMIT", limit)
    imdb, net, slow = FakeImdb(tmp_path), FakeNet(), FakeNet()
    np.random.seed(3)
    trainer = SVMTrainer(net, imdb, progress=False)
    trainer.train()
    after = np.random.random()
    np.random.seed(3)
    scale, kept = slow_train(slow, imdb, limit)
    assert np.random.random() == after
    assert trainer.feature_scale == pytest.approx(scale, rel=1e-5)
    assert [t.num_neg for t in trainer.trainers] == kept and min(kept[1:]) > 0
    assert len(trainer.trainers[1].history) == (1 if limit == 2000 else pytest.approx(5, abs=3))
    for a, b in zip(net.params["cls_score"], slow.params["cls_score"], strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-3, atol=1e-4)
        assert not a.data[0].any()


def test_the_solution_minimises_the_objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.5 |w|^2 + 0.5 (b / 10)^2 + 0.001 (2 sum of positive + sum of negative hinge losses) on scaled features."""
    monkeypatch.setattr(svm, "EVICT_THRESH", -np.inf)  # keep all it was trained on
    net, imdb = FakeNet(), FakeImdb(tmp_path)
    trainer = SVMTrainer(net, imdb, progress=False)
    trainer.train()
    one, scale = trainer.trainers[1], trainer.feature_scale
    pos, neg = (np.concatenate(part).astype(np.float64) * scale for part in (one._positives, one._negatives))
    w = net.params["cls_score"][0].data[1].astype(np.float64) / scale
    b = float(net.params["cls_score"][1].data[1])

    def losses(w: np.ndarray, b: float) -> tuple[float, float]:
        return 0.002 * np.maximum(0, 1 - pos @ w - b).sum(), 0.001 * np.maximum(0, 1 + neg @ w + b).sum()

    def objective(w: np.ndarray, b: float) -> float:
        return 0.5 * w @ w + 0.5 * (b / 10) ** 2 + sum(losses(w, b))

    best = objective(w, b)
    rng = np.random.default_rng(5)
    for step in (1e-3, 1e-2, 0.1):
        for _ in range(50):
            assert objective(w + step * rng.standard_normal(D), b + step * rng.standard_normal()) > best - 1e-5
    found = one.history[-1]
    assert (found.positives, found.negatives) == pytest.approx(losses(w, b), rel=1e-3, abs=1e-6)
    assert found.regulariser == pytest.approx(0.5 * w @ w + 0.5 * b**2, rel=1e-4)
    assert found.total == pytest.approx(sum(found[1:]))


def test_a_class_without_objects_is_never_detected(tmp_path: Path) -> None:
    net = FakeNet()
    trainer = SVMTrainer(net, FakeImdb(tmp_path, absent=2), progress=False)
    with pytest.warns(UserWarning, match="fake_train: no object of b: never detected"):
        trainer.train()
    assert trainer.trainers[2].num_neg == 0  # nothing is hoarded for it
    assert net.params["cls_score"][0].data[1].any()
    assert not net.params["cls_score"][0].data[2].any() and net.params["cls_score"][1].data[2] == -1


def test_images_without_regions_or_objects_are_passed_over(tmp_path: Path) -> None:
    imdb, plain = FakeImdb(tmp_path), FakeImdb(tmp_path)
    for copy, rows in ((3, slice(0, 0)), (4, slice(2, None))):
        entry = imdb.roidb[copy]
        imdb.roidb[copy] = {
            "boxes": entry["boxes"][rows],
            "gt_classes": entry["gt_classes"][rows],
            "gt_overlaps": entry["gt_overlaps"][rows],
            "flipped": False,
        }
    trainers = []
    for each in (imdb, plain):
        trainers.append(SVMTrainer(FakeNet(), each, progress=False))
        trainers[-1].train()
    assert sum(t.num_pos for t in trainers[0].trainers) == sum(t.num_pos for t in trainers[1].trainers) - 4


def test_no_negatives_is_an_error_that_names_the_class(tmp_path: Path) -> None:
    imdb = FakeImdb(tmp_path)
    for entry in imdb.roidb:
        entry["gt_overlaps"] = scipy.sparse.csr_matrix(np.full((len(entry["boxes"]), K), 0.5, np.float32))
    with pytest.raises(DataError, match="class 'a': no region is a negative example"):
        SVMTrainer(FakeNet(), imdb, progress=False).train()


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetError, match="cls_score scores 5 classes, imdb fake_train has 3"):
        SVMTrainer(FakeNet(5), FakeImdb(tmp_path), progress=False)


def test_a_missing_scikit_learn_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(f"No module named {name!r}")
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CaffeError, match=r"pip install 'caffe-lite\[svm\]'"):
        SVMTrainer(FakeNet(), FakeImdb(tmp_path), progress=False)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_command_and_then_a_test_with_svms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_devkit("data", 5, {"trainval": 3, "test": 2}, (120, 100))
    net = caffe_lite.Net(str(models.path("mini/test.prototxt")), caffe_lite.TEST)
    rng = np.random.default_rng(1)
    for name, blobs in net.params.items():
        blobs[0].data[...] = 0.02 * rng.standard_normal(blobs[0].shape)
        if name == "conv1":
            blobs[0].data[...] *= 0.1
    net.save("mini.caffemodel")
    common = ["--def", "models/mini/test.prototxt", "--cfg", "models/cfgs/svm.yml", "--data", data]
    scale = ["--set", "TEST.SCALES", "(64,)"]
    assert main(["train-svms", *common, "--net", "mini.caffemodel", "--imdb", "synthetic_trainval", *scale]) == 0
    out = capsys.readouterr().out
    assert "blob fc6: features scaled by" in out and "wrote ./mini_svm.caffemodel" in out
    trained = caffe_lite.Net(str(models.path("mini/test.prototxt")), caffe_lite.TEST, weights="mini_svm.caffemodel")
    for name, blobs in net.params.items():
        if name != "cls_score":
            np.testing.assert_array_equal(trained.params[name][0].data, blobs[0].data)
    assert not trained.params["cls_score"][0].data[0].any() and trained.params["cls_score"][0].data[1:].any()
    assert main(["test-net", *common, "--net", "mini_svm.caffemodel", "--imdb", "synthetic_test", *scale]) == 0
    assert Path("output/svm/synthetic_test/mini_svm/detections.npz").is_file()
