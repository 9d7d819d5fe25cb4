"""RoIDataLayer: the Python layer that feeds a Fast R-CNN training net.

    layer { name: "data" type: "Python" top: "data" top: "rois" top: "labels"
            top: "bbox_targets" top: "bbox_loss_weights"
            python_param { module: "roi_data_layer.layer" layer: "RoIDataLayer" param_str: "'num_classes': 21" } }

Tops in this order, the last two only with cfg.TRAIN.BBOX_REG (N images, R RoIs, K classes):
    data (N, 3, H, W)   rois (R, 5)   labels (R,)   bbox_targets (R, 4K)   bbox_loss_weights (R, 4K)
``set_roidb`` gives it the images before the first forward. Each epoch is a permutation of the roidb
drawn from numpy's legacy global generator; as in the original its last one or two images are
skipped, because a new epoch begins when none would remain after the next minibatch.

With cfg.TRAIN.USE_PREFETCH a thread reads the images of the next minibatch meanwhile. Minibatches
are the same with and without it, since only the layer draws and reads nothing back from the thread;
the draws merely happen one minibatch earlier. (The original prefetched in a process with a generator
of its own, so its minibatches changed.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe_lite.data.config import ConfigError, cfg
from caffe_lite.data.prefetch import ReadAhead
from caffe_lite.data.roi_data_layer.minibatch import Sample, build_minibatch, draw_minibatch
from caffe_lite.errors import DataError, did_you_mean
from caffe_lite.layer import Blobs, Flags, Layer


class RoIDataLayer(Layer):
    """See the module. ``minibatch_images``: the image files of the minibatch now in the tops."""

    exact_bottoms = 0
    min_tops, max_tops = 3, 5

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self._num_classes = read_num_classes(self.param_str)  # type: ignore[attr-defined]
        columns = 4 * self._num_classes
        shapes = {"data": (1, 3, 100, 100), "rois": (1, 5), "labels": (1,)}
        if cfg.TRAIN.BBOX_REG:
            shapes |= {"bbox_targets": (1, columns), "bbox_loss_weights": (1, columns)}
        self.check(
            len(top) == len(shapes),
            f"needs {len(shapes)} tops with TRAIN.BBOX_REG {cfg.TRAIN.BBOX_REG} ({', '.join(shapes)}), got {len(top)}",
        )
        self.name_to_top_map = {name: index for index, name in enumerate(shapes)}
        for blob, shape in zip(top, shapes.values(), strict=True):
            blob.reshape(*shape)
        self.minibatch_images: list[str] = []
        self._roidb: Sequence[Any] = []
        self._perm: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._cur = 0
        self._reader: ReadAhead[dict[str, NDArray[np.float32]]] | None = None
        self._next: tuple[list[Sample], dict[str, Any]] | None = None  # what the thread reads, the place before it

    def set_roidb(self, roidb: Sequence[Any]) -> None:
        """Train on these prepared entries from now on; draws the first permutation.

        Raises DataError if there is none or its classes are not num_classes, ConfigError if
        TRAIN.BATCH_SIZE is not a multiple of TRAIN.IMS_PER_BATCH.
        """
        if not roidb:
            raise DataError(f"layer {self.name!r}: the roidb is empty: there is no image to train on")
        overlaps = roidb[0].get("gt_overlaps")
        if overlaps is not None and overlaps.shape[1] != self._num_classes:
            raise DataError(
                f"layer {self.name!r}: param_str says num_classes {self._num_classes}, but the roidb has "
                f"{overlaps.shape[1]} classes (background included): make them agree"
            )
        if cfg.TRAIN.IMS_PER_BATCH <= 0 or cfg.TRAIN.BATCH_SIZE % cfg.TRAIN.IMS_PER_BATCH:
            raise ConfigError(
                f"TRAIN.BATCH_SIZE {cfg.TRAIN.BATCH_SIZE} must be a multiple of TRAIN.IMS_PER_BATCH "
                f"{cfg.TRAIN.IMS_PER_BATCH}, which must be positive"
            )
        self.close()
        self._roidb = roidb
        self._shuffle()

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Nothing: forward gives the tops their shapes."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if not self._roidb:
            raise DataError(f"layer {self.name!r}: has no images: call set_roidb(roidb) before the first forward")
        samples, blobs = self._take()
        self.minibatch_images = [sample.image for sample in samples]
        if cfg.TRAIN.USE_PREFETCH:
            self._read_ahead()
        for name, index in self.name_to_top_map.items():
            top[index].reshape(*blobs[name].shape)
            top[index].data[...] = blobs[name]

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        """Nothing: there is no bottom."""

    def state(self) -> dict[str, Any]:
        """What the next forward depends on, made of numbers, texts and lists: for an exact resume.

        perm and cur (place in the epoch), random (numpy's legacy global generator). A minibatch that
        has been read ahead counts as not yet drawn.
        """
        return self._next[1] if self._next is not None else self._place()

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to ``state()``, after set_roidb with the same roidb; sets numpy's global generator too."""
        perm = np.asarray(state["perm"], dtype=np.int64)
        if not np.array_equal(np.sort(perm), np.arange(len(self._roidb))):
            raise DataError(
                f"layer {self.name!r}: the saved state is of a roidb of {perm.size} images, "
                f"this one has {len(self._roidb)}"
            )
        kind, keys, position, has_gauss, gauss = state["random"]
        self.close()
        self._perm, self._cur = perm, int(state["cur"])
        np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), position, has_gauss, gauss))

    def close(self) -> None:
        """Stop reading ahead. A minibatch that was drawn is forgotten."""
        if self._reader is not None:
            self._reader.close()
        self._reader, self._next = None, None

    def _take(self) -> tuple[list[Sample], dict[str, NDArray[np.float32]]]:
        if self._reader is None or self._next is None:
            samples = self._draw()
            return samples, build_minibatch(samples)
        samples, _ = self._next
        self._next = None
        try:
            return samples, self._reader.take()
        except BaseException:
            self.close()
            raise

    def _read_ahead(self) -> None:
        if self._reader is None:
            self._reader = ReadAhead("RoIDataLayer")
        place = self._place()
        samples = self._draw()
        self._reader.submit(build_minibatch, samples)
        self._next = samples, place

    def _draw(self) -> list[Sample]:
        if self._cur + cfg.TRAIN.IMS_PER_BATCH >= len(self._roidb):
            self._shuffle()
        rows = self._perm[self._cur : self._cur + cfg.TRAIN.IMS_PER_BATCH]
        self._cur += cfg.TRAIN.IMS_PER_BATCH
        return draw_minibatch([self._roidb[row] for row in rows], self._num_classes)

    def _shuffle(self) -> None:
        self._perm = np.random.permutation(len(self._roidb))
        self._cur = 0

    def _place(self) -> dict[str, Any]:
        kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
        random = [str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)]
        return {"perm": self._perm.tolist(), "cur": self._cur, "random": random}


def read_num_classes(param_str: str) -> int:
    """num_classes out of the YAML mapping ``param_str``."""
    import yaml

    example = "write param_str: \"'num_classes': 21\" (background included)"
    try:
        given = yaml.safe_load(param_str)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"param_str {param_str!r} is not YAML ({error}); {example}") from error
    if not isinstance(given, dict) or "num_classes" not in given:
        near = did_you_mean("num_classes", map(str, given)) if isinstance(given, dict) else ""
        hint = f" ({near.removeprefix('; did you mean ').rstrip('?')} looks like it)" if near else ""
        raise ConfigError(f"param_str {param_str!r} has no num_classes{hint}; {example}")
    classes = given["num_classes"]
    if type(classes) is not int or classes < 2:
        raise ConfigError(f"param_str: num_classes must be a whole number >= 2, got {classes!r}; {example}")
    return classes
