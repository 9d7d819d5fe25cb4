"""Images, messages and arrays into each other, as pycaffe's io.

Images are (H, W, C) float32, channels R, G, B, values in [0, 1]; what a net takes is (C, H, W) or
(N, C, H, W), which :class:`Transformer` makes of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from caffe_lite.blob_proto import array_to_blob, blob_to_array
from caffe_lite.errors import DataError, ShapeError
from caffe_lite.proto import caffe_pb2

LUMINANCE = np.array([0.2125, 0.7154, 0.0721])  # of R, G, B: ITU-R BT.709, as scikit-image's rgb2gray


class ImageNotFoundError(DataError, FileNotFoundError):
    """An image file that cannot be opened."""

    __str__ = Exception.__str__  # OSError would put its own words together


# ---- messages


def blobproto_to_array(blob: Any, return_diff: bool = False) -> np.ndarray:
    """The values of a BlobProto, its gradient if ``return_diff``, as float64 in the shape that it states.

    Raises:
        WeightsError: not as many values as the shape says, or none (a ValueError, too).
    """
    return blob_to_array(blob, diff=return_diff).astype(np.float64)


def array_to_blobproto(arr: np.ndarray, diff: np.ndarray | None = None) -> Any:
    """A BlobProto with ``arr``, of any shape, as its float32 data and ``diff`` as its diff."""
    blob = caffe_pb2.BlobProto()
    array_to_blob(np.asarray(arr, np.float32), blob, None if diff is None else np.asarray(diff, np.float32))
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[np.ndarray]) -> bytes:
    """Arrays as the encoding of a BlobProtoVector."""
    return caffe_pb2.BlobProtoVector(blobs=[array_to_blobproto(array) for array in arraylist]).SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[np.ndarray]:
    """The arrays in the encoding of a BlobProtoVector."""
    return [blobproto_to_array(blob) for blob in caffe_pb2.BlobProtoVector.FromString(str).blobs]


def array_to_datum(arr: np.ndarray, label: int | None = None) -> Any:
    """A Datum of an array (C, H, W): uint8 as bytes, anything else as float32.

    Raises:
        ShapeError: not three axes (a ValueError, too).
    """
    if arr.ndim != 3:
        raise ShapeError(f"a Datum holds an array (C, H, W), got shape {arr.shape}")
    datum = caffe_pb2.Datum()
    datum.channels, datum.height, datum.width = arr.shape
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(np.asarray(arr, np.float64).ravel())
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: Any) -> np.ndarray:
    """The array (C, H, W) in a Datum: uint8, or float64 if it holds floats.

    Raises:
        ShapeError: not as many values as channels, height and width say.
        DataError: the Datum holds an encoded image.
    """
    if datum.encoded:
        raise DataError("the Datum holds an encoded image: decode datum.data, for example with OpenCV's imdecode")
    shape = datum.channels, datum.height, datum.width
    values = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float64)
    if values.size != math.prod(shape):
        raise ShapeError(f"a Datum of {shape} (C, H, W) needs {math.prod(shape)} values and has {values.size}")
    return values.reshape(shape).copy()


# ---- images


def load_image(filename: str | os.PathLike[str], color: bool = True) -> np.ndarray:
    """An image file as (H, W, 3) float32 in [0, 1], R, G, B; (H, W, 1) luminance if not ``color``.

    Grey is repeated in three channels, transparency is dropped, an EXIF orientation is not applied.

    Raises:
        DataError: the file is no image; if it is not there, a FileNotFoundError, too.
    """
    import cv2

    path = os.fspath(filename)
    try:
        with open(path, "rb") as stream:
            content = np.frombuffer(stream.read(), np.uint8)
    except OSError as error:
        raise ImageNotFoundError(f"{path}: cannot be read: {error.strerror or error}") from error
    stored = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if stored is None:
        raise DataError(f"{path}: not an image that OpenCV can read ({content.size} bytes)")
    image = stored / (255 if stored.dtype == np.uint8 else 65535) if stored.dtype.kind == "u" else stored
    image = image[..., np.newaxis] if image.ndim == 2 else image[..., 2::-1]
    if color:
        image = np.broadcast_to(image, (*image.shape[:2], 3))
    elif image.shape[2] == 3:
        image = image @ LUMINANCE[:, np.newaxis]
    return np.ascontiguousarray(image, np.float32)


def resize_image(im: np.ndarray, new_dims: Sequence[int] | np.ndarray, interp_order: int = 1) -> np.ndarray:
    """Image (H, W, C) to ``new_dims`` (H', W'), float32, by splines of ``interp_order`` (1: bilinear).

    Pixels are areas: the centre of the first lies at half a pixel. With one or three channels what is
    outside the image counts as its smallest value, and results stay in the image's range, as in
    scikit-image's resize of Caffe's time without anti-aliasing; with others the first and last pixels
    keep their places, as scipy's zoom does it. pycaffe makes the same distinction.
    """
    from scipy.ndimage import zoom

    im = np.asarray(im)
    factors = [int(new) / old for new, old in zip(new_dims, im.shape[:2], strict=True)] + [1.0] * (im.ndim - 2)
    if im.shape[-1] not in (1, 3):
        return zoom(im, factors, order=interp_order).astype(np.float32)
    low, high = float(im.min()), float(im.max())
    if low == high:
        return np.full((*(int(d) for d in new_dims), im.shape[-1]), low, np.float32)
    scaled = (im.astype(np.float64) - low) / (high - low)
    resized = zoom(scaled, factors, order=interp_order, mode="grid-constant", cval=0.0, grid_mode=True)
    return (np.clip(resized, 0, 1) * (high - low) + low).astype(np.float32)


def oversample(images: Sequence[np.ndarray] | np.ndarray, crop_dims: Sequence[int] | np.ndarray) -> np.ndarray:
    """Ten crops of each image (H, W, C): corners, centre, and their mirror images, (10 N, h, w, C) float32.

    Raises:
        ShapeError: the crops are larger than the images.
    """
    height, width, channels = images[0].shape
    h, w = (int(d) for d in crop_dims)
    if h > height or w > width:
        raise ShapeError(f"oversample: a crop of {(h, w)} does not fit into an image of {(height, width)}")
    starts = [(y, x) for y in (0, height - h) for x in (0, width - w)] + [((height - h) // 2, (width - w) // 2)]
    crops = np.empty((len(images), 2, 5, h, w, channels), np.float32)
    for image, of_image in zip(images, crops, strict=True):
        for k, (y, x) in enumerate(starts):
            of_image[0, k] = image[y : y + h, x : x + w]
        of_image[1] = of_image[0, :, :, ::-1]
    return crops.reshape(-1, h, w, channels)


class Transformer:
    """Brings images to the form of a net's inputs, and back.

    ``inputs`` maps the name of each input to its shape: ``{"data": net.blobs["data"].data.shape}``. In
    this order, each step if it was set: float32, resize to the input's H, W; ``transpose``; channel
    swap; times ``raw_scale``; minus ``mean``; times ``input_scale``.

    Differs from pycaffe: the caller's array is never changed.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, tuple[int, ...]] = {}
        self.channel_swap: dict[str, tuple[int, ...]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, np.ndarray] = {}
        self.input_scale: dict[str, float] = {}

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise DataError(f"{in_} is not one of the net inputs: {sorted(self.inputs)}")
        return self.inputs[in_]

    def preprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """Image (H, W, C) of any size as what input ``in_`` takes: (C, H', W') float32.

        Raises:
            DataError: ``in_`` is no input.
        """
        dims = self._shape(in_)[2:]
        image = np.array(data, dtype=np.float32)
        if image.shape[:2] != dims:
            image = resize_image(image, dims)
        if in_ in self.transpose:
            image = image.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            image = image[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            image *= self.raw_scale[in_]
        if in_ in self.mean:
            image -= self.mean[in_]
        if in_ in self.input_scale:
            image *= self.input_scale[in_]
        return image

    def deprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """What ``preprocess`` made, (C, H, W) or (1, C, H, W), as an image again; its size stays.

        Raises:
            DataError: ``in_`` is no input.
        """
        self._shape(in_)
        image = np.asarray(data).copy().squeeze()
        if in_ in self.input_scale:
            image /= self.input_scale[in_]
        if in_ in self.mean:
            image += self.mean[in_]
        if in_ in self.raw_scale:
            image /= self.raw_scale[in_]
        if in_ in self.channel_swap:
            image = image[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            image = image.transpose(np.argsort(self.transpose[in_]))
        return image

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """The order of axes: (2, 0, 1) brings (H, W, C) to (C, H, W).

        Raises:
            ShapeError: not one number for each axis of the input but the first.
        """
        axes = len(self._shape(in_)) - 1
        if len(order) != axes:
            raise ShapeError(
                f"transpose of {in_} needs {axes} axes, one for each of the input but the first; got {order}"
            )
        self.transpose[in_] = tuple(order)

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """The order of channels: (2, 1, 0) brings R, G, B to the B, G, R of Caffe's own nets.

        Raises:
            ShapeError: not one number for each channel of the input.
        """
        channels = self._shape(in_)[1]
        if len(order) != channels:
            raise ShapeError(f"channel swap of {in_} needs {channels} numbers, one for each channel; got {order}")
        self.channel_swap[in_] = tuple(order)

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """A factor before the mean is subtracted: 255 for images in [0, 1] and a mean in [0, 255]."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: np.ndarray) -> None:
        """The mean: (C,) a value for each channel, or (C, H, W) or (H, W) a value for each pixel.

        A mean of pixels is resized if it has not the input's H, W.

        Raises:
            ShapeError: another number of channels or axes (a ValueError, too).
        """
        shape = self._shape(in_)
        mean = np.asarray(mean)
        if mean.ndim not in (1, 2, 3) or (mean.ndim != 2 and mean.shape[0] not in (1, shape[1])):
            raise ShapeError(f"the mean of {in_} has shape {mean.shape}; the input has {shape[1:]} (C, H, W)")
        if mean.ndim == 1:
            if mean.shape != shape[1:2]:
                raise ShapeError(f"the mean of {in_} has {mean.shape[0]} channels, the input {shape[1]}")
            mean = mean[:, np.newaxis, np.newaxis]
        else:
            mean = mean[np.newaxis] if mean.ndim == 2 else mean
            if mean.shape[1:] != shape[2:]:
                mean = resize_image(mean.transpose(1, 2, 0), shape[2:]).transpose(2, 0, 1)
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """A factor after the mean was subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale
