"""WindowData: batches of boxes cut out of images and warped to squares, as R-CNN was fine-tuned.

Behaves as Caffe's WindowDataLayer. N = batch_size of window_data_param, s = crop_size of transform_param (> 0):
    top[0]  data    (N, 3, s, s)  B, G, R
    top[1]  labels  (N,)          0 is background
source is a window file (see caffe_lite.data.window_file); root_folder goes before each of its paths as it is. A batch
has N - int(N * fg_fraction) background windows (overlap < bg_threshold), then int(N * fg_fraction) foreground ones
(overlap >= fg_threshold), each drawn at random from all, with a random mirror if transform_param.mirror, in TEST too.
The box is stretched to s x s; crop_mode: "square" enlarges it to a square first, context_pad keeps that many warped
pixels of its surroundings on each side; what lies outside the image is zero. The pixels become
    (pixel - mean) * scale
with mean_value, or the mean_file cropped at (mean's width - s) / 2 in both directions and not mirrored, and scale from
window_data_param: transform_param.scale is not used, as in Caffe, and a warning says so. data_param.prefetch batches
are read ahead (see caffe_lite.data.prefetch). There is no gradient.

For each window it draws, in this order: its number, the mirror (if set), from a generator seeded by one draw from the
process's stream when the net is built.

Differs from Caffe: a path may contain spaces, and a window belongs to the image under which it stands, whatever the
index there; files kept by cache_images are read when first needed; what read foreign memory in Caffe (a mean smaller
than the crop, no window of a kind, an index out of range) is an error.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from caffe_lite.data.prefetch import (
    Batch,
    BatchReader,
    PrefetchingLayer,
    generator_from,
    generator_state,
    set_generator_state,
)
from caffe_lite.data.transformer import decode_image, read_file, read_mean_image
from caffe_lite.data.window_file import WindowFile, read_window_file, warp_window
from caffe_lite.errors import DataError
from caffe_lite.layer import Blobs
from caffe_lite.registry import register_layer

log = logging.getLogger("caffe_lite")


@register_layer("WindowData")
class WindowData(PrefetchingLayer):
    exact_tops = 2

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p, transform = self.param.window_data_param, self.param.transform_param
        size = transform.crop_size
        self.check(p.batch_size > 0, "batch_size must be > 0: give it in window_data_param")
        self.check(size > 0, "crop_size must be > 0: give it in transform_param")
        modes = f'crop_mode is "warp" or "square", got {p.crop_mode!r}'
        self.check(p.crop_mode in ("warp", "square"), modes)
        self.check(2 * p.context_pad < size, f"context_pad {p.context_pad} leaves nothing of crop_size {size}")
        self.check(0 <= p.fg_fraction <= 1, f"fg_fraction must be in [0, 1], got {p.fg_fraction}")
        if transform.scale != 1:
            log.warning(self.explain("transform_param.scale is not used, as in Caffe: give window_data_param.scale"))
        windows = read_window_file(p.source, p.fg_threshold, p.bg_threshold)
        mean = self._mean(transform, size)
        reader = WindowReader(p, transform, windows, mean, generator_from(self.device.rng))
        top[0].reshape(p.batch_size, windows.channels, size, size)
        top[1].reshape(p.batch_size)
        self.start(reader, self.param.data_param.prefetch)

    def _mean(self, transform: Any, size: int) -> np.ndarray:
        """What is subtracted, of a shape that goes with (3, size, size)."""
        values = np.array(transform.mean_value, dtype=np.float32)
        both = transform.HasField("mean_file") and values.size
        self.check(not both, "transform_param: give mean_file or mean_value, not both")
        self.check(values.size in (0, 1, 3), f"{values.size} mean_value for 3 channels: give one, or one for each")
        if not transform.HasField("mean_file"):
            return values.reshape(-1, 1, 1) if values.size else np.zeros((1, 1, 1), dtype=np.float32)
        mean = read_mean_image(transform.mean_file)
        channels, height, width = mean.shape
        offset = (width - size) // 2
        if channels != 3 or offset < 0 or offset + size > height:
            raise DataError(
                f"mean_file {transform.mean_file}: has shape {mean.shape}; cropped at {offset}, {offset} to crop_size "
                f"{size} it must have 3 channels of at least that size"
            )
        return mean[:, offset : offset + size, offset : offset + size]


class WindowReader(BatchReader):
    """Batches of windows drawn from a WindowFile."""

    def __init__(
        self, param: Any, transform: Any, windows: WindowFile, mean: np.ndarray, rng: np.random.Generator
    ) -> None:
        self.param = param
        self.source = param.source
        self.size, self.mirror = transform.crop_size, transform.mirror
        self.windows = windows
        self.mean = mean
        self.rng = rng
        self.files: dict[str, bytes] = {}  # with cache_images
        n = param.batch_size
        fg = int(np.float32(n) * np.float32(param.fg_fraction))
        self.kinds = [("background", windows.background, n - fg), ("foreground", windows.foreground, fg)]
        for kind, rows, count in self.kinds:
            if count and not len(rows):
                raise DataError(f"{param.source}: a batch needs {count} {kind} window(s), the file has none")

    def fill(self, batch: Batch) -> None:
        n, size = self.param.batch_size, self.size
        data, labels = batch.reshape((n, 3, size, size), (n,))
        data[...] = 0
        scale = np.float32(self.param.scale)
        item = 0
        for _, rows, count in self.kinds:
            for _ in range(count):
                row = rows[int(self.rng.integers(len(rows)))]
                mirror = self.mirror and bool(self.rng.integers(2))
                self._warp(data[item], row, mirror, scale)
                labels[item] = row[1]
                batch.images.append(self.param.root_folder + self.windows.images[row[0]])
                item += 1

    def _warp(self, out: np.ndarray, row: np.ndarray, mirror: bool, scale: np.float32) -> None:
        """Warp a row (image, label, x1, y1, x2, y2) of the window file into ``out`` (3, s, s)."""
        path = self.param.root_folder + self.windows.images[row[0]]
        image = decode_image(self._content(path), True, path)
        square = self.param.crop_mode == "square"
        try:
            warp_window(out, image, row[2:], self.param.context_pad, square, mirror, self.mean, scale)
        except DataError as error:
            raise DataError(f"{path}: {error} (in {self.source})") from None

    def _content(self, path: str) -> bytes:
        content = self.files.get(path)
        if content is None:
            content = read_file(path)
            if self.param.cache_images:
                self.files[path] = content
        return content

    def place(self) -> dict[str, Any]:
        return {"windows": [len(rows) for _, rows, _ in self.kinds], "random": generator_state(self.rng)}

    def go_to(self, place: dict[str, Any]) -> None:
        here = [len(rows) for _, rows, _ in self.kinds]
        if place["windows"] != here:
            raise DataError(f"it is of {place['windows']} background and foreground windows, the file has {here}")
        set_generator_state(self.rng, place["random"])
