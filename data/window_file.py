"""Window files: images and boxes in them with labels, as R-CNN wrote them, and a box as a square of pixels.

For each image a line ``# index``, a line each for the path, channels, height, width and number of windows, then a
line ``label overlap x1 y1 x2 y2`` for each window: the largest overlap with an object and that object's class
(> 0), corners in pixels, 0-based and inclusive.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe_lite.data.image_list import read_lines
from caffe_lite.errors import DataError


@dataclass
class WindowFile:
    """Image paths, and (n, 6) rows (image, label, x1, y1, x2, y2) of foreground and background windows.

    ``image`` is the position in ``images``; background windows have label 0.
    """

    images: list[str] = field(default_factory=list)
    channels: int = 3
    foreground: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 6), np.int64))
    background: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 6), np.int64))


def read_window_file(path: str, fg_threshold: float, bg_threshold: float) -> WindowFile:
    """The windows with overlap >= fg_threshold (foreground) and those with overlap < bg_threshold.

    Windows between the two thresholds are left out. Overlaps are compared as float32, as in Caffe.

    Raises:
        DataError: the file cannot be read, is empty or is not of this format; the message has the line number.
    """
    found = WindowFile()
    kept: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    lines = _Lines(path)
    for header in lines:
        if not header.startswith("#"):
            raise DataError(f"{lines.where}: expected '# index' before each image, got {header!r}")
        image = lines.take("the image's path")
        channels, _, _, count = (lines.take_count(what) for what in ("channels", "height", "width", "windows"))
        if channels != 3:
            raise DataError(f"{lines.where}: images are read as 3 channels (B, G, R), expected 3 here, got {channels}")
        windows = lines.take_windows(count)
        overlap = windows[:, 1].astype(np.float32)
        is_fg = overlap >= np.float32(fg_threshold)
        is_bg = ~is_fg & (overlap < np.float32(bg_threshold))
        rows = windows.astype(np.int64)
        rows[:, 0], rows[:, 1] = len(found.images), windows[:, 0]
        rows[is_bg, 1] = 0
        wrong = np.flatnonzero(is_fg & (rows[:, 1] <= 0))
        if wrong.size:
            line = lines.number - count + 1 + int(wrong[0])
            raise DataError(f"{path}:{line}: a window that overlaps an object must have a label > 0")
        found.images.append(image)
        for part, chosen in zip(kept, (is_fg, is_bg), strict=True):
            part.append(rows[chosen])
    if not found.images:
        raise DataError(f"{path}: the window file is empty")
    found.foreground, found.background = (np.concatenate(part) for part in kept)
    return found


class _Lines:
    """The lines of a window file that are not blank, with their numbers."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lines = ((i, line) for i, line in enumerate(read_lines(path, "the window file"), start=1) if line)
        self.number = 0

    @property
    def where(self) -> str:
        return f"{self.path}:{self.number}"

    def __iter__(self) -> Iterator[str]:
        for number, line in self._lines:
            self.number = number
            yield line.strip()

    def take(self, what: str) -> str:
        """The next line."""
        for line in self:
            return line
        raise DataError(f"{self.where}: the file ends where {what} should follow")

    def take_count(self, what: str) -> int:
        """The next line, a whole number >= 0."""
        text = self.take(what)
        if not text.isdecimal():
            raise DataError(f"{self.where}: expected the number of {what}, got {text!r}")
        return int(text)

    def take_windows(self, count: int) -> np.ndarray:
        """The next ``count`` lines as (count, 6) float64."""
        before = self.number
        lines = [line for _, line in itertools.islice(self._lines, count)]
        try:
            windows = np.array(" ".join(lines).split(), dtype=np.float64).reshape(count, 6)
        except ValueError:
            bad = next((i for i, line in enumerate(lines, start=1) if not _is_window(line)), len(lines))
            got = repr(lines[bad - 1]) if lines else "the end of the file"
            message = f"expected {count} lines 'label overlap x1 y1 x2 y2', found {len(lines)}; got {got}"
            raise DataError(f"{self.path}:{before + bad}: {message}") from None
        self.number = before + count
        return windows


def _is_window(line: str) -> bool:
    try:
        return len([float(word) for word in line.split()]) == 6
    except ValueError:
        return False


@dataclass(frozen=True)
class Cutout:
    """Where a window is cut from its image and where it goes in the square: see ``place_window``."""

    x1: int
    y1: int
    x2: int
    y2: int
    width: int
    height: int
    left: int
    top: int


