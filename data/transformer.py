"""Transformer: transform_param, which turns a stored image into what a net reads.

Behaves as Caffe's DataTransformer. C channels, H x W the stored image, h x w what comes out:
    out[c, y, x] = (image[c, y0 + y, x0 + x] - mean) * scale
crop_size       h = w = crop_size at (y0, x0): at random in TRAIN, the centre, floor((H - h) / 2), in TEST;
                without it h x w = H x W
mirror          flips the result left to right with probability 1/2, in TEST too
mean_file       a .binaryproto of the stored image's shape (1, C, H, W), cropped and flipped with it;
                or mean_value, one for all channels or one for each
force_color, force_gray   an encoded image is decoded to 3 channels (B, G, R) or 1

For each image it draws, in this order: mirror (if set), y0, x0 (if cropped in TRAIN). The generator is
the transformer's own, seeded by one draw from the process's stream when the net is built, and only if
it will draw.

Encoded images are decoded by OpenCV. Differs from Caffe built with OpenCV 3 or later: an EXIF
orientation is never applied, so pixels are as stored, as with OpenCV 2; an image file that is cut
short is an error instead of grey at the bottom.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from caffe_lite import weights
from caffe_lite.data.image_blob import is_cut_short
from caffe_lite.data.prefetch import generator_from
from caffe_lite.errors import DataError, WeightsError
from caffe_lite.proto import caffe_pb2

log = logging.getLogger("caffe_lite")

TRAIN = 0


class Transformer:
    """``transform_param`` in one phase; see the module. ``rng``: None if nothing is random.

    Raises:
        DataError: mean_file and mean_value, or force_color and force_gray, exclude each other; the mean
            file cannot be used.
    """

    def __init__(self, param: Any, phase: int, rng: np.random.Generator) -> None:
        if param.HasField("mean_file") and len(param.mean_value):
            raise DataError("transform_param: give mean_file or mean_value, not both")
        if param.force_color and param.force_gray:
            raise DataError("transform_param: give force_color or force_gray, not both")
        self.crop_size: int = param.crop_size
        self.mirror: bool = param.mirror
        self.scale = np.float32(param.scale)
        self.color: bool | None = True if param.force_color else False if param.force_gray else None
        self.random_crop = bool(self.crop_size) and phase == TRAIN
        self.rng = generator_from(rng) if self.mirror or self.random_crop else None
        self.mean_file: str = param.mean_file
        self.mean = read_mean_image(param.mean_file) if param.HasField("mean_file") else None
        self.mean_values = np.array(param.mean_value, dtype=np.float32)

    def shape_of(self, shape: tuple[int, ...], where: str) -> tuple[int, int, int]:
        """(C, h, w) of what becomes of an image of ``shape`` (C, H, W).

        Raises:
            DataError: crop_size is larger than the image, or the mean is not of its shape; the message
                begins with ``where``.
        """
        channels, height, width = shape
        if min(shape) <= 0:
            raise DataError(f"{where}: the image is empty: (channels, height, width) = {shape}")
        crop = self.crop_size
        if crop > min(height, width):
            raise DataError(f"{where}: crop_size {crop} is larger than the image, {height} high and {width} wide")
        if self.mean is not None and self.mean.shape != shape:
            raise DataError(
                f"{where}: the image has shape {shape} and mean_file {self.mean_file} {self.mean.shape}; a mean file "
                "must have the shape of the image before it is cropped: compute it from these images, or use mean_value"
            )
        if self.mean_values.size not in (0, 1, channels):
            raise DataError(
                f"{where}: {self.mean_values.size} mean_value for {channels} channel(s): give one, or one for each"
            )
        return (channels, crop, crop) if crop else (channels, height, width)

    def __call__(self, image: np.ndarray, out: np.ndarray, where: str) -> None:
        """Write the transformed ``image`` (C, H, W), uint8 or float, into ``out``.

        Raises:
            DataError: as ``shape_of``, or ``out`` does not have that shape.
        """
        shape = self.shape_of(image.shape, where)
        if shape != out.shape:
            raise DataError(
                f"{where}: the image becomes {shape}, the first of its batch {out.shape}: all images of a batch must "
                "have one shape; give crop_size, resize them, or use batch_size 1"
            )
        mirrored = self.mirror and bool(self.draw(2))
        y, x = self._corner(image.shape[1:], shape[1:])
        part = (slice(None), slice(y, y + shape[1]), slice(x, x + shape[2]))
        pixels, mean = image[part], None if self.mean is None else self.mean[part]
        if mirrored:
            pixels, mean = flipped(pixels), None if mean is None else flipped(mean)
        if mean is None and self.mean_values.size:
            mean = self.mean_values.reshape(-1, 1, 1)
        if mean is None:
            out[...] = pixels
        else:
            np.subtract(pixels, mean, out=out, dtype=out.dtype)
        if self.scale != 1:
            out *= self.scale

    def draw(self, n: int) -> int:
        """A number of ``[0, n)`` from the transformer's generator."""
        assert self.rng is not None
        return int(self.rng.integers(n))

    def _corner(self, size: tuple[int, ...], cropped: tuple[int, ...]) -> tuple[int, int]:
        room = [full - part for full, part in zip(size, cropped, strict=True)]
        if not self.random_crop:
            return room[0] // 2, room[1] // 2
        y = self.draw(room[0] + 1)
        return y, self.draw(room[1] + 1)


