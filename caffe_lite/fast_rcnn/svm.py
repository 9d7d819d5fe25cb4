"""SVMs in place of the softmax classifier, with hard-negative mining.

Girshick, Fast R-CNN (2015), section 5.4, by the constants of the original's train_svms, which are
R-CNN's. One linear SVM for each class on the features that cls_score sees (fc7, after its ReLU):

    positives   the objects of the class
    negatives   regions whose overlap with every object of the class is < 0.3 and whose score
                is > -1.0001 when one pass over the images comes to them

K classes with the background, D features, R regions of an image. Features are scaled to a mean norm
of 20; the SVMs are written into cls_score, W[k] = scale * w and b[k] = b, so that a net with
cfg.TEST.SVM scores with them. The background's row is zero.

Differs from the original: fewer than 100 images are all used for the scale; an image without regions
is passed over; a class without objects gets w = 0 and b = -1, which is what its SVM would be, with a
warning. (The original fails in these cases.)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from caffe_lite.data.config import cfg, preserved_cfg
from caffe_lite.data.image_blob import read_image
from caffe_lite.errors import CaffeError, DataError, NetError
from caffe_lite.fast_rcnn.test import im_detect
from caffe_lite.progress import progress_bar

Float32 = NDArray[np.float32]

SCORE_LAYER = "cls_score"
TARGET_NORM = 20.0  # mean norm of the scaled features
SCALE_IMAGES = 100  # images from which the scale is estimated
HARD_THRESH = -1.0001  # negatives that score more are hard
NEG_IOU = 0.3  # regions that overlap an object by less are negatives
RETRAIN_LIMIT = 2000  # retrain when more negatives than this were added
EVICT_THRESH = -1.1  # after training, cached negatives that score less are dropped
C = 0.001
BIAS = 10.0  # intercept_scaling: the constant feature whose weight is the bias
POS_WEIGHT = 2.0


class Objective(NamedTuple):
    """The value that the SVM of a class minimises, and its parts."""

    total: float
    positives: float  # C * 2 * sum of hinge losses
    negatives: float  # C * sum of hinge losses
    regulariser: float  # 0.5 |w|^2 + 0.5 b^2


class SVMClassTrainer:
    """The examples of one class and its SVM; ``history`` has the objective of each training."""

    def __init__(self, name: str, dim: int, feature_scale: float) -> None:
        self.name = name
        self.feature_scale = feature_scale
        self.history: list[Objective] = []
        self._positives: list[Float32] = []
        self._negatives: list[Float32] = []
        self._added = 0
        self._dim = dim
        self._svm = linear_svc()

    @property
    def num_pos(self) -> int:
        """Positives in the cache."""
        return sum(map(len, self._positives))

    @property
    def num_neg(self) -> int:
        """Negatives in the cache."""
        return sum(map(len, self._negatives))

    def append_pos(self, features: Float32) -> None:
        """Add positives (n, D)."""
        self._positives.append(features)

    def append_neg_and_retrain(
        self, features: Float32 | None = None, force: bool = False
    ) -> tuple[Float32, float] | None:
        """Add hard negatives (n, D); when enough came, or by ``force``, train and drop easy ones.

        Returns the weights (D,) and bias for unscaled features, or None if nothing was trained.
        """
        if features is not None:
            self._negatives.append(features)
            self._added += len(features)
        if self._added <= RETRAIN_LIMIT and not force:
            return None
        self._added = 0
        if not self._positives:
            self._negatives = []
            return np.zeros(self._dim, np.float32), -1.0
        weights, bias, scores = self._train()
        hard = scores >= EVICT_THRESH
        if hard.any():  # of nothing but easy ones the original keeps all
            self._negatives = [np.concatenate(self._negatives)[hard]]
        return weights, bias

    def _train(self) -> tuple[Float32, float, NDArray[np.float64]]:
        """Weights (D,) and bias for unscaled features, and the scores of the cached negatives."""
        if not self._negatives:
            raise DataError(
                f"class {self.name!r}: no region is a negative example: all overlap an object of the class by "
                f"{NEG_IOU} or more; give the images more proposals"
            )
        examples = np.concatenate([*self._positives, *self._negatives]) * np.float32(self.feature_scale)
        labels = np.concatenate((np.ones(self.num_pos), -np.ones(self.num_neg)))
        self._svm.fit(examples, labels)
        w, b = self._svm.coef_, float(self._svm.intercept_[0])
        scores = self._svm.decision_function(examples)
        positives = C * POS_WEIGHT * float(np.maximum(0, 1 - scores[: self.num_pos]).sum())
        negatives = C * float(np.maximum(0, 1 + scores[self.num_pos :]).sum())
        regulariser = 0.5 * float(w.ravel() @ w.ravel()) + 0.5 * b**2
        self.history.append(Objective(positives + negatives + regulariser, positives, negatives, regulariser))
        return (w[0] * self.feature_scale).astype(np.float32), b, scores[self.num_pos :]


class HardNegativeMiner:
    """Trains the SVMs of all classes of ``imdb``; a subclass says where features come from and weights go.

    Draws the images for the feature scale from numpy's legacy generator at once. Attributes:
    ``trainers``, one for each class, and ``feature_scale``. ``dim`` is D.

    Raises CaffeError if scikit-learn is not installed.
    """

    def __init__(self, imdb: Any, dim: int, progress: bool = True) -> None:
        self.imdb, self.progress = imdb, progress
        linear_svc()  # a missing scikit-learn is told before the first image
        self.feature_scale = self._find_feature_scale()
        self.trainers = [SVMClassTrainer(name, dim, self.feature_scale) for name in imdb.classes]

    def detect(self, i: int, rows: Any) -> tuple[Float32, Float32]:
        """Scores (R, K) by the SVMs so far, and features (R, D), of rows (indices or a slice) of entry i's regions."""
        raise NotImplementedError(f"{type(self).__name__}.detect")

    def update(self, k: int, weights: Float32, bias: float) -> None:
        """Score class ``k`` by ``weights`` (D,) and ``bias`` from now on."""
        raise NotImplementedError(f"{type(self).__name__}.update")

    def train(self) -> None:
        """Positives, one pass of hard-negative mining, a last training of each class."""
        self.get_pos_examples()
        self.train_with_hard_negatives()
        for k in range(1, self.imdb.num_classes):
            self._update(k, self.trainers[k].append_neg_and_retrain(force=True))

    def get_pos_examples(self) -> None:
        """The features of all objects, each to its class."""
        for i, entry in self._entries("positives"):
            objects = np.flatnonzero(entry["gt_classes"] > 0)
            if not len(objects):
                continue
            _, features = self.detect(i, objects)
            labels = entry["gt_classes"][objects]
            for k in np.unique(labels):
                self.trainers[k].append_pos(features[labels == k])
        absent = [t.name for t in self.trainers[1:] if not t.num_pos]
        if absent:
            warnings.warn(f"{self.imdb.name}: no object of {', '.join(absent)}: never detected", stacklevel=3)

    def train_with_hard_negatives(self) -> None:
        """One pass over the images; a class is trained anew when it has enough new negatives."""
        for i, entry in self._entries("hard negatives"):
            if not len(entry["boxes"]):
                continue
            scores, features = self.detect(i, slice(None))
            overlaps = entry["gt_overlaps"].toarray()
            for k in range(1, self.imdb.num_classes):
                hard = np.flatnonzero((scores[:, k] > HARD_THRESH) & (overlaps[:, k] < NEG_IOU))
                if len(hard):
                    self._update(k, self.trainers[k].append_neg_and_retrain(features[hard]))

    def _find_feature_scale(self) -> float:
        """TARGET_NORM over the mean norm of all regions' features in SCALE_IMAGES random images."""
        images = self.imdb.num_images
        chosen = np.random.choice(images, size=min(SCALE_IMAGES, images), replace=False)
        total, count = 0.0, 0
        for i in progress_bar(chosen, desc="feature scale", unit="image", disable=not self.progress):
            if len(self.imdb.roidb[i]["boxes"]):
                _, features = self.detect(i, slice(None))
                total += float(np.sqrt((features**2).sum(axis=1)).sum())
                count += len(features)
        if not total:
            raise DataError(f"{self.imdb.name}: no region has a feature other than 0")
        return TARGET_NORM / (total / count)

    def _update(self, k: int, found: tuple[Float32, float] | None) -> None:
        if found is not None:
            self.update(k, *found)

    def _entries(self, what: str) -> Iterator[tuple[int, Any]]:
        numbers = range(len(self.imdb.roidb))
        for i in progress_bar(numbers, desc=what, unit="image", disable=not self.progress):
            yield i, self.imdb.roidb[i]


