"""Images from files, and from images to the ``data`` blob of a detection net.

Images are (H, W, 3) arrays in OpenCV's order B, G, R; blobs are (N, 3, H, W) float32.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe_lite.errors import DataError

Float32 = NDArray[np.float32]


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The image file ``path`` as (H, W, 3) uint8, B, G, R.

    Pixels are as stored: an EXIF orientation is not applied, because annotations count stored pixels.
    Grey is repeated in three channels, transparency is dropped, of 16 bits the upper 8 are kept, and
    CMYK becomes R, G, B as ink on paper: 255 * (1 - cyan) * (1 - black) is red, and so on.

    Raises DataError naming the file if it is missing, cut short, or not an image.
    """
    import cv2

    content = _read(path)
    if not content:
        raise DataError(f"{os.fspath(path)}: the image file is empty")
    if is_cut_short(content):
        raise DataError(f"{os.fspath(path)}: the image file is cut short ({len(content)} bytes); fetch it again")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags)
    except cv2.error as error:  # larger than OpenCV's limit on pixels
        raise DataError(f"{os.fspath(path)}: OpenCV cannot read the image: {error}") from error
    if image is None:
        raise DataError(f"{os.fspath(path)}: not an image that OpenCV can read, or a damaged one")
    return image  # type: ignore[return-value]


def as_image(image: str | os.PathLike[str] | NDArray[Any]) -> NDArray[np.uint8]:
    """A file, or an array, as the (H, W, 3) uint8 image in B, G, R that its picture file would give.

    Arrays: (H, W), (H, W, 1), (H, W, 3) B, G, R or (H, W, 4) B, G, R, A, uint8 or uint16. As in
    :func:`read_image`, grey is repeated in three channels, transparency is dropped, and of 16 bits the
    upper 8 are kept.

    Raises DataError if it is none of these or has no pixels.
    """
    if not isinstance(image, np.ndarray):
        return read_image(image)
    shape = (*image.shape, 1) if image.ndim == 2 else image.shape
    if len(shape) != 3 or shape[2] not in (1, 3, 4) or image.size == 0:
        raise DataError(f"an image must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {image.shape}")
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"an image must be uint8 (0 to 255) or uint16, got {image.dtype}; convert it first")
    if image.dtype == np.uint16:
        image = image >> 8
    colours = image.reshape(shape)[:, :, :3].astype(np.uint8)
    return np.repeat(colours, 3, axis=2) if shape[2] == 1 else colours


def image_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """(width, height) from the head of a JPEG or PNG file; None for other formats or a damaged head.

    Raises DataError naming the file if it cannot be opened.
    """
    content = _read(path, 1 << 16)
    size = _size_in(content)
    if size is None and content.startswith(_JPEG):  # a long preface: colour profile, thumbnails
        size = _size_in(_read(path))
    return size


def prep_im_for_blob(
    image: NDArray[Any], pixel_means: NDArray[np.float64], target_size: float, max_size: float
) -> tuple[Float32, float]:
    """Subtract the means and scale the shortest side to ``target_size``.

    The scale is less where the longest side would be more than ``max_size``. Returns the (H', W', 3)
    float32 image and the scale.
    """
    return scale_image(subtract_means(image, pixel_means), target_size, max_size)


def subtract_means(image: NDArray[Any], pixel_means: NDArray[np.float64]) -> Float32:
    """The (H, W, 3) image less the means of its channels, as float32."""
    im = image.astype(np.float32)
    im -= pixel_means
    return im


def scale_image(im: Float32, target_size: float, max_size: float) -> tuple[Float32, float]:
    """The second half of :func:`prep_im_for_blob`."""
    import cv2

    shortest, longest = min(im.shape[:2]), max(im.shape[:2])
    scale = float(target_size) / float(shortest)
    if np.round(scale * longest) > max_size:
        scale = float(max_size) / float(longest)
    scaled = cv2.resize(im, None, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return scaled, scale  # type: ignore[return-value]


def im_list_to_blob(images: Sequence[Float32]) -> Float32:
    """(H_i, W_i, 3) images side by side as (N, 3, max H, max W), zero at the right and bottom."""
    height = max(im.shape[0] for im in images)
    width = max(im.shape[1] for im in images)
    blob = np.zeros((len(images), 3, height, width), dtype=np.float32)
    for plane, im in zip(blob, images, strict=True):
        plane[:, : im.shape[0], : im.shape[1]] = im.transpose(2, 0, 1)
    return blob


_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # not the 0xFF00 and restart marks inside pixel data
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _read(path: str | os.PathLike[str], count: int = -1) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(count)
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot read the image: {error.strerror or error}") from error


def is_cut_short(content: bytes) -> bool:
    """Does a JPEG or PNG lack its end mark? (OpenCV would fill the rest with grey and go on.)"""
    if content.startswith(_JPEG):
        return 0xD9 not in (code for code, _ in _jpeg_segments(content))
    if content.startswith(_PNG):
        return b"IEND" not in content[-4096:]
    return False


def _size_in(content: bytes) -> tuple[int, int] | None:
    if content.startswith(_PNG) and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        return width, height
    if content.startswith(_JPEG):
        for code, at in _jpeg_segments(content):
            if code in _FRAME_HEADERS and at + 7 <= len(content):
                height, width = struct.unpack(">HH", content[at + 3 : at + 7])
                return width, height
    return None


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """(marker code, offset of what follows it) of each segment, stepping over their contents."""
    at = 2
    while True:
        found = _MARKER.search(content, at)
        if found is None:
            return
        at = found.end()
        code = found.group(1)[0]
        yield code, at
        if code == 0xD9:
            return
        if code != 0x01:  # all others left have a length of two bytes that counts itself
            if at + 2 > len(content):
                return
            at += struct.unpack(">H", content[at : at + 2])[0]
