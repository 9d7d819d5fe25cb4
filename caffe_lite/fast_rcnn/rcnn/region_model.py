"""A trained R-CNN or SPPnet: features of regions, a linear SVM and a box regressor for each class.

K classes with the background, R regions, D last and P pooled features (:mod:`.features`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from caffe_lite.atomic import atomic_write
from caffe_lite.data.boxes import bbox_transform_inv, clip_boxes
from caffe_lite.data.config import cfg
from caffe_lite.data.image_blob import Float32, read_image
from caffe_lite.errors import DataError
from caffe_lite.fast_rcnn.rcnn.bbox_regression import BoxRegressors, train_regressors
from caffe_lite.fast_rcnn.rcnn.feature_cache import FeatureCache
from caffe_lite.fast_rcnn.rcnn.features import RegionFeatures
from caffe_lite.fast_rcnn.svm import HardNegativeMiner
from caffe_lite.fast_rcnn.test import AllBoxes, apply_nms, detect_all, make_output_dir, save_detections

HEADS = "heads.npz"
WEIGHTS = "features.caffemodel"


class RegionModel:
    """``svm_weights`` (K, D) and ``svm_bias`` (K,), rows of the background zero; ``seconds``: time of each stage."""

    def __init__(
        self,
        features: RegionFeatures,
        classes: Sequence[str],
        svm_weights: Float32,
        svm_bias: Float32,
        regressors: BoxRegressors,
        seconds: dict[str, float] | None = None,
    ) -> None:
        self.features = features
        self.classes = tuple(classes)
        self.svm_weights, self.svm_bias = svm_weights, svm_bias
        self.regressors = regressors
        self.seconds = seconds or {}

    def detect(self, im: NDArray[np.uint8], boxes: NDArray[Any]) -> tuple[Float32, NDArray[Any]]:
        """Scores (R, K) and boxes (R, 4K), one for each class and clipped, of (R, 4) regions of an image."""
        boxes = np.asarray(boxes).reshape(-1, 4)
        if not len(boxes):
            return np.zeros((0, len(self.classes)), np.float32), np.zeros((0, 4 * len(self.classes)))
        pooled = self.features.pooled(im, boxes)
        scores = self.features.last(pooled) @ self.svm_weights.T + self.svm_bias
        if not cfg.TEST.BBOX_REG:
            return scores, np.tile(boxes.astype(np.float64), (1, len(self.classes)))
        return scores, clip_boxes(bbox_transform_inv(boxes, self.regressors.deltas(pooled)), im.shape)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the net's weights, the SVMs and the regressors into ``folder``; see :func:`load_heads`."""
        self.features.net.save(os.path.join(folder, WEIGHTS))
        with atomic_write(os.path.join(folder, HEADS)) as stream:
            np.savez(
                stream,
                classes=np.array(self.classes, np.str_),
                svm_weights=self.svm_weights,
                svm_bias=self.svm_bias,
                box_weights=self.regressors.weights,
                box_bias=self.regressors.bias,
                settings=np.array(self.features.settings()),
                stages=np.array(list(self.seconds), np.str_),
                seconds=np.array(list(self.seconds.values()), np.float64),
            )


