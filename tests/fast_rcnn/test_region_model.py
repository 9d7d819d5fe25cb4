"""SVMs and box regressors on cached features: how they are trained, what they make of an image, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe_lite.data.config import cfg
from caffe_lite.errors import DataError
from caffe_lite.fast_rcnn import rcnn
from caffe_lite.fast_rcnn.rcnn import bbox_regression
from caffe_lite.fast_rcnn.rcnn.region_model import CachedMiner, RegionModel
from caffe_lite.fast_rcnn.svm import EVICT_THRESH, NEG_IOU
from tests.fast_rcnn.rcnn_inputs import FakeImdb, cache_of, features, image, regions

pytestmark = pytest.mark.usefixtures("rcnn_settings")


@pytest.mark.filterwarnings("ignore:Liblinear")
def test_svms_on_cached_features_keep_no_easy_negative_and_no_violator_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Classes whose features lie apart: afterwards no negative is beyond the margin, in the cache or elsewhere."""
    monkeypatch.setattr("caffe_lite.fast_rcnn.svm.RETRAIN_LIMIT", 30)
    roidb = regions(6, images=40)
    pooled = cache_of(roidb, 8)
    overlaps = np.concatenate([e["gt_overlaps"].toarray() for e in roidb])
    for k in (1, 2):
        pooled.all[:, k] = np.where(overlaps[:, k] >= NEG_IOU, 30, -30)
    miner = CachedMiner(pooled, FakeImdb(roidb), progress=False)
    miner.train()
    scores = pooled.all @ miner.weights.T + miner.bias
    for k in (1, 2):
        negatives = scores[overlaps[:, k] < NEG_IOU, k]
        assert negatives.max() < -0.99
        cached = np.concatenate(miner.trainers[k]._negatives)
        assert 0 < len(cached) < len(negatives)
        kept = cached @ miner.weights[k] + miner.bias[k]
        assert kept.max() < -0.99
        assert kept.min() >= EVICT_THRESH - 1e-4
        assert scores[overlaps[:, k] == 1, k].min() > 0.99
    assert not miner.weights[0].any()


def test_detection_scores_by_the_svms_and_moves_by_the_regressors() -> None:
    made = features()
    rng = np.random.default_rng(5)
    svm_weights = rng.normal(0, 0.1, (3, made.dim)).astype(np.float32)
    regressors = bbox_regression.BoxRegressors(
        rng.normal(0, 1e-4, (12, made.pooled_dim)).astype(np.float32), rng.normal(0, 0.1, 12).astype(np.float32)
    )
    model = RegionModel(made, ("__background__", "a", "b"), svm_weights, np.arange(3, dtype=np.float32), regressors)
    im, boxes = image(), np.array([[10, 10, 60, 50], [30, 5, 119, 89]], np.uint16)
    scores, found = model.detect(im, boxes)
    pooled = made.pooled(im, boxes)
    np.testing.assert_allclose(scores, made.last(pooled) @ svm_weights.T + [0, 1, 2], rtol=1e-4, atol=1e-4)
    for r, box in enumerate(boxes.astype(float)):
        width, height = box[2] - box[0], box[3] - box[1]
        for k in range(3):
            dx, dy, dw, dh = pooled[r] @ regressors.weights[4 * k : 4 * k + 4].T + regressors.bias[4 * k : 4 * k + 4]
            x, y = box[0] + width / 2 + dx * width, box[1] + height / 2 + dy * height
            w, h = width * np.exp(dw) / 2, height * np.exp(dh) / 2
            expected = [max(x - w, 0), max(y - h, 0), min(x + w, 119), min(y + h, 89)]
            np.testing.assert_allclose(found[r, 4 * k : 4 * k + 4], expected, rtol=1e-4, atol=1e-2)
    cfg.TEST.BBOX_REG = False
    np.testing.assert_array_equal(model.detect(im, boxes)[1], np.tile(boxes, 3))


def test_heads_of_other_features_are_refused(tmp_path: Path) -> None:
    made = features()
    none = bbox_regression.BoxRegressors(np.zeros((12, made.pooled_dim), np.float32), np.zeros(12, np.float32))
    model = RegionModel(made, ("__background__", "a", "b"), np.zeros((3, 5), np.float32), np.zeros(3), none)
    model.save(tmp_path)
    with pytest.raises(DataError, match=r"heads.npz: arrays .*\(3, 5\).* expected .*\(3, 192\)"):
        rcnn.load(tmp_path)
    with pytest.raises(DataError, match="fake has the classes"):
        rcnn.test(RegionModel(made, ("x",), none.bias, none.bias, none), FakeImdb([]), tmp_path)
