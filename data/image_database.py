"""Databases of images and features, made as Caffe's tools convert_imageset, compute_image_mean and
extract_features make them.

A record's value is a Datum; the key of an image is its number, eight digits, and its path, so that
records come in the order in which they were written.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from caffe_lite.data.databases import Records, show_key, write_database
from caffe_lite.data.transformer import datum_to_array, parse_datum, planes_of, read_file, read_image
from caffe_lite.errors import DataError
from caffe_lite.proto import caffe_pb2

log = logging.getLogger("caffe_lite")


def image_datum(
    path: str,
    label: int,
    *,
    color: bool = True,
    size: tuple[int, int] | None = None,
    encode_type: str = "",
) -> Any:
    """The Datum of an image file: raw (C, H, W) bytes in B, G, R, or a compressed image if ``encode_type``.

    ``size`` is (height, width). A file that has the ending of ``encode_type`` and needs no change is
    kept byte for byte, as Caffe does.

    Raises:
        DataError: the file cannot be read, or OpenCV cannot write ``encode_type``.
    """
    datum = caffe_pb2.Datum(label=label)
    kind = encode_type.lower().lstrip(".")
    image = read_image(path, color, size)
    if kind:
        datum.encoded = True
        unchanged = size is None and color and _ending(path) == kind
        datum.data = read_file(path) if unchanged else _encode(image, kind, path)
        return datum
    planes = planes_of(image)
    datum.channels, datum.height, datum.width = planes.shape
    datum.data = planes.tobytes()
    return datum


def _ending(path: str) -> str:
    ending = os.path.splitext(path)[1].lower().lstrip(".")
    return "jpg" if ending == "jpeg" else ending


def _encode(image: np.ndarray, kind: str, path: str) -> bytes:
    import cv2

    try:
        done, content = cv2.imencode(f".{kind}", image)
    except cv2.error as error:
        raise DataError(f"{path}: OpenCV cannot write images of type {kind!r}; try jpg or png") from error
    if not done:
        raise DataError(f"{path}: OpenCV could not write it as {kind!r}")
    return bytes(content)


def convert_imageset(
    images: Iterable[tuple[str, int]],
    root: str,
    database: str,
    *,
    backend: str = "LMDB",
    color: bool = True,
    size: tuple[int, int] | None = None,
    check_size: bool = False,
    encode_type: str = "",
) -> int:
    """Write ``images``, (path below ``root``, label), into a new database; how many.

    Raises:
        DataError: an image cannot be read or, with ``check_size``, has not the size of the first; the
            database exists already or cannot be written. Nothing is left behind.
    """

    def records() -> Iterator[tuple[bytes, bytes]]:
        expected: tuple[int, ...] | None = None
        for number, (name, label) in enumerate(images):
            path = os.path.join(root, name)
            datum = image_datum(path, label, color=color, size=size, encode_type=encode_type)
            if check_size and not datum.encoded:
                shape = datum.channels, datum.height, datum.width
                expected = expected or shape
                if shape != expected:
                    raise DataError(f"{path}: the image is {shape}, the first was {expected} (channels, height, width)")
            yield f"{number:08d}_{name}".encode("utf-8", "surrogateescape"), datum.SerializeToString()

    return write_database(database, records(), backend)


def mean_image(database: str, backend: str = "LMDB") -> tuple[np.ndarray, int]:
    """(mean (C, H, W) float32, number of images) of a database of images of one size.

    Pixels are summed exactly; Caffe sums in float32, which is the same up to 65,793 images.

    Raises:
        DataError: the database is missing, damaged or empty, or its images differ in size.
    """
    records = Records(database, backend)
    first, total, count = records.key, None, 0
    while count == 0 or records.key != first:
        key, value = records.read()
        where = f"{database}: record {show_key(key)}"
        image = datum_to_array(parse_datum(value, where), None, where)
        if total is None:
            total = np.zeros(image.shape, np.uint64 if image.dtype == np.uint8 else np.float64)
        if image.shape != total.shape:
            raise DataError(f"{where}: the image is {image.shape}, the first was {total.shape}; scale them to one size")
        total += image
        count += 1
        if count % 10000 == 0:
            log.info("Processed %d files.", count)
    assert total is not None
    return (total / count).astype(np.float32), count


def extract_features(
    net: Any, blobs: Sequence[str], databases: Sequence[str], batches: int, backend: str = "LMDB"
) -> int:
    """Run ``net`` ``batches`` times and write each blob's items as float Datums, one database a blob; how many.

    An item of a blob (N, ...) becomes a Datum of the channels, height and width that the blob has (1
    for axes that it has not), its key the item's number in ten digits.

    Raises:
        NetError: the net has no such blob.
        DataError: as many databases as blobs are needed; one exists already or cannot be written.
    """
    if len(blobs) != len(databases):
        raise DataError(f"{len(blobs)} blob(s) and {len(databases)} database(s): give one database for each blob")
    for path in databases:
        if os.path.lexists(path):
            raise DataError(f"{path}: already exists: remove it first, or choose another name")
    net.check_blob_names(blobs)
    with contextlib.ExitStack() as stack:  # a database is written in one go, so features wait in files, not in memory
        waiting = [_Waiting(stack.enter_context(tempfile.TemporaryFile())) for _ in blobs]
        for _ in range(batches):
            net.forward()
            for features, name in zip(waiting, blobs, strict=True):
                features.add(net.blobs[name].data)
        count = 0
        for features, path in zip(waiting, databases, strict=True):
            count = write_database(path, features.records(), backend)
    return count


class _Waiting:
    """Batches of features, in a temporary file until they are written as records."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.shapes: list[tuple[int, ...]] = []

    def add(self, batch: np.ndarray) -> None:
        self.shapes.append(batch.shape)
        self.stream.write(np.ascontiguousarray(batch, dtype=np.float32).data)

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        number = 0
        self.stream.seek(0)
        for n, *item in self.shapes:
            channels, height = (*item, 1, 1)[:2]
            for _ in range(n):
                values = np.frombuffer(self.stream.read(4 * math.prod(item)), dtype=np.float32)
                datum = caffe_pb2.Datum(channels=channels, height=height, width=math.prod(item[2:]))
                datum.float_data.extend(values.tolist())
                yield f"{number:010d}".encode(), datum.SerializeToString()
                number += 1
