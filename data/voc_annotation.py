"""One PASCAL VOC annotation file: the objects of an image, every fault named with its line.

The XML is read without a document type: entities, which could blow a small file up or name other
files, are refused with it.
"""

from __future__ import annotations

import math
import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from caffe_lite.errors import DataError, did_you_mean


class Annotation(NamedTuple):
    """The G objects of an image, in the file's order."""

    boxes: NDArray[np.uint16]  # (G, 4) x1, y1, x2, y2, 0-based, inclusive
    classes: NDArray[np.int32]  # (G,) index of the class, >= 1
    difficult: NDArray[np.bool_]  # (G,)


class _Node(ET.Element):
    line = 0


def read_annotation(path: str, class_numbers: Mapping[str, int], size: tuple[int, int]) -> Annotation:
    """The objects of the annotation file ``path``.

    class_numbers: name -> index of each class; a name is also found if only its capitals differ.
    size: (width, height) of the image in pixels, which every box must lie in. The file counts
    coordinates from 1; fractions (VOC 2011 and 2012 have some) are cut off after 1 is taken away.

    Raises DataError naming file and line: not XML, truncated, an object without name or box, of an
    unknown class, with x2 < x1 or y2 < y1, or with a box outside the image.
    """
    root = _parse(path)
    if root.tag != "annotation":
        _fail(path, root, f"expected <annotation>, got <{root.tag}>")
    folded = {name.lower(): index for name, index in class_numbers.items()}
    boxes, classes, difficult = [], [], []
    for number, node in enumerate(root.findall("object")):
        name = _text(path, node, "name", f"object {number}")
        what = f"object {number} ({name!r})"
        index = class_numbers.get(name, folded.get(name.lower()))
        if index is None:
            hint = did_you_mean(name, class_numbers) or f"; the classes are {', '.join(class_numbers)}"
            _fail(path, node, f"{what}: unknown class{hint}")
        classes.append(index)
        boxes.append(_box(path, node, what, size))
        flag = node.findtext("difficult", "0").strip() or "0"
        if flag not in ("0", "1"):
            _fail(path, node, f"{what}: <difficult> must be 0 or 1, got {flag!r}")
        difficult.append(flag == "1")
    return Annotation(
        np.array(boxes, np.uint16).reshape(-1, 4), np.array(classes, np.int32), np.array(difficult, np.bool_)
    )


def _box(path: str, node: ET.Element, what: str, size: tuple[int, int]) -> tuple[int, int, int, int]:
    bounds = node.find("bndbox")
    if bounds is None:
        _fail(path, node, f"{what}: no <bndbox>")
    values = []
    for tag in ("xmin", "ymin", "xmax", "ymax"):
        text = _text(path, bounds, tag, what)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) < 1e9:
            _fail(path, bounds, f"{what}: <{tag}> must be a number, got {text!r}")
        values.append(int(value - 1))
    x1, y1, x2, y2 = values
    shown = "xmin, ymin, xmax, ymax = " + ", ".join(str(v + 1) for v in values)
    if x2 < x1 or y2 < y1:
        _fail(path, bounds, f"{what}: {'xmax < xmin' if x2 < x1 else 'ymax < ymin'}: {shown}")
    width, height = size
    if x1 < 0 or y1 < 0 or x2 >= width or y2 >= height:
        hint = "; VOC counts from 1, these seem to count from 0" if x1 == -1 or y1 == -1 else ""
        _fail(path, bounds, f"{what}: the box is outside the image of {width}x{height} pixels: {shown}{hint}")
    if max(x2, y2) > 65535:
        _fail(path, bounds, f"{what}: a coordinate is over 65536, the largest that can be stored: {shown}")
    return x1, y1, x2, y2


def _text(path: str, node: ET.Element, tag: str, what: str) -> str:
    text = (node.findtext(tag) or "").strip()
    if not text:
        _fail(path, node, f"{what}: no <{tag}>")
    return text


def _parse(path: str) -> Any:
    """The root element; elements know their line."""
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot read the annotation: {error.strerror or error}") from error
    parser = expat.ParserCreate()
    builder = ET.TreeBuilder(element_factory=_Node)

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, attributes).line = parser.CurrentLineNumber  # type: ignore[attr-defined]

    def refuse(*_: Any) -> NoReturn:
        raise DataError(f"{path}:{parser.CurrentLineNumber}: a document type (<!DOCTYPE ...>) is not accepted")

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        reason = expat.errors.messages.get(error.code, str(error))
        whole = "" if content.rstrip().endswith(b"</annotation>") else "; the file is truncated or no VOC annotation"
        raise DataError(f"{path}:{error.lineno}: malformed XML: {reason}{whole}") from None
    except (LookupError, ValueError) as error:  # an encoding declaration that Python does not know
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: malformed XML: {error}") from error
    return builder.close()


def _fail(path: str, node: ET.Element, message: str) -> NoReturn:
    raise DataError(f"{os.fspath(path)}:{getattr(node, 'line', 0)}: {message}")
