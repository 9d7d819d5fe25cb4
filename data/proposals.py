"""Region proposals: selective search, computed by OpenCV or read from the original .mat files.

Boxes are (R, 4) uint16 rows x1, y1, x2, y2, image pixels, 0-based, inclusive. The .mat files of the
original come in three layouts, each with a function of its own:

    load_dataset_mat    selective_search_data/voc_2007_trainval.mat: a cell ``boxes`` with one
                        (R, 4) array an image, columns y1, x1, y2, x2, counted from 1
    load_ijcv_mat       selective_search_IJCV_data/voc_2007/000004.mat: one image, ranked,
                        columns x1, y1, x2, y2, counted from 1
    load_demo_mat       data/demo/000004_boxes.mat: one image, x1, y1, x2, y2, counted from 0

Selective search: Uijlings et al., IJCV 2013. OpenCV's set of boxes is a function of the image alone,
but it orders them by the C library's ``rand()``, which no seed of OpenCV's controls and which other
threads advance. Here boxes are sorted by x1, y1, x2, y2, and :func:`top_boxes` ranks without ``rand``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from caffe_lite.atomic import atomic_write
from caffe_lite.data.box_cache import box_folder, cached_boxes, map_images
from caffe_lite.errors import DataError, did_you_mean

_MODES = {"fast": "switchToSelectiveSearchFast", "quality": "switchToSelectiveSearchQuality"}


def selective_search(
    image: np.ndarray,
    mode: str = "fast",
    top_k: int | None = None,
    *,
    base_k: int = 50,
    inc_k: int = 100,
    sigma: float = 0.8,
    min_side: int = 16,
) -> np.ndarray:
    """Boxes of an (H, W, 3) uint8 BGR image: (R, 4) uint16, sorted by x1, y1, x2, y2, no two equal.

    mode: ``'fast'`` (2 colour spaces x 3 segmentations x 2 similarities) or ``'quality'``
    (5 x 5 x 4). base_k, inc_k: scale of the first graph segmentation and its increment (larger:
    coarser, fewer boxes); sigma: Gaussian smoothing before it, pixels. Boxes with a side under
    ``min_side`` pixels are left out; top_k: keep the best so many (:func:`top_boxes`). The defaults
    give about as many boxes on a VOC photograph as the original's files hold, 2,000 to 3,000.

    Raises DataError if the image or a setting is unusable, or OpenCV lacks its contributed modules.
    """
    settings = _settings(mode, base_k=base_k, inc_k=inc_k, sigma=sigma, min_side=min_side)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise DataError(f"selective search: expected an (H, W, 3) uint8 image, got {image.shape} {image.dtype}")
    if max(image.shape[:2]) > 65536:
        raise DataError(f"selective search: an image of {image.shape[:2]} pixels is too large for uint16 boxes")
    return top_boxes(_search(np.ascontiguousarray(image), settings), top_k)


def top_boxes(boxes: np.ndarray, top_k: int | None) -> np.ndarray:
    """The ``top_k`` best of (R, 4) boxes without repetition, sorted by x1, y1, x2, y2; None: all.

    The rank is u * i, smallest first: i counts the boxes from the largest area down, and u in (0, 1)
    is a fixed hash of the coordinates. It stands in for selective search's own order, random times
    position in the hierarchy, whose levels OpenCV does not tell: all sizes occur, large ones first.
    """
    if top_k is None or len(boxes) <= top_k:
        return boxes
    if top_k < 0:
        raise DataError(f"top_k must be >= 0, got {top_k}")
    x1, y1, x2, y2 = boxes.astype(np.uint64).T
    area = (x2 - x1 + np.uint64(1)) * (y2 - y1 + np.uint64(1))
    position = np.empty(len(boxes))
    position[np.argsort(-area.astype(np.float64), kind="stable")] = np.arange(1, len(boxes) + 1)
    mixed = x1 | y1 << np.uint64(16) | x2 << np.uint64(32) | y2 << np.uint64(48)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):  # splitmix64's finisher
        mixed = (mixed ^ mixed >> np.uint64(shift)) * np.uint64(factor)
    uniform = ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return boxes[np.sort(np.argsort(uniform * position, kind="stable")[:top_k])]


def compute_proposals(
    image_paths: Sequence[str],
    cache_folder: str | None,
    mode: str = "fast",
    top_k: int | None = None,
    progress: bool = True,
    workers: int | None = None,
    **settings: Any,
) -> list[np.ndarray]:
    """Selective search on image files, one (R, 4) uint16 array each, in the order of the paths.

    cache_folder: where results are kept (:mod:`caffe_lite.data.box_cache`), None keeps nothing;
    ``top_k`` is applied after the cache. workers: threads, by default one a core up to 8 (OpenCV
    lets go of Python's lock); the boxes do not depend on it. progress: show a bar.

    settings: base_k, inc_k, sigma, min_side of :func:`selective_search`.
    Raises DataError naming the image that is missing or damaged.
    """
    checked = _settings(mode, **settings)
    folder = box_folder(cache_folder)
    ximgproc()  # a missing module is told before any thread starts

    def found(path: str) -> np.ndarray:
        return top_boxes(cached_boxes(path, folder, checked, lambda image: _search(image, checked)), top_k)

    return map_images(found, image_paths, "selective search", progress, workers)


def write_dataset_mat(path: str, image_index: Sequence[str], boxes: Sequence[np.ndarray]) -> None:
    """Write proposals as the original's file of a whole dataset, which :func:`load_dataset_mat` reads.

    boxes: (R, 4) uint16 for each name in ``image_index``.
    """
    import scipy.io

    cells, names = np.empty((1, len(boxes)), object), np.empty((1, len(boxes)), object)
    for i, (name, of_image) in enumerate(zip(image_index, boxes, strict=True)):
        cells[0, i] = of_image[:, [1, 0, 3, 2]].astype(np.float64) + 1
        names[0, i] = name
    with atomic_write(path) as stream:
        scipy.io.savemat(stream, {"boxes": cells, "images": names}, do_compression=True)


def load_dataset_mat(path: str, image_index: Sequence[str]) -> list[np.ndarray]:
    """The proposals of a whole dataset, one (R, 4) uint16 array for each name in ``image_index``.

    Columns are reordered (1, 0, 3, 2) and 1 is taken off. If the file holds the cell ``images`` too,
    its names must be those of ``image_index``.

    Raises DataError naming the file if it is missing, damaged, or made for another list of images.
    """
    content = _load_mat(path)
    cells = content["boxes"]
    if cells.dtype != object:
        raise DataError(f"{path}: 'boxes' is one array, not a cell with one for each image; is this a demo file?")
    cells = cells.ravel()
    if len(cells) != len(image_index):
        raise DataError(f"{path}: proposals of {len(cells)} images, but the image list has {len(image_index)}")
    names = content.get("images")
    if names is not None and names.dtype == object and names.size == len(cells):
        for i, (cell, expected) in enumerate(zip(names.ravel(), image_index, strict=True)):
            name = os.path.splitext(os.path.basename(str(np.asarray(cell).ravel()[0]) if np.size(cell) else ""))[0]
            if name != os.path.splitext(os.path.basename(expected))[0]:
                raise DataError(f"{path}: image {i} is {name!r}, but the image list has {expected!r} there")
    where = "{}: boxes of image {!r}"
    return [
        _boxes_from_mat(cell, where.format(path, name), columns=(1, 0, 3, 2), first=1)
        for cell, name in zip(cells, image_index, strict=True)
    ]


def load_ijcv_mat(path: str, top_k: int | None = None) -> np.ndarray:
    """The first ``top_k`` proposals of one image, (R, 4) uint16, in the file's order; 1 is taken off."""
    return _boxes_from_mat(_load_mat(path)["boxes"], path, columns=(0, 1, 2, 3), first=1)[:top_k]


def load_demo_mat(path: str) -> np.ndarray:
    """The proposals of a demo image, (R, 4) uint16, as they stand in the file."""
    return _boxes_from_mat(_load_mat(path)["boxes"], path, columns=(0, 1, 2, 3), first=0)


def _load_mat(path: str) -> dict[str, np.ndarray]:
    import scipy.io

    try:
        content = scipy.io.loadmat(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such proposal file") from None
    except NotImplementedError:
        raise DataError(f"{path}: a .mat file of version 7.3; save it again with MATLAB's -v7") from None
    except Exception as error:  # scipy's reader lets out whatever the damaged bytes make it run into
        raise DataError(f"{path}: damaged or no .mat file: {error}") from error
    if "boxes" not in content:
        found = ", ".join(sorted(name for name in content if not name.startswith("__"))) or "nothing"
        raise DataError(f"{path}: no variable 'boxes' in the .mat file, found {found}")
    return content


def _boxes_from_mat(values: Any, where: str, columns: Sequence[int], first: int) -> np.ndarray:
    array = np.asarray(values)
    if array.size == 0:
        return np.zeros((0, 4), np.uint16)
    if array.dtype.kind not in "uif" or array.ndim != 2 or array.shape[1] != 4:
        raise DataError(f"{where}: expected numbers of shape (R, 4), got {array.dtype} {array.shape}")
    boxes = array[:, list(columns)].astype(np.float64) - first
    good = ((boxes >= 0) & (boxes <= 65535)).all(axis=1) & (boxes[:, :2] <= boxes[:, 2:]).all(axis=1)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        text = ", ".join(f"{v:g}" for v in array[row])
        raise DataError(f"{where}: row {row} ({text}) is no box with coordinates from {first} to {65535 + first}")
    return boxes.astype(np.uint16)


def _settings(mode: str, **settings: Any) -> dict[str, Any]:
    """All settings of selective search, checked."""
    if mode not in _MODES:
        raise DataError(f"selective search: unknown mode {mode!r}{did_you_mean(str(mode), _MODES)}")
    full: dict[str, Any] = {"base_k": 50, "inc_k": 100, "sigma": 0.8, "min_side": 16}
    for name, value in settings.items():
        if name not in full:
            raise DataError(f"selective search: unknown setting {name!r}{did_you_mean(name, full)}")
        try:
            number = type(full[name])(value)
        except (TypeError, ValueError, OverflowError):
            number = 0
        if not 0 < number < 1e6:  # inc_k = 0 would never leave OpenCV's loop over the segmentations
            raise DataError(f"selective search: {name} must be a number > 0, got {value!r}")
        full[name] = number
    return {"mode": mode, **full}


def ximgproc() -> Any:
    """OpenCV's contributed module of that name; DataError if OpenCV was built without it."""
    import cv2

    try:
        return cv2.ximgproc
    except AttributeError:
        raise DataError(
            f"OpenCV {cv2.__version__} has no ximgproc module, which selective search and EdgeBoxes need: "
            "uninstall the opencv packages and install opencv-contrib-python-headless"
        ) from None


def _search(image: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """All boxes of an image, sorted and without repetition."""
    import cv2

    search = ximgproc().segmentation.createSelectiveSearchSegmentation()
    try:
        search.setBaseImage(image)
        getattr(search, _MODES[settings["mode"]])(settings["base_k"], settings["inc_k"], settings["sigma"])
        found = np.asarray(search.process(), np.int64).reshape(-1, 4)
    except cv2.error as error:
        raise DataError(f"selective search failed on an image of {image.shape}: {error}") from error
    boxes = np.unique(np.hstack((found[:, :2], found[:, :2] + found[:, 2:] - 1)), axis=0)
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes[(sides >= settings["min_side"]).all(axis=1)].astype(np.uint16)