def _feature_blob(net: Any) -> str:
    """The name of what cls_score reads: fc7, which a Split may hand on under another name."""
    name = net.bottom_names[SCORE_LAYER][0]
    sources = {top: net.bottom_names[layer] for layer, tops in net.top_names.items() for top in tops}
    types = {top: net.layer_dict[layer].type for layer, tops in net.top_names.items() for top in tops}
    while types[name] == "Split":
        name = sources[name][0]
    return str(name)


class SVMTrainer(HardNegativeMiner):
    """SVMs on the features of ``net``, a TEST net, which are written into its layer cls_score.

    Raises NetError if the net has no cls_score, or one of other classes than the imdb's.
    """

    def __init__(self, net: Any, imdb: Any, progress: bool = True) -> None:
        if SCORE_LAYER not in net.params:
            raise NetError(f"the net has no layer {SCORE_LAYER!r}, whose weights SVMs replace")
        classes, dim = net.params[SCORE_LAYER][0].data.shape
        if classes != imdb.num_classes:
            raise NetError(f"{SCORE_LAYER} scores {classes} classes, imdb {imdb.name} has {imdb.num_classes}")
        self.net = net
        self.blob = _feature_blob(net)
        super().__init__(imdb, dim, progress)

    def train(self) -> None:
        """As the base, from weights of zero."""
        for blob in self.net.params[SCORE_LAYER]:
            blob.data[...] = 0
        super().train()

    def detect(self, i: int, rows: Any) -> tuple[Float32, Float32]:
        boxes = self.imdb.roidb[i]["boxes"][rows]
        image = read_image(self.imdb.image_path_at(i))
        if self.imdb.roidb[i]["flipped"]:
            image = image[:, ::-1, :]
        with preserved_cfg():
            cfg.DEDUP_BOXES = 0.0  # a feature for every region, in their order
            cfg.TEST.SVM, cfg.TEST.BBOX_REG = True, False
            scores, _ = im_detect(self.net, image, boxes)
        features = np.array(self.net.blobs[self.blob].data, np.float32).reshape(len(boxes), -1)
        return scores, features

    def update(self, k: int, weights: Float32, bias: float) -> None:
        blobs = self.net.params[SCORE_LAYER]
        blobs[0].data[k], blobs[1].data[k] = weights, bias


def linear_svc() -> Any:
    """scikit-learn's LinearSVC with the original's settings.

    Raises:
        CaffeError: scikit-learn is not installed.
    """
    try:
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise CaffeError("training SVMs needs scikit-learn: pip install 'caffe-lite[svm]'") from error
    return LinearSVC(
        C=C,
        class_weight={1: POS_WEIGHT, -1: 1},
        intercept_scaling=BIAS,
        penalty="l2",
        loss="hinge",
        dual=True,
        random_state=cfg.RNG_SEED,
    )