def load_model(folder: str | os.PathLike[str], features: RegionFeatures) -> RegionModel:
    """What :meth:`RegionModel.save` wrote; the weights are copied into ``features.net``.

    Raises DataError naming the file if it is missing, damaged, or does not go with the net.
    """
    path = os.path.join(folder, HEADS)
    features.copy_from(os.path.join(folder, WEIGHTS))
    try:
        with np.load(path, allow_pickle=False) as saved:
            found = {name: saved[name] for name in saved.files}
        classes = found["classes"].tolist()
        shapes = {name: found[name].shape for name in ("svm_weights", "svm_bias", "box_weights", "box_bias")}
        settings = str(found["settings"])
        seconds = dict(zip(found["stages"].tolist(), found["seconds"].tolist(), strict=True))
    except Exception as error:  # numpy and zipfile raise a dozen types on a damaged file
        raise DataError(f"{path}: not the SVMs and box regressors of a model: {error}") from error
    if settings != features.settings():
        raise DataError(f"{path}: trained on features of {settings}, these are of {features.settings()}")
    k = len(classes)
    expected = {
        "svm_weights": (k, features.dim),
        "svm_bias": (k,),
        "box_weights": (4 * k, features.pooled_dim),
        "box_bias": (4 * k,),
    }
    if shapes != expected:
        raise DataError(f"{path}: arrays {shapes} do not go with the net's features, expected {expected}")
    regressors = BoxRegressors(found["box_weights"], found["box_bias"])
    return RegionModel(features, classes, found["svm_weights"], found["svm_bias"], regressors, seconds)


class CachedMiner(HardNegativeMiner):
    """SVMs on cached features; ``weights`` (K, D) and ``bias`` (K,)."""

    def __init__(self, features: FeatureCache, imdb: Any, progress: bool = True) -> None:
        dim = features.all.shape[1]
        self.features = features
        self.weights, self.bias = np.zeros((imdb.num_classes, dim), np.float32), np.zeros(imdb.num_classes, np.float32)
        super().__init__(imdb, dim, progress)

    def detect(self, i: int, rows: Any) -> tuple[Float32, Float32]:
        found = np.array(self.features.of(i)[rows])
        return found @ self.weights.T + self.bias, found

    def update(self, k: int, weights: Float32, bias: float) -> None:
        self.weights[k], self.bias[k] = weights, bias


def train_heads(
    features: RegionFeatures,
    pooled: FeatureCache,
    last: FeatureCache,
    imdb: Any,
    seconds: dict[str, float],
    progress: bool = True,
) -> RegionModel:
    """SVMs on the last features and box regressors on the pooled ones of ``imdb.roidb``'s regions."""
    with timed(seconds, "SVMs"):
        miner = CachedMiner(last, imdb, progress)
        miner.train()
    with timed(seconds, "box regressors"):
        regressors = train_regressors(pooled, imdb.roidb, imdb.num_classes, progress)
    return RegionModel(features, imdb.classes, miner.weights, miner.bias, regressors, seconds)


class DetectionRun(NamedTuple):
    """``aps``: class -> AP; ``all_boxes[class][image]`` after NMS; ``seconds`` (N,) of each image's detection."""

    aps: dict[str, float]
    all_boxes: AllBoxes
    seconds: NDArray[np.float64]


def test(model: RegionModel, imdb: Any, output_dir: str | os.PathLike[str], progress: bool = True) -> DetectionRun:
    """Detect on every image of ``imdb``, NMS, save the detections, evaluate.

    Writes ``detections.npz`` (before NMS) and what the evaluation writes into ``output_dir``. ``seconds`` is from
    the decoded image and its regions to scores and boxes; the first image is done once before, untimed.
    """
    output_dir = make_output_dir(output_dir)
    if model.classes != tuple(imdb.classes):
        raise DataError(f"{imdb.name} has the classes {imdb.classes}, the model {model.classes}")
    seconds: list[float] = []

    def detect(_: Any, im: NDArray[np.uint8], boxes: NDArray[Any]) -> tuple[Float32, NDArray[Any]]:
        started = time.perf_counter()
        found = model.detect(im, boxes)
        seconds.append(time.perf_counter() - started)
        return found

    if imdb.num_images:
        model.detect(read_image(imdb.image_path_at(0)), imdb.roidb[0]["boxes"])
    all_boxes = detect_all(model, imdb, progress, detect)
    save_detections(os.path.join(output_dir, "detections.npz"), all_boxes, imdb)
    kept = apply_nms(all_boxes, cfg.TEST.NMS)
    return DetectionRun(imdb.evaluate_detections(kept, output_dir), kept, np.array(seconds))


test.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the wall time of the ``with`` block to ``seconds[stage]``."""
    started = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
