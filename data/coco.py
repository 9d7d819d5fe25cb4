"""MS COCO detection: json annotations, 80 classes and the background, crowds, results and AP.

    coco/                                       in the dataset folder (--data or CAFFE_LITE_DATA)
        annotations/instances_train2014.json    or instances_{val,minival,valminusminival}2014.json
        annotations/image_info_test2015.json    or image_info_test-dev2015.json: without annotations
        images/{train2014,val2014,test2015}/    named as the json says; minival and
                                                valminusminival are parts of val2014

COCO's category ids have gaps: class k of K is the k-th smallest id. A box x, y, w, h becomes
x, y, x + w - 1, y + h - 1, clipped to the image and cut to whole pixels; objects without area are left
out. A crowd stands in the ground truth with overlap -1 with all classes: it is neither an example nor
counted by recall, and a proposal that lies within crowds by more than 0.7 of its area gets -1 too, so
that it is no background either. Rules of Fast R-CNN's ``coco`` branch.

Needs pycocotools: ``pip install 'caffe-lite[coco]'``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from caffe_lite.atomic import atomic_write
from caffe_lite.data.coco_eval import average_precisions, require_pycocotools
from caffe_lite.data.imdb import Imdb, Roidb
from caffe_lite.data.pascal_voc import data_root
from caffe_lite.data.proposal_methods import Options, propose
from caffe_lite.data.voc_eval import mean_ap
from caffe_lite.errors import DataError

CROWD_SHARE = 0.7
_IMAGES = {"minival": "val", "valminusminival": "val", "test-dev": "test"}  # sets that are part of another


class Coco(Imdb):
    """One set of one year, ``Coco('train', 2014)``.

    config, besides the base's: ``top_k``, proposals an image (2,000); ``min_size``, the smallest side
    of a proposal in pixels (2).

    Raises DataError if pycocotools, the json file or a part of it is missing.
    """

    def __init__(self, image_set: str, year: str | int, data: str | os.PathLike[str] | None = None) -> None:
        require_pycocotools()
        self.year, self.image_set = str(year), image_set
        self.root = data_root(data)
        kind = "image_info" if image_set.startswith("test") else "instances"
        self.coco_path = os.path.join(self.root, "coco")
        self.annotation_file = os.path.join(self.coco_path, "annotations", f"{kind}_{image_set}{self.year}.json")
        self.dataset = _read_dataset(self.annotation_file)
        categories = sorted(self.dataset["categories"], key=lambda c: c["id"])
        self.category_ids = [c["id"] for c in categories]
        self.images = self.dataset["images"]
        super().__init__(
            f"coco_{self.year}_{image_set}",
            ["__background__", *(c["name"] for c in categories)],
            [str(image["id"]) for image in self.images],
        )
        self.cache_folder = os.path.join(self.root, "cache")
        self.config.update(top_k=2000, min_size=2)
        self.roidb_handler = self.proposal_roidb

    @property
    def has_gt(self) -> bool:
        return not self.image_set.startswith("test")

    def image_path_at(self, i: int) -> str:
        """Path of image i; DataError naming it if no such file exists."""
        name = self.images[i % len(self.images)]["file_name"]
        folder = f"{_IMAGES.get(self.image_set, self.image_set)}{self.year}"
        path = os.path.join(self.coco_path, "images", folder, name)
        if not os.path.isfile(path):
            raise DataError(f"{path}: no such image file; {self.annotation_file} lists it")
        return path

    def image_size_at(self, i: int) -> tuple[int, int]:
        """(width, height) of image i, as the json says."""
        image = self.images[i % len(self.images)]
        return image["width"], image["height"]

    def gt_roidb(self) -> Roidb:
        """The ground truth, one entry an image, crowds with overlap -1."""
        numbers = {category: k for k, category in enumerate(self.category_ids, start=1)}
        objects: dict[Any, list[Any]] = {image["id"]: [] for image in self.images}
        for annotation in self.dataset["annotations"]:
            where = f"{self.annotation_file}: annotation {annotation.get('id')!r}"
            if annotation.get("image_id") not in objects or annotation.get("category_id") not in numbers:
                raise DataError(
                    f"{where}: image_id {annotation.get('image_id')!r}, category_id {annotation.get('category_id')!r}:"
                    " no such image or category in the file"
                )
            objects[annotation["image_id"]].append((where, annotation))
        return [self._entry(objects[image["id"]], image, numbers) for image in self.images]

    def _entry(self, objects: Sequence[Any], image: dict[str, Any], numbers: dict[int, int]) -> dict[str, Any]:
        boxes, classes, crowds = [], [], []
        for where, annotation in objects:
            box = _corners(annotation, image, where)
            if box is None:
                continue
            boxes.append(box)
            classes.append(numbers[annotation["category_id"]])
            crowds.append(bool(annotation.get("iscrowd", 0)))
        overlaps = np.zeros((len(boxes), self.num_classes), np.float32)
        overlaps[np.arange(len(boxes)), classes] = 1.0
        overlaps[np.flatnonzero(crowds)] = -1.0
        return {
            "boxes": np.array(boxes, np.uint16).reshape(-1, 4),
            "gt_classes": np.array(classes, np.int32),
            "gt_overlaps": scipy.sparse.csr_matrix(overlaps),
            "flipped": False,
        }

    def proposal_roidb(self) -> Roidb:
        """Ground truth and selective search's best ``config['top_k']`` boxes of each image."""
        gt = self.gt_roidb() if self.has_gt else None
        paths = [self.image_path_at(i) for i in range(self.num_images)]
        return self.with_gt(gt, propose(f"ss:{self.config['top_k']}", paths, Options(self.cache_folder)))

    def with_gt(self, gt: Roidb | None, boxes: Sequence[np.ndarray]) -> Roidb:
        """As the base's, without proposals under ``config['min_size']``; those within crowds get overlap -1."""
        roidb = super().with_gt(gt, [_large_enough(of_image, int(self.config["min_size"])) for of_image in boxes])
        for entry in roidb:
            _mark_crowded(entry)
        return roidb

    def evaluate_detections(
        self, all_boxes: Sequence[Sequence[Any]], output_dir: str | None = None
    ) -> dict[str, float]:
        """COCO's AP of each class, over IoU 0.5:0.05:0.95, in [0, 1], by class name.

        all_boxes[class][image]: (D, 5) x1, y1, x2, y2, score. Writes
        detections_{set}{year}_results.json into ``output_dir``, by default coco/results, and prints the
        AP and the PASCAL-style one, at IoU 0.5 alone. Without annotations: the file only, ``{}``.
        """
        file, results = self.write_results(all_boxes, output_dir)
        if not self.has_gt:
            print(f"{self.name}: its annotations are not public, so there is no AP; results file: {file}")
            return {}
        found = average_precisions(self.dataset, results)
        names = self.classes[1:]
        aps, pascal = ({n: float(v) for n, v in zip(names, part, strict=True)} for part in (found.ap, found.ap50))
        print(_table(aps, pascal))
        return aps

    def write_results(
        self, all_boxes: Sequence[Sequence[Any]], output_dir: str | None = None
    ) -> tuple[str, list[dict[str, Any]]]:
        """Write the results file of COCO's evaluation server; its path and its content."""
        self.check_testable()
        if len(all_boxes) != self.num_classes or any(len(of) != self.num_images for of in all_boxes[1:]):
            raise DataError(
                f"{self.name}: expected detections of {self.num_classes} classes x {self.num_images} images, "
                f"got {len(all_boxes)} x {sorted({len(of) for of in all_boxes[1:]})}"
            )
        results = [
            row
            for category, of_class in zip(self.category_ids, all_boxes[1:], strict=True)
            for image, dets in zip(self.images, of_class, strict=True)
            for row in _result_rows(dets, image["id"], category)
        ]
        folder = output_dir or os.path.join(self.coco_path, "results")
        file = os.path.join(folder, f"detections_{self.image_set}{self.year}_results.json")
        try:
            os.makedirs(folder, exist_ok=True)
            with atomic_write(file, "w") as stream:
                json.dump(results, stream)
        except OSError as error:
            raise DataError(f"{folder}: cannot write the results file: {error.strerror or error}") from error
        return file, results


