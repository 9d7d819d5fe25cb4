"""A small VOC-layout dataset made from a seed: six shapes on textured scenes.

Stands in where no real dataset is at hand: the demo, the tests, a first look at a new net. It is
read by :class:`caffe_lite.data.pascal_voc.PascalVoc` like any devkit, because it is one:

    FOLDER/VOCdevkit2007/                        or another year's; several may stand side by side
        manifest.json                            the settings, and a hash of VOC2007
        VOC2007/classes.txt                      disc ring square triangle star cross
        VOC2007/{JPEGImages,Annotations,ImageSets/Main}

A scene holds 1 to 4 objects. Their class is the shape and nothing else: colour, pattern, size (about
40 to 110 pixels), rotation and aspect are drawn alike for all classes. Objects are brighter than the
ground, which lets a small net learn them in a minute or two. They may cover each other, lie behind a
dark bar, or be cut by the image's border. As in VOC an object's box is the tight box of its
visible part; ``occluded`` is set if more than 5 % of its area inside the image is covered,
``truncated`` if more than 3 % of its area lies outside the image, and ``difficult`` if less than
half of its area is left to see.

Everything is a function of the settings; other seeds, sets and years have other scenes. Image i of a
set does not depend on how many images there are, so a larger dataset begins with the smaller one's
images.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from caffe_lite.data.pascal_voc import YEARS
from caffe_lite.data.synthetic_scene import CLASSES, Scene, render_scene
from caffe_lite.errors import DataError

MANIFEST = "manifest.json"
VERSION = 2  # raise it when the same settings would give other files
_FIRST_YEAR = "2007"
_OWN = {*(f"VOCdevkit{year}" for year in YEARS), "cache"}  # what may stand in the folder of a devkit of ours
_QUALITY = 92


class Settings(NamedTuple):
    """What a devkit is made from."""

    version: int
    seed: int
    images: dict[str, int]  # set name -> number of images
    size: tuple[int, int]  # nominal width and height of an image, pixels; each varies by up to 12 %
    year: str = _FIRST_YEAR

    @property
    def devkit(self) -> str:
        """Name of the devkit's folder."""
        return f"VOCdevkit{self.year}"


def make_devkit(
    folder: str | os.PathLike[str],
    seed: int = 3,
    images: Mapping[str, int] | None = None,
    size: tuple[int, int] = (200, 150),
    year: str | int = _FIRST_YEAR,
) -> str:
    """Write the devkit of these settings into ``folder``, unless it is there; returns the folder.

    images: set name -> number of images, by default ``{'trainval': 160, 'test': 80}``; year: one of
    VOC's years, which decides the names of folders and images, the metric, and the scenes.
    Nothing is overwritten: the folder must not exist, be empty, or hold devkits made here, that of
    ``year`` by these very settings. The devkit appears whole or not at all.

    Raises DataError if the folder holds anything else, a setting is unusable, or it cannot be written.
    """
    settings = _checked_settings(seed, images, size, str(year))
    root = os.path.abspath(os.fspath(folder))
    if _reusable(root, settings):
        return root
    try:
        os.makedirs(root, exist_ok=True)
        partial = tempfile.mkdtemp(prefix=f".{settings.devkit}.partial-", dir=root)
        try:
            _write_devkit(partial, settings)
            os.chmod(partial, 0o777 & ~_umask())  # mkdtemp keeps it to the owner
            os.rename(partial, os.path.join(root, settings.devkit))
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{root}: cannot write the synthetic devkit: {error.strerror or error}") from error
    return root


def _numbering(settings: Settings) -> list[tuple[str, str, int]]:
    pairs = [(image_set, i) for image_set, count in settings.images.items() for i in range(count)]
    prefix = "" if settings.year == _FIRST_YEAR else f"{settings.year}_"  # as VOC's
    return [(f"{prefix}{number:06d}", image_set, i) for number, (image_set, i) in enumerate(pairs, start=1)]


def _scene(settings: Settings, image_set: str, i: int) -> Scene:
    tag = int.from_bytes(hashlib.sha256(image_set.encode()).digest()[:4], "big")
    own_year = [] if settings.year == _FIRST_YEAR else [int(settings.year)]
    return render_scene(np.random.default_rng([settings.seed, tag, i, *own_year]), settings.size)


