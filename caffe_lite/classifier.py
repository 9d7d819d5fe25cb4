"""Classifier: a net for images, with their preparation, as pycaffe's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe_lite import io
from caffe_lite.net import Net

TEST = 1


def configured_transformer(net: Net, **settings: Any) -> io.Transformer:
    """A Transformer of (H, W, C) images for the first input of ``net``; settings that are None are left out.

    settings: mean, input_scale, raw_scale, channel_swap.
    """
    name = net.inputs[0]
    transformer = io.Transformer({name: net.blobs[name].shape})
    transformer.set_transpose(name, (2, 0, 1))
    for setting, value in settings.items():
        if value is not None:
            getattr(transformer, f"set_{setting}")(name, value)
    return transformer


class Classifier(Net):
    """``Classifier("deploy.prototxt", "net.caffemodel", image_dims=(256, 256), ...).predict(images)``.

    image_dims: the (H, W) to which images are brought before they are cropped, the net's own by
    default; mean, input_scale, raw_scale, channel_swap: see :class:`caffe_lite.io.Transformer`.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str],
        image_dims: Sequence[int] | None = None,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = configured_transformer(
            self, mean=mean, input_scale=input_scale, raw_scale=raw_scale, channel_swap=channel_swap
        )
        self.crop_dims = np.array(self.blobs[self.inputs[0]].shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else np.array(image_dims)

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """The first output for each of N images (H, W, C): (N, classes) if the output is flat.

        ``oversample``: the mean over ten crops (corners, centre, mirrored); else the centre crop.
        """
        images = np.stack([io.resize_image(image, self.image_dims) for image in inputs])
        if oversample:
            images = io.oversample(images, self.crop_dims)
        else:
            y, x = (int(start) for start in self.image_dims / 2.0 - self.crop_dims / 2.0)
            h, w = self.crop_dims
            images = images[:, y : y + h, x : x + w]
        name = self.inputs[0]
        batch = np.stack([self.transformer.preprocess(name, image) for image in images])
        predictions = self.forward_all(None, **{name: batch})[self.outputs[0]]
        if oversample:
            predictions = predictions.reshape(len(predictions) // 10, 10, -1).mean(axis=1)
        return predictions