def _result_rows(dets: Any, image_id: int, category_id: int) -> list[dict[str, Any]]:
    rows = np.asarray(dets, dtype=np.float64).reshape(-1, 5)
    rows[:, 2:4] += 1 - rows[:, :2]
    return [
        {"image_id": image_id, "category_id": category_id, "bbox": row[:4], "score": row[4]} for row in rows.tolist()
    ]


def _corners(annotation: dict[str, Any], image: dict[str, Any], where: str) -> tuple[float, ...] | None:
    """x1, y1, x2, y2 within the image; None for an object without area."""
    given = annotation.get("bbox")
    try:
        x, y, w, h = (float(v) for v in given)  # type: ignore[union-attr]
        good = all(map(math.isfinite, (x, y, w, h)))
    except (TypeError, ValueError):
        good = False
    if not good:
        raise DataError(f"{where}: bbox must be four numbers x, y, width, height, got {given!r}")
    x1, y1 = max(0.0, x), max(0.0, y)
    x2 = min(image["width"] - 1.0, x1 + max(0.0, w - 1))
    y2 = min(image["height"] - 1.0, y1 + max(0.0, h - 1))
    if annotation.get("area", w * h) <= 0 or x2 < x1 or y2 < y1:
        return None
    return x1, y1, x2, y2


