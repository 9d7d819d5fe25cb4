"""Proposals by the name of a method: ``propose("ss:2000+dense:10000", image_paths, cache_folder)``.

    ss                     selective search, fast mode
    ss_quality             selective search, quality mode
    edge_boxes             EdgeBoxes on structured edges, whose model is a file of one's own
    gradient_edge_boxes    EdgeBoxes on the edges of the gradient, which needs none
    dense                  sliding boxes, about 45,000 an image
    nearest_dense          selective search (fast), each box replaced by the dense one nearest in IoU

``:COUNT`` takes so many of each image: the best (of nearest_dense: the nearest of selective search's
best), of dense boxes a random sample, which depends on the seed and the image's name alone. ``+``
joins methods: their boxes follow one another, those equal to an earlier one are dropped. These are
all the sets of figure 3 of the paper.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from caffe_lite.data import box_cache, dense_boxes
from caffe_lite.data import edge_boxes as edges
from caffe_lite.data.image_blob import image_size, read_image
from caffe_lite.data.proposals import compute_proposals
from caffe_lite.errors import DataError, did_you_mean

Boxes = NDArray[np.uint16]
METHODS = ("ss", "ss_quality", "edge_boxes", "gradient_edge_boxes", "dense", "nearest_dense")


class Term(NamedTuple):
    """One method of METHODS and the most boxes of it in an image; None: all."""

    name: str
    most: int | None


class Options(NamedTuple):
    """What the methods depend on besides the images."""

    cache_folder: str | None = None  # None keeps nothing
    seed: int = 3
    edge_model: str | None = None  # for edge_boxes
    progress: bool = True
    workers: int | None = None  # threads, by default one a core up to 8


def parse_method(text: str) -> list[Term]:
    """The terms of ``NAME[:COUNT][+NAME[:COUNT]...]``; DataError for an unknown name or a bad count."""
    terms = []
    for part in text.split("+"):
        name, colon, count = part.strip().partition(":")
        if name not in METHODS:
            hint = did_you_mean(name, METHODS) or f"; there are {', '.join(METHODS)}"
            raise DataError(f"proposals {text!r}: unknown method {name!r}{hint}")
        if colon and not (count.isascii() and count.isdecimal() and int(count) > 0):
            raise DataError(f"proposals {text!r}: expected {name}:COUNT with a COUNT of 1 or more, got {count!r}")
        terms.append(Term(name, int(count) if colon else None))
    return terms


def propose(method: str, image_paths: Sequence[str], options: Options | None = None) -> list[Boxes]:
    """The boxes of each image file, (R, 4) uint16 rows x1, y1, x2, y2, by a method as above.

    Raises DataError for an unusable method, and naming the image that is missing or damaged.
    """
    terms = parse_method(method)
    given = options or Options()
    found = [_GENERATORS[term.name](image_paths, term, given) for term in terms]
    return found[0] if len(found) == 1 else [_distinct(np.concatenate(parts)) for parts in zip(*found, strict=True)]


def _distinct(boxes: Boxes) -> Boxes:
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)]


def _selective_search(paths: Sequence[str], term: Term, options: Options) -> list[Boxes]:
    mode = "quality" if term.name == "ss_quality" else "fast"
    return compute_proposals(paths, options.cache_folder, mode, term.most, options.progress, options.workers)


def _edge_boxes(paths: Sequence[str], term: Term, options: Options) -> list[Boxes]:
    model = None
    settings: dict[str, Any] = {"method": term.name, "most": edges.MAX_BOXES}
    if term.name == "edge_boxes":
        if options.edge_model is None:
            raise DataError(
                "proposals 'edge_boxes': give the file of the structured edges' model (--edge-model FILE), "
                "or use gradient_edge_boxes, which needs none"
            )
        model = options.edge_model
        edges.load_model(model)
        with open(model, "rb") as stream:
            settings["model"] = hashlib.sha256(stream.read()).hexdigest()
    folder = box_cache.box_folder(options.cache_folder)

    def found(path: str) -> Boxes:
        return box_cache.cached_boxes(path, folder, settings, lambda im: edges.edge_boxes(im, model=model))[: term.most]

    return box_cache.map_images(found, paths, term.name, options.progress, options.workers)


def _dense(paths: Sequence[str], term: Term, options: Options) -> list[Boxes]:
    boxes = []
    for path in paths:
        name = os.path.splitext(os.path.basename(path))[0]
        seed = [options.seed, zlib.crc32(name.encode())]
        boxes.append(dense_boxes.sample_boxes(dense_boxes.dense_boxes(*_size(path)), term.most, seed))
    return boxes


def _nearest_dense(paths: Sequence[str], term: Term, options: Options) -> list[Boxes]:
    searched = _selective_search(paths, Term("ss", term.most), options)
    by_path = dict(zip(paths, searched, strict=True))

    def found(path: str) -> Boxes:
        return dense_boxes.nearest_dense(by_path[path], *_size(path))

    return box_cache.map_images(found, paths, term.name, options.progress, options.workers)


_GENERATORS: dict[str, Callable[[Sequence[str], Term, Options], list[Boxes]]] = {
    "ss": _selective_search,
    "ss_quality": _selective_search,
    "edge_boxes": _edge_boxes,
    "gradient_edge_boxes": _edge_boxes,
    "dense": _dense,
    "nearest_dense": _nearest_dense,
}


def _size(path: str) -> tuple[int, int]:
    size = image_size(path)
    if size is None:  # neither JPEG nor PNG, or damaged
        height, width = read_image(path).shape[:2]
        size = (width, height)
    return size
