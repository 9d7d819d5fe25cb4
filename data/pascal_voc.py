"""PASCAL VOC, and any dataset laid out like it.

    VOCdevkit2007/VOC2007/                  (or VOCdevkit/VOC2007, or VOC2007)
        JPEGImages/000004.jpg               .jpg, .jpeg or .png
        Annotations/000004.xml
        ImageSets/Main/trainval.txt         one image name a line
        classes.txt                         not in the original: see below

The dataset folder is given by ``--data`` or the environment variable CAFFE_LITE_DATA
(:func:`data_root`) and searched by :func:`find_devkit`.

One's own dataset: lay it out so, as year 2007, and write the class names, one a line and without the
background, into ``classes.txt`` beside JPEGImages. Where that file is missing the classes are VOC's
twenty. The number of classes of a net is one more than the lines: the background is class 0.

Difficult objects are part of the training ground truth, as in the original, and do not count in the
evaluation. Proposals: the original's selective-search file where there is one, otherwise computed.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse

from caffe_lite.atomic import atomic_write
from caffe_lite.data import proposals
from caffe_lite.data.imdb import Imdb, Roidb
from caffe_lite.data.voc_annotation import Annotation, read_annotation
from caffe_lite.data.voc_curves import curve_path, write_curve
from caffe_lite.data.voc_eval import mean_ap, read_voc_results, voc_eval, write_voc_results
from caffe_lite.errors import DataError

ENVIRONMENT = "CAFFE_LITE_DATA"
YEARS = ("2007", "2008", "2009", "2010", "2011", "2012")
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_EXTENSIONS = (".jpg", ".jpeg", ".png")
_CACHE_VERSION = "gt 1"  # change it when the same annotations would give another roidb


def data_root(path: str | os.PathLike[str] | None = None) -> str:
    """The dataset folder: ``path`` (the flag ``--data``), else the environment's CAFFE_LITE_DATA.

    Raises DataError if neither is given, or the folder does not exist.
    """
    source = "--data" if path is not None else f"the environment variable {ENVIRONMENT}"
    root = os.fspath(path) if path is not None else os.environ.get(ENVIRONMENT, "")
    if not root:
        raise DataError(f"no dataset folder: give --data or set {ENVIRONMENT} to the folder that holds VOCdevkit2007")
    root = os.path.abspath(os.path.expanduser(root))
    if not os.path.isdir(root):
        raise DataError(f"{root}: no such folder (given by {source})")
    return root


def find_devkit(root: str, year: str) -> str:
    """The devkit of ``year``: the first of ROOT/VOCdevkit{year}, ROOT/VOCdevkit, ROOT that holds VOC{year}.

    Raises DataError listing what was tried.
    """
    tried = [os.path.join(root, f"VOCdevkit{year}"), os.path.join(root, "VOCdevkit"), root]
    for devkit in tried:
        if os.path.isdir(os.path.join(devkit, f"VOC{year}")):
            return devkit
    listed = "\n".join(f"  {os.path.join(devkit, 'VOC' + year)}" for devkit in tried)
    raise DataError(f"{root}: no PASCAL VOC {year} here; none of these folders exists:\n{listed}")


class PascalVoc(Imdb):
    """The images of one set of one year, ``PascalVoc('trainval', '2007')``.

    devkit_path: the folder that holds VOC{year}; by default searched in the dataset folder ``data``.
    cache_folder: by default ``cache`` in the dataset folder.

    config, besides the base's: ``selective_search``, arguments of
    :func:`caffe_lite.data.proposals.compute_proposals` (mode, top_k, base_k, ...); ``use_diff``,
    False leaves difficult objects out of the training ground truth, the paper's 07\\diff (the suffix
    ``_no_diff`` of :func:`caffe_lite.data.factory.get_imdb`); ``comp_id``, the competition that results
    files name: ``comp4``, trained with other data too (ImageNet), or ``comp3``, with VOC alone.
    """

    def __init__(
        self,
        image_set: str,
        year: str | int,
        devkit_path: str | os.PathLike[str] | None = None,
        data: str | os.PathLike[str] | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        name: str | None = None,
    ) -> None:
        self.year = str(year)
        if self.year not in YEARS:
            raise DataError(f"PASCAL VOC {self.year}: expected one of the years {', '.join(YEARS)}")
        self.image_set = image_set
        if devkit_path is not None:
            self.devkit_path = os.path.abspath(os.path.expanduser(os.fspath(devkit_path)))
            self.root = data_root(data) if data is not None else os.path.dirname(self.devkit_path)
        else:
            self.root = data_root(data)
            self.devkit_path = find_devkit(self.root, self.year)
        self.voc_path = os.path.join(self.devkit_path, f"VOC{self.year}")
        if not os.path.isdir(self.voc_path):
            raise DataError(f"{self.voc_path}: no such folder")
        folder = os.path.join(self.root, "cache") if cache_folder is None else os.fspath(cache_folder)
        classes = ("__background__", *_read_classes(self.voc_path))
        super().__init__(name or f"voc_{self.year}_{image_set}", classes, _read_image_set(self.voc_path, image_set))
        self.cache_folder = folder
        self._gt_file = os.path.join(folder, f"{self.name}_gt.npz")
        self.roidb_handler = self.selective_search_roidb
        self.config.update(use_diff=True, selective_search={}, comp_id="comp4")
        self._annotations: list[Annotation] | None = None

    @property
    def has_gt(self) -> bool:
        """False for the test sets after 2007, whose annotations are not public, unless they are there."""
        first = os.path.join(self.voc_path, "Annotations", f"{self.image_index[0]}.xml")
        return self.year == "2007" or self.image_set != "test" or os.path.exists(first)

    @property
    def use_07_metric(self) -> bool:
        """True if the year's AP is the 11-point one: up to 2009."""
        return int(self.year) < 2010

    def image_path_at(self, i: int) -> str:
        """Path of image i; DataError naming it if no such file exists."""
        stem = os.path.join(self.voc_path, "JPEGImages", self.image_index[i])
        for extension in _EXTENSIONS:
            if os.path.isfile(stem + extension):
                return stem + extension
        others = ", ".join(_EXTENSIONS[1:])
        raise DataError(f"{stem}{_EXTENSIONS[0]}: no such image file, nor with {others}; {self.name} lists it")

    def annotations(self) -> list[Annotation]:
        """The objects of each image, difficult ones included; from the cache if no file has changed.

        Raises DataError naming the image that is missing, or the annotation's file and line.
        """
        if self._annotations is None:
            names = list(dict.fromkeys(self.image_index))  # without the mirrored half
            sizes = [self.image_size_at(i) for i in range(len(names))]
            paths = [os.path.join(self.voc_path, "Annotations", f"{name}.xml") for name in names]
            key = self._annotation_key(paths, sizes)
            loaded = _load_annotations(self._gt_file, key, len(names))
            if loaded is None:
                numbers = {c: i for i, c in enumerate(self.classes) if i}
                loaded = [read_annotation(path, numbers, size) for path, size in zip(paths, sizes, strict=True)]
                _save_annotations(self._gt_file, key, loaded)
            self._annotations = loaded
        return self._annotations

    def gt_roidb(self) -> Roidb:
        """The ground truth, one entry an image: see :mod:`caffe_lite.data.imdb`."""
        roidb = []
        for boxes, classes, difficult in self.annotations():
            keep = np.ones(len(boxes), bool) if self.config["use_diff"] else ~difficult
            overlaps = np.zeros((int(keep.sum()), self.num_classes), np.float32)
            overlaps[np.arange(len(overlaps)), classes[keep]] = 1.0
            roidb.append(
                {
                    "boxes": boxes[keep],
                    "gt_classes": classes[keep],
                    "gt_overlaps": scipy.sparse.csr_matrix(overlaps),
                    "flipped": False,
                }
            )
        return roidb

    def selective_search_roidb(self) -> Roidb:
        """Ground truth and selective search's boxes; those alone where there is no ground truth.

        The boxes are those of DATA/selective_search_data/voc_{year}_{set}.mat if that file exists,
        and computed otherwise.
        """
        path = os.path.join(self.root, "selective_search_data", f"voc_{self.year}_{self.image_set}.mat")
        gt = self.gt_roidb() if self.has_gt else None  # its faults are told before the long computation
        if os.path.exists(path):
            return self.with_gt(gt, proposals.load_dataset_mat(path, self.image_index))
        return self.with_gt(gt, self._computed())

    def selective_search_ijcv_roidb(self) -> Roidb:
        """The same with the ``config['top_k']`` best boxes of each image.

        The boxes are those of DATA/selective_search_IJCV_data/voc_{year}/*.mat if that folder exists,
        and computed in the quality mode otherwise.
        """
        folder = os.path.join(self.root, "selective_search_IJCV_data", f"voc_{self.year}")
        top_k = int(self.config["top_k"])
        gt = self.gt_roidb() if self.has_gt else None
        if os.path.isdir(folder):
            files = [os.path.join(folder, f"{name}.mat") for name in self.image_index]
            return self.with_gt(gt, [proposals.load_ijcv_mat(file, top_k) for file in files])
        return self.with_gt(gt, self._computed(mode="quality", top_k=top_k))

    def evaluate_detections(
        self, all_boxes: Sequence[Sequence[Any]], output_dir: str | None = None
    ) -> dict[str, float]:
        """Average precision of each class in [0, 1], printed as a table and returned by class name.

        all_boxes[class][image]: (D, 5) x1, y1, x2, y2, score. 11-point AP up to 2009, the area under
        the curve from 2010 on, over the results files, whose scores have three decimals. Those are
        written as comp4[-PID]_det_{set}_{class}.txt into ``output_dir``, by default the devkit's
        results folder, and removed after the evaluation unless in competition mode. A class without
        objects has AP NaN and is left out of the mean. Without ground truth: files only, ``{}``.
        Curves and both metrics go to {class}_pr.mat in ``output_dir``: :mod:`caffe_lite.data.voc_curves`.
        """
        files = self.write_results(all_boxes, output_dir)
        if not self.has_gt:
            print(
                f"{self.name}: its annotations are not public, so there is no AP; send the results files to the "
                f"evaluation server: {', '.join(files.values())}"
            )
            return {}
        aps: dict[str, float] = {}
        annotations = self.annotations()
        for number, name in enumerate(self.classes[1:], start=1):
            gt = {
                image: {"boxes": a.boxes[a.classes == number], "difficult": a.difficult[a.classes == number]}
                for image, a in zip(self.image_index, annotations, strict=True)
                if (a.classes == number).any()
            }
            found = voc_eval(read_voc_results(files[name]), gt, use_07_metric=self.use_07_metric)
            aps[name] = found.ap
            if output_dir is not None:
                write_curve(curve_path(output_dir, name), found)
        if self.config["cleanup"]:
            for file in files.values():
                os.unlink(file)
        print(ap_table(aps, "11-point" if self.use_07_metric else "area"))
        return aps

    def write_results(self, all_boxes: Sequence[Sequence[Any]], output_dir: str | None = None) -> dict[str, str]:
        """Write the results file of each class; class name -> path."""
        self.check_testable()
        if len(all_boxes) != self.num_classes or any(len(of) != self.num_images for of in all_boxes[1:]):
            raise DataError(
                f"{self.name}: expected detections of {self.num_classes} classes x {self.num_images} images, "
                f"got {len(all_boxes)} x {sorted({len(of) for of in all_boxes[1:]})}"
            )
        folder = output_dir or os.path.join(self.devkit_path, "results", f"VOC{self.year}", "Main")
        salt = f"-{os.getpid()}" if self.config["use_salt"] else ""
        files = {}
        try:
            os.makedirs(folder, exist_ok=True)
            for name, of_class in zip(self.classes[1:], all_boxes[1:], strict=True):
                files[name] = os.path.join(folder, f"{self.config['comp_id']}{salt}_det_{self.image_set}_{name}.txt")
                write_voc_results(files[name], dict(zip(self.image_index, of_class, strict=True)))
        except OSError as error:
            raise DataError(f"{folder}: cannot write the results files: {error.strerror or error}") from error
        return files

    def _computed(self, **defaults: Any) -> list[np.ndarray]:
        paths = [self.image_path_at(i) for i in range(self.num_images)]
        return proposals.compute_proposals(paths, self.cache_folder, **{**defaults, **self.config["selective_search"]})

    def _annotation_key(self, paths: list[str], sizes: list[tuple[int, int]]) -> str:
        digest = hashlib.sha256(repr((_CACHE_VERSION, self.classes, self.image_index, sizes)).encode())
        for path in paths:
            try:
                with open(path, "rb") as stream:
                    digest.update(hashlib.sha256(stream.read()).digest())
            except FileNotFoundError:
                raise DataError(f"{path}: no such annotation file; {self.name} lists the image") from None
            except OSError as error:
                raise DataError(f"{path}: cannot read the annotation: {error.strerror or error}") from error
        return digest.hexdigest()


