"""Unions of datasets for training: ``voc_2007_trainval+voc_2012_trainval`` (the paper's 07+12)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from caffe_lite.data.imdb import Imdb, Roidb
from caffe_lite.data.proposal_methods import Options
from caffe_lite.errors import DataError


class UnionImdb(Imdb):
    """The images of several imdbs, one after the other; for training only.

    Proposals, annotations and caches stay those of the parts. ``config`` is empty: what is set in it
    overrides the config of every part when the roidb is made.

    Raises DataError if a part is given twice, or the parts' classes differ in name or order.
    """

    def __init__(self, parts: Sequence[Imdb]) -> None:
        self.parts = tuple(parts)
        names = [part.name for part in self.parts]
        name = "+".join(names)
        for part in self.parts[1:]:
            if part.classes != self.parts[0].classes:
                raise DataError(f"{name}: the classes must agree: {_difference(self.parts[0], part)}")
        if len(set(names)) != len(names):
            raise DataError(f"{name}: a part stands there twice")
        super().__init__(name, self.parts[0].classes, [index for part in self.parts for index in part.image_index])
        self._origin = [(part, i) for part in self.parts for i in range(part.num_images)]
        self.config: dict[str, Any] = {}
        self.cache_folder = self.parts[0].cache_folder  # files are named by content: any folder serves all parts
        self.roidb_handler = self.union_roidb

    @property
    def has_gt(self) -> bool:
        """True if every part has ground truth."""
        return all(part.has_gt for part in self.parts)

    def image_path_at(self, i: int) -> str:
        """Path of image i."""
        part, own = self._origin[i % len(self._origin)]  # the mirrored half has the same files
        return part.image_path_at(own)

    def image_size_at(self, i: int) -> tuple[int, int]:
        """(width, height) of image i in pixels."""
        part, own = self._origin[i % len(self._origin)]
        return part.image_size_at(own)

    def gt_roidb(self) -> Roidb:
        """The ground truth of the parts, one after the other."""
        self._configure()
        return [entry for part in self.parts for entry in part.gt_roidb()]

    def union_roidb(self) -> Roidb:
        """The roidbs of the parts, one after the other."""
        self._configure()
        return [entry for part in self.parts for entry in part.roidb]

    def set_proposals(self, method: str, options: Options | None = None) -> None:
        """As :meth:`Imdb.set_proposals`, for every part; each keeps its own cache unless options say otherwise."""
        for part in self.parts:
            part.set_proposals(method, options)
        self._roidb = None

    def check_testable(self) -> NoReturn:
        """A union cannot be tested: DataError."""
        raise DataError(
            f"{self.name}: a union is for training; results files and metric belong to one year and set: "
            f"test on {' and on '.join(part.name for part in self.parts)} separately"
        )

    def evaluate_detections(self, all_boxes: Sequence[Sequence[Any]], output_dir: str | None = None) -> NoReturn:
        """Refused, as by :meth:`check_testable`."""
        self.check_testable()

    def _configure(self) -> None:
        for part in self.parts:
            part.config.update(self.config)


def _difference(a: Imdb, b: Imdb) -> str:
    for i, (mine, other) in enumerate(zip(a.classes, b.classes, strict=False)):
        if mine != other:
            return f"class {i} is {mine!r} in {a.name}, {other!r} in {b.name}"
    return f"{a.name} has {a.num_classes} (background included), {b.name} {b.num_classes}"
