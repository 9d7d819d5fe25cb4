"""Features of regions: what SVMs and box regressors of R-CNN and SPPnet are trained on.

    R  regions      P  pooled features, what the first inner product reads (pool5)
                    D  last features, what the net puts out (fc7)

A net for features is a TEST net with one output, the last features. Its layers are taken in two parts,
since the first is worth keeping on disk: up to the pooled features, and from them to the output.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe_lite.data.image_blob import Float32
from caffe_lite.data.window_file import warp_window
from caffe_lite.errors import NetError, WeightsError

ROWS = 4096  # regions that go through the fully connected layers at a time


class RegionFeatures:
    """``net``'s features of regions; a subclass says how an image and its regions become pooled features.

    Attributes: ``net``, ``blob`` (name of the pooled features), ``pooled_dim`` P, ``dim`` D.

    Raises NetError if the net has no inner product, or more than one output.
    """

    def __init__(self, net: Any) -> None:
        inner = [i for i, layer in enumerate(net.layers) if layer.type == "InnerProduct"]
        if not inner or not inner[0] or len(net.outputs) != 1:
            raise NetError(
                f"net {net.name!r} has {len(inner)} InnerProduct layers and the outputs {net.outputs}; a net for "
                "features has layers up to pooled features, then inner products, and one output"
            )
        self.net = net
        self._last_pooling = net.layers[inner[0] - 1].name
        self._first_inner = net.layers[inner[0]].name
        self.blob: str = net.bottom_names[self._first_inner][0]
        self.pooled_dim = int(np.prod(net.blobs[self.blob].shape[1:]))
        self.dim = int(np.prod(net.blobs[net.outputs[0]].shape[1:]))

    def copy_from(self, weights: str | os.PathLike[str], pooled_only: bool = False) -> None:
        """Copy a .caffemodel into the net.

        Raises WeightsError if it lacks a layer that the features, or with ``pooled_only`` the pooled ones, need.
        """
        inner = self.net.layer_index(self._first_inner)
        missing = [
            name
            for name in self.net.copy_from(weights).untouched
            if not pooled_only or self.net.layer_index(name) < inner
        ]
        if missing:
            raise WeightsError(
                f"{os.fspath(weights)}: holds no weights for {', '.join(missing)}, which net {self.net.name!r} has; "
                "layers are found by their names"
            )

    def pooled(self, im: NDArray[np.uint8], boxes: NDArray[Any]) -> Float32:
        """Pooled features (R, P) of (R, 4) regions, image pixels, of the (H, W, 3) image."""
        raise NotImplementedError(f"{type(self).__name__}.pooled")

    def last(self, pooled: Float32) -> Float32:
        """Last features (R, D) of pooled ones (R, P)."""
        found = np.empty((len(pooled), self.dim), np.float32)
        blob = self.net.blobs[self.blob]
        for at in range(0, len(pooled), ROWS):
            rows = pooled[at : at + ROWS]
            blob.reshape(len(rows), *blob.shape[1:])
            blob.data[...] = rows.reshape(blob.shape)
            output = self.net.forward(start=self._first_inner)[self.net.outputs[0]]
            found[at : at + len(rows)] = output.reshape(len(rows), -1)
        return found

    def settings(self) -> str:
        """What pooled features depend on besides the net, the images and the regions."""
        raise NotImplementedError(f"{type(self).__name__}.settings")

    def pooled_hash(self) -> str:
        """A hash of all that the pooled features depend on, save images and regions."""
        return self._hash(self.net.layer_index(self._first_inner))

    def last_hash(self) -> str:
        """The same for the last features."""
        return self._hash(len(self.net.layers))

    def _hash(self, stop: int) -> str:
        digest = hashlib.sha256(self.settings().encode())
        for layer in self.net.layers[:stop]:
            digest.update(str(layer.param).encode())
            for blob in layer.blobs:
                digest.update(np.ascontiguousarray(self.net.device.to_host(blob.data)).tobytes())
        return digest.hexdigest()

    def _run(self, **inputs: Float32) -> Float32:
        """The pooled features of these inputs, as (n, P); a view, which the next forward overwrites."""
        for name, values in inputs.items():
            self.net.blobs[name].reshape(*values.shape)
        self.net.forward(end=self._last_pooling, **inputs)
        pooled: Float32 = self.net.blobs[self.blob].data
        return pooled.reshape(len(pooled), -1)


class WindowFeatures(RegionFeatures):
    """Features of windows warped as a WindowData layer warps them, ``batch`` windows at a time.

    ``windows`` is the LayerParameter of that layer: crop_size, mean_value, context_pad, crop_mode, scale.
    ``net`` has the input ``data`` (n, 3, s, s).
    """

    def __init__(self, net: Any, windows: Any, batch: int = 64) -> None:
        super().__init__(net)
        transform, param = windows.transform_param, windows.window_data_param
        if transform.HasField("mean_file"):
            raise NetError(f"layer {windows.name!r}: mean_file: give mean_value, which suits windows of any size")
        size = transform.crop_size
        expected = (3, size, size)
        if net.inputs != ["data"] or net.blobs["data"].shape[1:] != expected:
            shapes = {name: net.blobs[name].shape for name in net.inputs}
            raise NetError(f"net {net.name!r} has inputs {shapes}; expected data (n, {', '.join(map(str, expected))})")
        self._size, self._batch = size, batch
        self._context, self._square = param.context_pad, param.crop_mode == "square"
        self._mean = np.array(transform.mean_value or [0], np.float32).reshape(-1, 1, 1)
        self._scale = np.float32(param.scale)

    def settings(self) -> str:
        return repr(("warped windows", self._size, self._context, self._square, self._mean.tolist(), self._scale))

    def warp(self, im: NDArray[np.uint8], boxes: NDArray[Any]) -> Float32:
        """(R, 3, s, s): what WindowData makes of these windows, not mirrored."""
        data = np.zeros((len(boxes), 3, self._size, self._size), np.float32)
        for out, box in zip(data, boxes, strict=True):
            warp_window(out, im, box, self._context, self._square, False, self._mean, self._scale)
        return data

    def pooled(self, im: NDArray[np.uint8], boxes: NDArray[Any]) -> Float32:
        found = np.empty((len(boxes), self.pooled_dim), np.float32)
        for at in range(0, len(boxes), self._batch):
            part = boxes[at : at + self._batch]
            found[at : at + len(part)] = self._run(data=self.warp(im, part))
        return found