def ap_table(aps: dict[str, float], metric: str) -> str:
    """AP of each class and their mean as an aligned table, in percent."""
    title = f"AP ({metric}) %"
    width = max(map(len, [*aps, title]))
    rows = [f"{name:<{width}}  {100 * ap:5.1f}" for name, ap in aps.items()]
    return "\n".join([title, *rows, "-" * (width + 7), f"{'mAP':<{width}}  {100 * mean_ap(aps):5.1f}"])


def _read_lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as stream:
            return stream.read().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a UTF-8 text file: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_classes(voc_path: str) -> tuple[str, ...]:
    path = os.path.join(voc_path, "classes.txt")
    if not os.path.exists(path):
        return VOC_CLASSES
    names: list[str] = []
    for number, line in enumerate(_read_lines(path), start=1):
        name = line.strip()
        if name == "__background__" and not names:
            continue
        if name.lower() in (n.lower() for n in names) or name == "__background__":
            raise DataError(f"{path}:{number}: class {name!r} is listed twice")
        if set('/\\:*?"<>|\0') & set(name) or name.startswith("."):
            raise DataError(f"{path}:{number}: class {name!r} cannot be part of a file name")
        if name:
            names.append(name)
    if not names:
        raise DataError(f"{path}: no class names in it; expected one a line")
    return tuple(names)


