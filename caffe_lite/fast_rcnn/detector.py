"""Detector: a trained Fast R-CNN as a function from an image to its objects.

    from caffe_lite.fast_rcnn import Detector

    detector = Detector("models/VGG16/test.prototxt", "vgg16_fast_rcnn_iter_40000.caffemodel")
    boxes, scores, classes = detector("photo.jpg")
    for box, score, k in zip(boxes, scores, classes):
        print(detector.classes[k], score, box)

K classes with the background, R regions, D detections. Boxes are x1, y1, x2, y2 in image pixels,
0-based and inclusive.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caffe_lite.data.config import cfg, preserved_cfg
from caffe_lite.data.image_blob import as_image
from caffe_lite.data.nms import nms as suppress
from caffe_lite.data.pascal_voc import VOC_CLASSES
from caffe_lite.data.proposals import selective_search
from caffe_lite.errors import DataError, NetError, WeightsError
from caffe_lite.fast_rcnn.snapshots import check_for_testing
from caffe_lite.fast_rcnn.test import RESULTS, im_detect
from caffe_lite.models import resolve
from caffe_lite.net import Net

Float32 = NDArray[np.float32]
_TEST = 1


class Detections(NamedTuple):
    """The objects found in an image, best score first."""

    boxes: Float32  # (D, 4)
    scores: Float32  # (D,)
    classes: NDArray[np.int64]  # (D,) in 1..K-1; Detector.classes has the names


class Detector:
    """``Detector(prototxt, weights)(image, boxes) -> boxes (D, 4), scores (D,), classes (D,)``.

    prototxt: a test.prototxt, ``models/...`` also from the shipped files; weights: a .caffemodel.
    classes: the K names, background first; by default VOC's 21 if K is 21, else "class 1" and so on.
    conf: the least score of a detection; nms: overlap with a better detection of the class from which
    one is dropped.
    keep: blobs of ``net`` that you want to read after a call, such as "fc7"; all others but its inputs
    and results share their memory (see :meth:`caffe_lite.net.Net.optimize_memory`).

    ``cfg`` says the rest when it is called: TEST.SCALES, TEST.SVM (then scores are not within [0, 1]) and
    so on; a net without bbox_pred returns the regions themselves. Attributes: ``net``, ``classes``.

    Raises:
        PrototxtError, NetError, WeightsError: the net cannot be built or the weights are not its own.
        DataError: ``classes`` is not as long as the net has scores.
    """

    def __init__(
        self,
        prototxt: str | os.PathLike[str],
        weights: str | os.PathLike[str],
        classes: Sequence[str] | None = None,
        *,
        conf: float = 0.8,
        nms: float = 0.3,
        keep: Sequence[str] = (),
    ) -> None:
        self.net = load_net(prototxt, weights)
        share_memory(self.net, keep)
        self.classes = class_names(classes, num_classes(self.net))
        self.conf, self.nms = conf, nms

    def __call__(self, image: str | os.PathLike[str] | NDArray[Any], boxes: ArrayLike | None = None) -> Detections:
        """The objects in ``image``, a file or an array as :func:`as_image` takes it.

        boxes: (R, 4) regions, by default selective search's (fast mode). No regions: no detections.

        Raises:
            DataError: the image cannot be read, or a box is not (x1, y1, x2, y2) within it.
        """
        im = as_image(image)
        where = "the image" if isinstance(image, np.ndarray) else image
        regions = selective_search(im) if boxes is None else check_boxes(boxes, im.shape, where)
        dets = class_detections(self.net, im, regions, self.conf, self.nms)
        rows = np.concatenate(dets)
        labels = np.repeat(np.arange(len(dets)), [len(of_class) for of_class in dets])
        order = np.argsort(-rows[:, 4], kind="stable")
        return Detections(rows[order, :4], rows[order, 4], labels[order])


def class_detections(net: Any, im: NDArray[np.uint8], boxes: NDArray[Any], conf: float, thresh: float) -> list[Float32]:
    """Detections (D, 5) x1, y1, x2, y2, score of each of K classes, after NMS; none of the background.

    What scores less than ``conf`` is left out, which changes nothing of what else NMS keeps.
    """
    if "bbox_pred" in net.blobs:
        scores, found = im_detect(net, im, boxes)
    else:
        with preserved_cfg():
            cfg.TEST.BBOX_REG = False
            scores, found = im_detect(net, im, boxes)
    dets = [np.zeros((0, 5), np.float32)]
    for k in range(1, scores.shape[1]):
        rows = np.flatnonzero(scores[:, k] >= conf)
        of_class = np.hstack((found[rows, 4 * k : 4 * k + 4], scores[rows, k, np.newaxis])).astype(np.float32)
        dets.append(of_class[suppress(of_class, thresh)])
    return dets


def load_net(prototxt: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> Net:
    """The TEST net with all its weights; named as their file, as in the original.

    Raises:
        WeightsError: the file lacks a layer of the net, or predicts boxes that are normalised as in training.
    """
    net = Net(resolve(prototxt), _TEST)
    if weights is not None:
        check_for_testing(weights)
        untouched = net.copy_from(weights).untouched
        if untouched:
            raise WeightsError(
                f"{os.fspath(weights)}: holds no weights for {', '.join(untouched)}, which {os.fspath(prototxt)} has; "
                "use the weights that were trained with its train.prototxt"
            )
        net.name = os.path.splitext(os.path.basename(weights))[0]
    return net


def share_memory(net: Net, keep: Sequence[str] = ()) -> None:
    """Let the blobs of ``net`` share memory, but what :func:`im_detect` reads and those that ``keep`` names."""
    net.optimize_memory([*keep, *(name for name in RESULTS if name in net.blobs)])


def num_classes(net: Any) -> int:
    """K, the scores that ``net`` gives a region; NetError if it is no net that scores classes."""
    for name in ("cls_prob", "cls_score"):
        if name in net.blobs:
            return int(net.blobs[name].shape[1])
    raise NetError(f"net {net.name!r} has no blob 'cls_prob' or 'cls_score': expected a Fast R-CNN's test.prototxt")


def class_names(classes: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """``classes`` if they are ``count`` names, else VOC's or numbers; DataError if they are not."""
    if classes is not None and len(classes) != count:
        raise DataError(f"{len(classes)} class names, background included, for a net with {count} classes")
    voc = ("__background__", *VOC_CLASSES)
    return tuple(classes or (voc if count == len(voc) else [f"class {k}" for k in range(count)]))


def check_boxes(boxes: ArrayLike, shape: tuple[int, ...], where: str | os.PathLike[str]) -> NDArray[Any]:
    """``boxes`` as an (R, 4) array within an image of ``shape``.

    Raises DataError naming the first box that is reversed or not within the image.
    """
    array = np.asarray(boxes)
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "uif":
        raise DataError(f"{os.fspath(where)}: boxes must be numbers of shape (R, 4), got {array.dtype} {array.shape}")
    b = array.astype(np.float64)
    inside = (b[:, :2] >= 0).all(axis=1) & (b[:, :2] <= b[:, 2:]).all(axis=1)
    inside &= (b[:, 2] < shape[1]) & (b[:, 3] < shape[0])
    if not inside.all():
        row = int(inside.argmin())
        raise DataError(
            f"{os.fspath(where)}: box in row {row}, {tuple(array[row].tolist())} (x1, y1, x2, y2), is reversed or "
            f"outside the image, which is {shape[1]} x {shape[0]} pixels; does it belong to another image?"
        )
    return array