def _checked_settings(
    seed: int, images: Mapping[str, int] | None, size: tuple[int, int], year: str = _FIRST_YEAR
) -> Settings:
    counts = {str(name): int(count) for name, count in (images or {"trainval": 160, "test": 80}).items()}
    bad = [name for name, count in counts.items() if not name.isidentifier() or count < 1]
    if bad or sum(counts.values()) > 999_999:
        raise DataError(f"synthetic devkit: expected set names with 1 or more images, got {counts}")
    if min(size) < 100 or max(size) > 4000:
        raise DataError(f"synthetic devkit: size must be from 100 to 4000 pixels a side, got {size[0]}x{size[1]}")
    if not 0 <= int(seed) < 2**63:
        raise DataError(f"synthetic devkit: seed must be in [0, 2^63), got {seed}")
    if year not in YEARS:
        raise DataError(f"synthetic devkit: expected one of the years {', '.join(YEARS)}, got {year}")
    return Settings(VERSION, int(seed), counts, (int(size[0]), int(size[1])), year)


def _reusable(root: str, settings: Settings) -> bool:
    """True if the devkit is there already, False if the folder is free; DataError if it is neither."""
    try:
        present = {name for name in os.listdir(root) if not name.startswith(".")}  # .DS_Store, our own leavings
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataError(f"{root}: cannot use this folder for the synthetic devkit: {error.strerror}") from error
    devkit = os.path.join(root, settings.devkit)
    if settings.devkit not in present:
        if present - _OWN:
            names = ", ".join(sorted(present)[:4])
            raise DataError(f"{root}: not empty ({names}); give the synthetic devkit a folder of its own")
        return False
    try:
        with open(os.path.join(devkit, MANIFEST), encoding="utf-8") as stream:
            manifest = json.load(stream)
        theirs, digest = manifest["settings"], manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{devkit}: a devkit that was not made here is not overwritten; give another folder") from None
    mine = _as_json(settings)
    if theirs != mine:
        raise DataError(f"{devkit}: made with {theirs}, asked for {mine}; delete it or give another folder")
    if _content_hash(devkit, settings.year) != digest:
        raise DataError(f"{devkit}: its files were changed after it was made; delete it or give another folder")
    return True


def _as_json(settings: Settings) -> Any:
    content = settings._asdict()
    if settings.year == _FIRST_YEAR:  # it has no entry in manifests from before there were other years
        del content["year"]
    return json.loads(json.dumps(content))


def _write_devkit(devkit: str, settings: Settings) -> None:
    import cv2

    voc = os.path.join(devkit, f"VOC{settings.year}")
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        os.makedirs(os.path.join(voc, part))
    _write(os.path.join(voc, "classes.txt"), "".join(f"{name}\n" for name in CLASSES))
    names: dict[str, list[str]] = {image_set: [] for image_set in settings.images}
    for name, image_set, i in _numbering(settings):
        scene = _scene(settings, image_set, i)
        done, encoded = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if not done:
            raise DataError(f"{devkit}: OpenCV could not encode image {name} as JPEG")
        with open(os.path.join(voc, "JPEGImages", f"{name}.jpg"), "wb") as stream:
            stream.write(encoded.tobytes())
        _write(os.path.join(voc, "Annotations", f"{name}.xml"), annotation_xml(name, scene, settings.year))
        names[image_set].append(name)
    for image_set, members in names.items():
        _write(os.path.join(voc, "ImageSets", "Main", f"{image_set}.txt"), "".join(f"{n}\n" for n in members))
    manifest = {"settings": _as_json(settings), "sha256": _content_hash(devkit, settings.year)}
    _write(os.path.join(devkit, MANIFEST), json.dumps(manifest, indent=2) + "\n")


def annotation_xml(name: str, scene: Scene, year: str = _FIRST_YEAR) -> str:
    """The VOC annotation of a scene; boxes counted from 1, as VOC's are."""
    height, width = scene.image.shape[:2]
    lines = [
        "<annotation>",
        f"  <folder>VOC{year}</folder>",
        f"  <filename>{name}.jpg</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
    ]
    for item in scene.objects:
        x1, y1, x2, y2 = (v + 1 for v in item.box)
        lines += [
            "  <object>",
            f"    <name>{CLASSES[item.shape]}</name>",
            "    <pose>Unspecified</pose>",
            f"    <truncated>{item.truncated:d}</truncated>",
            f"    <occluded>{item.occluded:d}</occluded>",
            f"    <difficult>{item.difficult:d}</difficult>",
            f"    <bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)


def _content_hash(devkit: str, year: str) -> str:
    """SHA-256 over the names and contents of the files of VOC{year}; results stand beside it."""
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(os.path.join(devkit, f"VOC{year}")):
        folders.sort()
        for file in sorted(name for name in files if not name.startswith(".")):
            path = os.path.join(folder, file)
            digest.update(os.path.relpath(path, devkit).replace(os.sep, "/").encode() + b"\0")
            with open(path, "rb") as stream:
                content = stream.read()
            digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
