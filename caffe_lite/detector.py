"""Detector: a classification net run on windows of images, as pycaffe's (R-CNN's way; for Fast R-CNN see fast_rcnn).

Windows are (ymin, xmin, ymax, xmax) in pixels, the last row and column not included, as pycaffe slices them.
Girshick et al., Rich Feature Hierarchies (R-CNN, 2014), for context_pad.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from caffe_lite import io
from caffe_lite.classifier import TEST, configured_transformer
from caffe_lite.errors import DataError
from caffe_lite.net import Net

Window = Sequence[int] | np.ndarray
MIN_WINDOW = 16  # pixels: selective search leaves smaller ones out


class Detector(Net):
    """``Detector("deploy.prototxt", "net.caffemodel", ...).detect_windows([(file, windows), ...])``.

    context_pad: how many pixels of the net's (square) input around the window show what lies around
    it; what lies outside the image is the mean. The other settings: see :class:`caffe_lite.io.Transformer`.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str],
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = configured_transformer(
            self, mean=mean, input_scale=input_scale, raw_scale=raw_scale, channel_swap=channel_swap
        )
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Set ``context_pad`` and what surrounds an image: the mean, as images were before preprocessing."""
        name = self.inputs[0]
        channels, height, width = self.blobs[name].shape[1:]
        self.crop_dims = np.array([height, width, channels])
        self.context_pad = context_pad
        mean = self.transformer.mean.get(name)
        self.crop_mean = np.zeros(self.crop_dims, np.float32)
        if mean is not None:
            in_input = np.broadcast_to(mean, (channels, height, width)).astype(np.float32)
            if name in self.transformer.channel_swap:
                in_input = in_input[np.argsort(self.transformer.channel_swap[name])]
            self.crop_mean[...] = in_input.transpose(1, 2, 0) / self.transformer.raw_scale.get(name, 1.0)

    def detect_windows(self, images_windows: Iterable[tuple[str, Iterable[Window]]]) -> list[dict[str, Any]]:
        """For each window of each (file, windows) a dict: "window", "prediction" (the first output), "filename".

        Raises:
            DataError: a file is no image, or a window holds no pixel of it.
        """
        detections: list[dict[str, Any]] = []
        inputs = []
        name = self.inputs[0]
        for filename, windows in images_windows:
            image = io.load_image(filename)
            for window in windows:
                try:
                    crop = self.crop(image, window)
                except DataError as error:
                    raise DataError(f"{filename}: {error}") from error
                inputs.append(self.transformer.preprocess(name, crop))
                detections.append({"window": window, "prediction": None, "filename": filename})
        if not detections:
            return []
        predictions = self.forward_all(None, **{name: np.stack(inputs)})[self.outputs[0]]
        for detection, prediction in zip(detections, predictions, strict=True):
            detection["prediction"] = prediction
        return detections

    def detect_selective_search(self, image_fnames: Iterable[str]) -> list[dict[str, Any]]:
        """``detect_windows`` on windows from selective search, computed by OpenCV (pycaffe calls MATLAB)."""
        from caffe_lite.data.image_blob import read_image
        from caffe_lite.data.proposals import selective_search

        found = []
        for filename in image_fnames:
            boxes = selective_search(read_image(filename), min_side=MIN_WINDOW).astype(int)
            found.append((filename, boxes[:, [1, 0, 3, 2]] + [0, 0, 1, 1]))
        return self.detect_windows(found)

    def crop(self, im: np.ndarray, window: Window) -> np.ndarray:
        """The window of image (H, W, C): as it is, or with its context in the size of the net's input.

        Raises:
            DataError: no pixel of the image is in it.
        """
        top, left, bottom, right = (int(edge) for edge in window)
        crop = im[top:bottom, left:right]
        if not crop.size:
            raise DataError(f"window {list(window)} (ymin, xmin, ymax, xmax) holds no pixel of an image of {im.shape}")
        return self._with_context(im, np.array([top, left, bottom, right])) if self.context_pad else crop

    def _with_context(self, im: np.ndarray, window: np.ndarray) -> np.ndarray:
        """pycaffe's rounding throughout: the enlarged box, its part in the image, where that goes in the crop."""
        assert self.context_pad is not None
        size = int(self.crop_dims[1])
        scale = size / (size - 2.0 * self.context_pad)
        half = (window[2:] - window[:2] + 1) / 2.0
        center = window[:2] + half
        box = np.round(np.concatenate([center - scale * half, center + scale * half]))
        factor = size / (box[2:] - box[:2] + 1)
        before = np.array([round(v) for v in np.maximum(0, -box[:2]) * factor])
        box = np.clip(box, 0, np.tile(im.shape[:2], 2)).astype(int)
        inside = np.array([round(v) for v in (box[2:] - box[:2] + 1) * factor])
        inside = np.minimum(inside, size - before)
        result = self.crop_mean.copy()
        part = io.resize_image(im[box[0] : box[2], box[1] : box[3]], inside)
        result[before[0] : before[0] + inside[0], before[1] : before[1] + inside[1]] = part
        return result