def flipped(planes: np.ndarray) -> np.ndarray:
    """``planes`` (C, H, W) left to right, as a new array."""
    import cv2

    # One image of C * H rows: several times faster than NumPy, which copies byte by byte.
    rows = np.ascontiguousarray(planes).reshape(-1, planes.shape[2])
    return np.asarray(cv2.flip(rows, 1)).reshape(planes.shape)


def read_mean_image(path: str) -> np.ndarray:
    """The (C, H, W) float32 mean of a .binaryproto.

    Raises:
        DataError: the file is missing, damaged, or not one image.
    """
    try:
        mean = weights.read_mean(path)
    except WeightsError as error:
        raise DataError(f"mean_file {error}") from error
    if mean.ndim == 4 and mean.shape[0] == 1:
        mean = mean[0]
    if mean.ndim != 3:
        raise DataError(f"mean_file {path}: expected one image, (1, C, H, W), got shape {mean.shape}")
    return np.ascontiguousarray(mean, dtype=np.float32)


def decode_image(content: bytes, color: bool | None, where: str) -> np.ndarray:
    """An image file's ``content`` as uint8: (H, W, 3) in B, G, R if ``color``, (H, W) if not.

    None leaves it as stored: (H, W), (H, W, 3) or, with an alpha channel, (H, W, 4).

    Raises:
        DataError: it is empty, cut short, no image, or not of 8 bits; the message begins with ``where``.
    """
    import cv2

    if not content:
        raise DataError(f"{where}: the image file is empty")
    # Whole JPEG files end with this mark, and looking through the file for it costs a third of decoding.
    if not content.endswith(b"\xff\xd9") and is_cut_short(content):
        raise DataError(f"{where}: the image file is cut short ({len(content)} bytes); fetch it again")
    if color is None:
        flags = cv2.IMREAD_UNCHANGED
    else:
        flags = (cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags)
    except cv2.error as error:  # larger than OpenCV's limit on pixels
        raise DataError(f"{where}: OpenCV cannot read the image: {error}") from error
    if image is None:
        raise DataError(f"{where}: not an image that OpenCV can read, or a damaged one")
    if image.dtype != np.uint8:
        raise DataError(f"{where}: the image has {image.dtype} pixels, only 8 bits a channel are read")
    return np.asarray(image)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """An image file's content; DataError if it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot read the image: {error.strerror or error}") from error


def read_image(path: str | os.PathLike[str], color: bool, size: tuple[int, int] | None = None) -> np.ndarray:
    """The image file ``path``, decoded as by ``decode_image``, scaled to ``size`` (height, width) if given."""
    image = decode_image(read_file(path), color, os.fspath(path))
    if size is None or size == image.shape[:2]:
        return image
    import cv2

    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR))


def planes_of(image: np.ndarray) -> np.ndarray:
    """An (H, W) or (H, W, C) image as contiguous (C, H, W)."""
    import cv2

    if image.ndim == 2:
        return image[np.newaxis]
    planes = np.empty((image.shape[2], *image.shape[:2]), dtype=image.dtype)
    cv2.split(image, list(planes))  # into the planes; NumPy's transposition takes four times as long
    return planes


def parse_datum(value: bytes, where: str) -> Any:
    """The Datum of a record's ``value``; DataError, which begins with ``where``, if it is none."""
    datum = caffe_pb2.Datum()
    try:
        datum.ParseFromString(value)
    except DecodeError as error:
        raise DataError(f"{where}: not a Datum message, or a damaged one ({len(value)} bytes)") from error
    return datum


def datum_to_array(datum: Any, color: bool | None, where: str) -> np.ndarray:
    """The image of a Datum, (C, H, W): uint8 from ``data`` or an encoded image, else float32.

    ``color`` is for encoded ones: True B, G, R, False grey, None as stored. The array may be read-only.

    Raises:
        DataError: it has not as many values as its shape says, or its image cannot be decoded.
    """
    if datum.encoded:
        return planes_of(decode_image(datum.data, color, where))
    if color is not None:
        _warn_not_encoded()
    shape = (datum.channels, datum.height, datum.width)
    found = len(datum.data) or len(datum.float_data)
    if min(shape) <= 0 or found != shape[0] * shape[1] * shape[2]:
        raise DataError(
            f"{where}: a datum of (channels, height, width) = {shape} has {found} values; is it damaged, or an encoded "
            "image without encoded: true?"
        )
    if datum.data:
        return np.frombuffer(datum.data, dtype=np.uint8).reshape(shape)
    return np.array(datum.float_data, dtype=np.float32).reshape(shape)


@functools.cache
def _warn_not_encoded() -> None:
    log.warning("force_color and force_gray are for encoded images only; this database holds raw pixels")
