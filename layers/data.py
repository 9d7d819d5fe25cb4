"""Data: batches out of an LMDB or LevelDB of Datum messages.

Behaves as Caffe's DataLayer. N = batch_size of data_param, C x h x w what transform_param makes of an image:
    top[0]  data    (N, C, h, w)
    top[1]  labels  (N,), if there is a second top
Records come in the order of their keys, and again from the first after the last. Each batch has the shape of its
first image, so images may differ in size only if they are cropped to one, or with batch_size 1. data_param.prefetch
batches are read ahead (see caffe_lite.data.prefetch); 0 reads each as it is needed. There is no gradient.

As in Caffe 1.0 rand_skip does nothing; a warning says so. Differs from it: force_encoded_color, which Caffe 1.0
does not look at any more, decodes to colour as transform_param.force_color does.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from caffe_lite.data.databases import BACKENDS, Records, show_key
from caffe_lite.data.prefetch import Batch, BatchReader, PrefetchingLayer, generator_state, set_generator_state
from caffe_lite.data.transformer import Transformer, datum_to_array, parse_datum
from caffe_lite.layer import Blobs
from caffe_lite.registry import register_layer

log = logging.getLogger("caffe_lite")


@register_layer("Data")
class Data(PrefetchingLayer):
    min_tops, max_tops = 1, 2

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.data_param
        self.check(p.batch_size > 0, "batch_size must be > 0: give it in data_param")
        if p.rand_skip:
            log.warning(self.explain("rand_skip of data_param is not used, as in Caffe 1.0"))
        transformer = Transformer(self.param.transform_param, self.phase, self.device.rng)
        if p.force_encoded_color and transformer.color is None:
            transformer.color = True
        records = Records(p.source, BACKENDS[p.backend])
        reader = DatumReader(records, transformer, p.batch_size, len(top))
        shapes = reader.shapes(*reader.peek())
        for blob, shape in zip(top, shapes, strict=True):
            blob.reshape(shape)
        self.start(reader, p.prefetch)


class DatumReader(BatchReader):
    """Batches of ``tops`` arrays out of ``records``."""

    def __init__(self, records: Records, transformer: Transformer, batch_size: int, tops: int) -> None:
        self.records = records
        self.transformer = transformer
        self.batch_size = batch_size
        self.tops = tops

    def fill(self, batch: Batch) -> None:
        arrays = []
        for i in range(self.batch_size):
            image, label, where = self._decode(*self.records.read())
            if i == 0:
                arrays = batch.reshape(*self.shapes(image, where))
            self.transformer(image, arrays[0][i], where)
            if self.tops == 2:
                arrays[1][i] = label
            batch.images.append(where)

    def peek(self) -> tuple[np.ndarray, str]:
        """(image (C, H, W), where) of the next record, which stays the next."""
        key = self.records.key
        image, _, where = self._decode(*self.records.read())
        self.records.seek(key)
        return image, where

    def shapes(self, image: np.ndarray, where: str) -> list[tuple[int, ...]]:
        """The shapes of the batch that begins with ``image``."""
        n = self.batch_size
        return [(n, *self.transformer.shape_of(image.shape, where)), (n,)][: self.tops]

    def _decode(self, key: bytes, value: bytes) -> tuple[np.ndarray, int, str]:
        where = f"{self.records.path}: record {show_key(key)}"
        datum = parse_datum(value, where)
        return datum_to_array(datum, self.transformer.color, where), datum.label, where

    def place(self) -> dict[str, Any]:
        return {"key": self.records.key.decode("latin-1"), "random": generator_state(self.transformer.rng)}

    def go_to(self, place: dict[str, Any]) -> None:
        self.records.seek(place["key"].encode("latin-1"))
        set_generator_state(self.transformer.rng, place["random"])