def _large_enough(boxes: np.ndarray, min_size: int) -> NDArray[np.uint16]:
    sides = boxes[:, 2:].astype(np.int64) - boxes[:, :2] + 1
    return boxes[(sides >= min_size).all(axis=1)]


def _mark_crowded(entry: dict[str, Any]) -> None:
    """Overlap -1 for the proposals that lie within one crowd by more than CROWD_SHARE of their area."""
    overlaps = entry["gt_overlaps"]
    crowds = np.flatnonzero((entry["gt_classes"] > 0) & (overlaps.min(axis=1).toarray().ravel() < 0))
    if not crowds.size:
        return
    boxes = entry["boxes"].astype(np.float64)
    first = np.maximum(boxes[:, np.newaxis, :2], boxes[crowds, :2])
    last = np.minimum(boxes[:, np.newaxis, 2:], boxes[crowds, 2:])
    inside = np.maximum(last - first + 1, 0).prod(axis=2)
    share = inside / (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)[:, np.newaxis]
    crowded = (share.max(axis=1) > CROWD_SHARE) & (entry["gt_classes"] == 0)
    dense = overlaps.toarray()
    dense[crowded] = -1.0
    entry["gt_overlaps"] = scipy.sparse.csr_matrix(dense)


def _table(aps: dict[str, float], pascal: dict[str, float]) -> str:
    """COCO's and PASCAL's AP of each class and their means, aligned, in percent."""
    title = "AP %"
    width = max(map(len, [*aps, title]))
    head = f"{title:<{width}}  0.5:0.95    0.5"
    rows = [f"{name:<{width}}  {100 * ap:8.1f}  {100 * pascal[name]:5.1f}" for name, ap in aps.items()]
    mean = f"{'mean':<{width}}  {100 * mean_ap(aps):8.1f}  {100 * mean_ap(pascal):5.1f}"
    return "\n".join([head, *rows, "-" * len(head), mean])


def _read_dataset(path: str) -> dict[str, Any]:
    """The json file, with its parts checked as far as the imdb relies on them."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; COCO's annotations belong there") from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}:{error.colno}: malformed or truncated JSON: {error.msg}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object with images, annotations and categories")
    content.setdefault("annotations", [])
    fields = {"images": ("id", "file_name", "width", "height"), "categories": ("id", "name"), "annotations": ()}
    for part, keys in fields.items():
        rows = content.get(part)
        if not isinstance(rows, list) or not all(isinstance(r, dict) and r.keys() >= set(keys) for r in rows):
            raise DataError(f"{path}: expected {part!r} to be a list of objects with {', '.join(keys) or 'an id'}")
        if keys and len({str(r["id"]) for r in rows}) != len(rows):
            raise DataError(f"{path}: two of the {part} have the same id")
    if not content["images"] or not content["categories"]:
        raise DataError(f"{path}: lists no {'image' if not content['images'] else 'category'}")
    for image in content["images"]:
        if image["file_name"] != os.path.basename(str(image["file_name"])):
            raise DataError(f"{path}: image {image['id']}: file_name must be a plain name, got {image['file_name']!r}")
        if not all(isinstance(image[side], int) and 0 < image[side] <= 65536 for side in ("width", "height")):
            raise DataError(f"{path}: image {image['id']}: width and height must be whole numbers from 1 to 65536")
    return content
