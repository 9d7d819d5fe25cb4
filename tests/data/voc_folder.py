"""A VOC-layout folder of a few tiny images, for the tests of datasets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

Object = tuple[str, tuple[float, float, float, float], int]  # name, box counted from 1, difficult


def annotation(objects: Sequence[Object]) -> str:
    lines = ["<annotation>"]
    for name, box, difficult in objects:
        corners = "".join(f"<{t}>{v}</{t}>" for t, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        lines += [
            "<object>",
            f"<name>{name}</name><difficult>{difficult}</difficult>",
            f"<bndbox>{corners}</bndbox>",
            "</object>",
        ]
    return "\n".join([*lines, "</annotation>\n"])


def picture(seed: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A few rectangles on a flat ground: selective search finds some boxes in it."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(60, 190, 3), np.uint8)
    for _ in range(4):
        x, y = int(rng.integers(0, width - 22)), int(rng.integers(0, height - 22))
        image[y : y + int(rng.integers(16, 22)), x : x + int(rng.integers(16, 22))] = rng.integers(0, 256, 3)
    return image


def make_voc(
    root: Path,
    sets: Mapping[str, Mapping[str, Sequence[Object]]],
    year: str = "2007",
    classes: Sequence[str] | None = ("cat", "dog", "cow"),
    devkit: str = "VOCdevkit2007",
) -> Path:
    """Write ``sets`` (set -> image name -> objects) below ``root`` and return the VOC{year} folder."""
    voc = root / devkit / f"VOC{year}"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        os.makedirs(voc / part, exist_ok=True)
    if classes is not None:
        (voc / "classes.txt").write_text("\n".join(classes) + "\n")
    for image_set, images in sets.items():
        (voc / "ImageSets/Main" / f"{image_set}.txt").write_text("".join(f"{name}\n" for name in images))
        for number, (name, objects) in enumerate(images.items()):
            cv2.imwrite(str(voc / "JPEGImages" / f"{name}.jpg"), picture(number))
            (voc / "Annotations" / f"{name}.xml").write_text(annotation(objects))
    return voc