def _read_image_set(voc_path: str, image_set: str) -> list[str]:
    folder = os.path.join(voc_path, "ImageSets", "Main")
    path = os.path.join(folder, f"{image_set}.txt")
    if not os.path.isfile(path):
        there = sorted(n[:-4] for n in os.listdir(folder) if n.endswith(".txt")) if os.path.isdir(folder) else []
        raise DataError(f"{path}: no such list of images; there is {', '.join(there[:8]) or 'none'}")
    names: dict[str, int] = {}
    for number, line in enumerate(_read_lines(path), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) > 1:
            raise DataError(f"{path}:{number}: expected one image name a line, got {line.strip()!r}")
        if words[0] in names:
            raise DataError(f"{path}:{number}: image {words[0]!r} is listed already in line {names[words[0]]}")
        names[words[0]] = number
    if not names:
        raise DataError(f"{path}: lists no image")
    return list(names)


def _load_annotations(file: str, key: str, count: int) -> list[Annotation] | None:
    """What :func:`_save_annotations` wrote for the same key; None if there is nothing, or it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as content:
            if str(content["key"]) != key:
                return None
            counts, boxes, classes, difficult = (content[n] for n in ("counts", "boxes", "classes", "difficult"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    total = int(counts.sum())
    if len(counts) != count or boxes.shape != (total, 4) or not len(classes) == len(difficult) == total:
        return None
    cuts = np.cumsum(counts)[:-1]
    parts = zip(*(np.split(a, cuts) for a in (boxes, classes, difficult)), strict=True)
    return [Annotation(b, c, d) for b, c, d in parts]


def _save_annotations(file: str, key: str, annotations: list[Annotation]) -> None:
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with atomic_write(file) as stream:
            np.savez_compressed(
                stream,
                key=np.array(key),
                counts=np.array([len(a.boxes) for a in annotations], np.int64),
                boxes=np.concatenate([a.boxes for a in annotations]),
                classes=np.concatenate([a.classes for a in annotations]),
                difficult=np.concatenate([a.difficult for a in annotations]),
            )
    except OSError as error:
        warnings.warn(f"{file}: annotations are not kept for the next run: {error.strerror or error}", stacklevel=2)