def place_window(
    window: Any, image_size: tuple[int, int], size: int, context: int, square: bool, mirror: bool, dtype: Any
) -> Cutout:
    """How to warp a window (x1, y1, x2, y2) into ``size`` x ``size`` pixels.

    Pixels [x1, x2] x [y1, y2], corners inclusive, of the (height, width) image are scaled to ``width`` x ``height``
    and put at (``left``, ``top``). Without ``context`` and ``square`` that is the window itself, stretched to the
    whole square. With them the window is first enlarged about its centre (to a square one) so that, when warped,
    ``context`` pixels of surroundings lie on each side; what is outside the image stays empty. Arithmetic is in
    ``dtype``, as in Caffe.

    Raises:
        DataError: nothing of the window lies in the image, or without ``context`` and ``square`` not all of it.
    """
    height, width = image_size
    x1, y1, x2, y2 = (int(v) for v in window)
    if not context and not square:
        if not (0 <= x1 <= x2 < width and 0 <= y1 <= y2 < height):
            raise DataError(f"window ({x1}, {y1}, {x2}, {y2}) is not inside the image, {width} wide and {height} high")
        return Cutout(x1, y1, x2, y2, size, size, 0, 0)
    real = np.dtype(dtype).type
    scale = real(size) / real(size - 2 * context)
    half_w, half_h = real(x2 - x1 + 1) / real(2), real(y2 - y1 + 1) / real(2)
    center_x, center_y = real(x1) + half_w, real(y1) + half_h
    if square:
        half_w = half_h = max(half_w, half_h)
    x1, x2, left, right, new_w = _along(center_x, half_w * scale, width, size, real)
    y1, y2, top, _, new_h = _along(center_y, half_h * scale, height, size, real)
    if mirror:
        left = right  # the empty margin is mirrored too
    new_w, new_h = min(new_w, size - left), min(new_h, size - top)  # rounding may leave one pixel too many
    if x1 > x2 or y1 > y2 or new_w <= 0 or new_h <= 0:
        raise DataError(
            f"window ({', '.join(str(int(v)) for v in window)}) has nothing inside the image, {width} wide and "
            f"{height} high"
        )
    return Cutout(x1, y1, x2, y2, new_w, new_h, left, top)


def warp_window(
    out: NDArray[Any],
    image: NDArray[np.uint8],
    window: Any,
    context: int,
    square: bool,
    mirror: bool,
    mean: Any,
    scale: Any,
) -> None:
    """Warp a window (x1, y1, x2, y2) of the (H, W, 3) ``image`` into ``out`` (3, s, s) as (pixels - mean) * scale.

    ``mean`` is (1, 1, 1), (3, 1, 1) or (3, s, s). Where the enlarged window leaves the image ``out`` is not written:
    zeros there stand for the mean. See :func:`place_window`, whose errors it raises; it computes in ``out``'s type.
    """
    import cv2

    place = place_window(window, image.shape[:2], out.shape[-1], context, square, mirror, out.dtype)
    crop = image[place.y1 : place.y2 + 1, place.x1 : place.x2 + 1]
    pixels = cv2.resize(crop, (place.width, place.height), interpolation=cv2.INTER_LINEAR)
    if mirror:
        pixels = cv2.flip(pixels, 1)
    rows, columns = slice(place.top, place.top + place.height), slice(place.left, place.left + place.width)
    target = out[:, rows, columns]
    under = mean if mean.shape[1] == 1 else mean[:, rows, columns]
    np.subtract(pixels.transpose(2, 0, 1), under, out=target, dtype=target.dtype)
    target *= scale


def _along(center: Any, half: Any, length: int, size: int, real: Any) -> tuple[int, int, int, int, int]:
    """Along one axis: first and last pixel in the image, margins before and after, and size when warped."""
    first, last = _round(center - half), _round(center + half)
    before, after = max(0, -first), max(0, last - length + 1)
    scale = real(size) / real(last - first + 1)
    first_in, last_in = first + before, last - after
    warped = _round(real(last_in - first_in + 1) * scale)
    return first_in, last_in, _round(real(before) * scale), _round(real(after) * scale), warped


def _round(value: Any) -> int:
    """C's round: halves away from zero."""
    value = float(value)
    return int(np.copysign(np.floor(abs(value) + 0.5), value))
