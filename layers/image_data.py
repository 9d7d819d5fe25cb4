"""ImageData: batches out of image files that a text file lists.

Behaves as Caffe's ImageDataLayer. N = batch_size of image_data_param, C = 3 (B, G, R) or, with is_color: false, 1:
    top[0]  data    (N, C, h, w)  h x w what transform_param makes of an image
    top[1]  labels  (N,)
source has ``path label`` on each line, the label after the last space; root_folder goes before each path as it is, so
end it with a slash. Images are scaled to new_height x new_width if these are given. Each batch has the shape of its
first image. The list begins again after its end, in a new order each time if shuffle; the first pass begins at a
random one of the first rand_skip images. data_param.prefetch batches are read ahead (see caffe_lite.data.prefetch).
There is no gradient.

Drawn from the process's stream when the net is built, in this order: the seed of the transformer, the seed of the
orders (if shuffle), the first image (if rand_skip).

Differs from Caffe: a label that is no whole number is an error rather than 0, and blanks at the end of a line do not
matter; EXIF orientations and truncated files as caffe_lite.data.transformer says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe_lite.data.image_list import read_image_list
from caffe_lite.data.prefetch import (
    Batch,
    BatchReader,
    PrefetchingLayer,
    generator_from,
    generator_state,
    set_generator_state,
)
from caffe_lite.data.transformer import Transformer, planes_of, read_image
from caffe_lite.errors import DataError
from caffe_lite.layer import Blobs
from caffe_lite.registry import register_layer


@register_layer("ImageData")
class ImageData(PrefetchingLayer):
    exact_tops = 2

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.image_data_param
        self.check(p.batch_size > 0, f"batch_size must be > 0, got {p.batch_size}")
        both = (p.new_height > 0) == (p.new_width > 0)
        self.check(both, f"give both new_height and new_width, or neither; got {p.new_height} and {p.new_width}")
        transformer = Transformer(self.param.transform_param, self.phase, self.device.rng)
        images = read_image_list(p.source)
        orders = generator_from(self.device.rng) if p.shuffle else None
        skip = int(self.device.rng.integers(p.rand_skip)) if p.rand_skip else 0
        self.check(skip < len(images), f"rand_skip skips {skip} of {len(images)} images: there are not enough")
        reader = ImageListReader(p, images, transformer, orders, skip)
        shape = transformer.shape_of(*reader.peek())
        top[0].reshape(p.batch_size, *shape)
        top[1].reshape(p.batch_size)
        self.start(reader, self.param.data_param.prefetch)


class ImageListReader(BatchReader):
    """Batches of ``images``, (path, label) pairs, from number ``first`` of the first pass on."""

    def __init__(
        self, param: Any, images: list[tuple[str, int]], transformer: Transformer,
        orders: np.random.Generator | None, first: int,
    ) -> None:  # fmt: skip
        self.images = images
        self.folder = param.root_folder
        self.color = param.is_color
        self.size = (param.new_height, param.new_width) if param.new_height else None
        self.batch_size = param.batch_size
        self.transformer = transformer
        self.orders = orders
        self._begin()
        self.at = first

    def _begin(self) -> None:
        """Begin a pass: draw its order."""
        self.order_drawn_from = generator_state(self.orders)
        self.order = None if self.orders is None else self.orders.permutation(len(self.images))
        self.at = 0

    def _next(self) -> tuple[str, int]:
        """(path, label) of the next image, which stays the next."""
        path, label = self.images[self.at if self.order is None else self.order[self.at]]
        return self.folder + path, label

    def _read(self, path: str) -> np.ndarray:
        return planes_of(read_image(path, self.color, self.size))

    def peek(self) -> tuple[tuple[int, ...], str]:
        """(shape (C, H, W), where) of the next image, which stays the next."""
        path, _ = self._next()
        return self._read(path).shape, path

    def fill(self, batch: Batch) -> None:
        data, labels = np.empty(0), np.empty(0)
        for i in range(self.batch_size):
            path, label = self._next()
            image = self._read(path)
            if i == 0:
                n = self.batch_size
                data, labels = batch.reshape((n, *self.transformer.shape_of(image.shape, path)), (n,))
            self.transformer(image, data[i], path)
            labels[i] = label
            batch.images.append(path)
            self.at += 1
            if self.at == len(self.images):
                self._begin()

    def place(self) -> dict[str, Any]:
        return {
            "images": len(self.images),
            "at": self.at,
            "order": self.order_drawn_from,
            "random": generator_state(self.transformer.rng),
        }

    def go_to(self, place: dict[str, Any]) -> None:
        if place["images"] != len(self.images) or not 0 <= place["at"] < len(self.images):
            raise DataError(f"it is of a list of {place['images']} images, this one has {len(self.images)}")
        set_generator_state(self.transformer.rng, place["random"])
        set_generator_state(self.orders, place["order"])
        self._begin()
        self.at = place["at"]
