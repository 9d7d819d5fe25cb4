"""Pictures of what a net has learnt and of what it computes: filters and activations, tiled."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from caffe_lite.atomic import atomic_write
from caffe_lite.errors import NetError


def tiles(images: np.ndarray, gap: int = 1) -> np.ndarray:
    """Images (n, h, w) or (n, h, w, 3), side by side on a square grid with white gaps.

    Returns: (rows * (h + gap) - gap, columns * (w + gap) - gap[, 3]), scaled as one to [0, 1].
    """
    images = np.asarray(images, dtype=np.float64)
    low, high = images.min(), images.max()
    images = (images - low) / (high - low) if high > low else np.zeros_like(images)
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    h, w = images.shape[1:3]
    grid = np.ones((rows * (h + gap) - gap, columns * (w + gap) - gap, *images.shape[3:]))
    for k, image in enumerate(images):
        y, x = k // columns * (h + gap), k % columns * (w + gap)
        grid[y : y + h, x : x + w] = image
    return grid


def filters(net: Any, layer: str, limit: int = 400) -> np.ndarray:
    """The filters of ``layer`` as one picture: in colour if they have three channels, else each channel grey.

    Blue, green, red weights are shown as such. At most ``limit`` tiles.

    Raises:
        NetError: the net has no such layer, or its weights are not (outputs, channels, height, width).
    """
    net.layer_index(layer)
    weights: np.ndarray = np.asarray(net.params[layer][0].data) if layer in net.params else np.empty(0)
    if weights.ndim != 4:
        have = [name for name, blobs in net.params.items() if len(blobs[0].shape) == 4]
        raise NetError(
            f"layer {layer!r} has no filters: its weights have shape {weights.shape}; layers with filters: "
            f"{', '.join(have) or 'none'}"
        )
    if weights.shape[1] == 3:
        return tiles(weights[:limit].transpose(0, 2, 3, 1)[..., ::-1])
    return tiles(weights.reshape(-1, *weights.shape[2:])[:limit])


def activations(net: Any, blob: str, item: int = 0, limit: int = 400) -> np.ndarray:
    """The channels of one item of ``blob`` (N, C, H, W) as one picture; at most ``limit`` of them.

    Raises:
        NetError: the net has no such blob, or it is not of four axes.
    """
    net.check_blob_names([blob])
    values = np.asarray(net.blobs[blob].data)
    if values.ndim != 4 or not -len(values) <= item < len(values):
        raise NetError(f"blob {blob!r} of shape {values.shape} has no channels of item {item} to show")
    return tiles(values[item][:limit])


def save_picture(path: str | os.PathLike[str], picture: np.ndarray, title: str) -> None:
    """Write a picture of :func:`tiles` with a title, enlarged so that its pixels can be seen."""
    from matplotlib.figure import Figure

    height, width = picture.shape[:2]
    inches = max(3.0, min(12.0, 3.0 * max(height, width) / 64))
    figure = Figure(figsize=(inches * width / max(height, width), inches * height / max(height, width) + 0.4))
    axes = figure.add_axes((0, 0, 1, 1 - 0.4 / figure.get_figheight()))
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    axes.set_axis_off()
    figure.suptitle(title, y=1 - 0.1 / figure.get_figheight(), va="top", fontsize=10)
    with atomic_write(path, "wb") as stream:
        figure.savefig(stream, format=os.path.splitext(os.fspath(path))[1].lstrip(".") or "png", dpi=150)
