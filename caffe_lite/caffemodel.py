"""Trained nets in .caffemodel files: opened without their values, which are then read one blob at a time.

A .caffemodel is an encoded NetParameter of which nearly everything is the values of parameter blobs.
:func:`open_net` goes through the encoding, takes note of where the values are and decodes the rest.
Copying them into a net therefore needs no more memory than the net itself has. What other versions
of Caffe wrote is read as well: layers of 2013 and 2014, shapes as num, channels, height and width,
float64, values before their shape, in several pieces, packed or not.

Only a layer's name, type and blobs matter for its parameters. Forks of Caffe gave the same number to
different fields of LayerParameter; what does not decode as the field that the number has here is
left out, and said in ``notes``.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from google.protobuf import unknown_fields

from caffe_lite import blob_proto, wire
from caffe_lite.binary_file import check_message, check_size, open_content, replacing, write_message
from caffe_lite.errors import CaffeError, WeightsError
from caffe_lite.proto import caffe_pb2
from caffe_lite.stored_blobs import LAYERS, BlobReader
from caffe_lite.upgrade import UpgradeReport, upgrade_net

log = logging.getLogger("caffe_lite")


class TrainedNet:
    """An open .caffemodel: ``param`` is its NetParameter, up to date, whose blobs have no values.

    ``blobs[i][j]`` are the values of ``param.layer[i].blobs[j]``; ``notes`` says what of the file was
    not understood.
    """

    def __init__(self, content: wire.FileContent, path: str, report: UpgradeReport | None = None) -> None:
        reader = BlobReader(content, path, "a .caffemodel")
        self.param = caffe_pb2.NetParameter()
        self.param.ParseFromString(reader.message(0, len(content), self.param.DESCRIPTOR))
        check_message(self.param, path, "a .caffemodel")
        self.notes = reader.notes + [note for layer in _layers(self.param) for note in _foreign(layer)]
        stored = iter(reader.blobs)
        for layer in _layers(self.param):
            for proto in layer.blobs:
                blob = next(stored)
                blob.shape, blob.has_legacy_shape = blob_proto.blob_shape(proto), blob_proto.has_legacy_shape(proto)
        try:
            upgrade_net(self.param, report=report, origin=path)
        except CaffeError as error:
            raise WeightsError(f"{path}: {error}") from error
        in_order = iter(reader.blobs)  # upgrading changes no layer's place but that of layers without blobs
        self.blobs = [[next(in_order) for _ in layer.blobs] for layer in self.param.layer]


@contextmanager
def open_net(path: str | os.PathLike[str], report: UpgradeReport | None = None) -> Iterator[TrainedNet]:
    """Open a .caffemodel to read from; what is odd about it goes to the log, upgrades to ``report`` if one is given.

    Raises:
        WeightsError: the file is missing, truncated, larger than 2 GiB, or no trained net.
    """
    path = os.fspath(path)
    with open_content(path, caffe_pb2.NetParameter.DESCRIPTOR, "a .caffemodel") as content:
        net = TrainedNet(content, path, report)
        for note in net.notes:
            log.warning("%s: %s", path, note)
        yield net


def read_net(path: str | os.PathLike[str], report: UpgradeReport | None = None) -> Any:
    """The NetParameter in a .caffemodel with its values, brought to the schema of today.

    What was upgraded is added to ``report`` if one is given, else logged.

    Raises:
        WeightsError: as :func:`open_net`.
    """
    with open_net(path, report) as net:
        for layer, blobs in zip(net.param.layer, net.blobs, strict=True):
            for proto, blob in zip(layer.blobs, blobs, strict=True):
                blob.restore(proto)
        return net.param


def _layers(param: Any) -> Iterator[Any]:
    """The layers of a net, in any form, in the order in which it is upgraded."""
    for layer in param.layers:
        if layer.HasField("layer"):
            yield layer.layer
        yield layer
    yield from param.layer


def _foreign(layer: Any) -> Iterator[str]:
    """A note if ``layer`` or one of its parameters has fields that are not in Caffe's schema."""
    numbers = [str(number) for number in _unknown(layer)]
    for field, value in layer.ListFields():
        if hasattr(value, "ListFields") and field.message_type.name not in LAYERS:
            numbers += [f"{field.number}.{number}" for number in _unknown(value)]
    if numbers:
        shown = ", ".join(dict.fromkeys(numbers[:8]))
        yield (
            f"layer {layer.name!r} ({layer.type}): fields of another version of Caffe, not read: number {shown}; "
            "what the layer does comes from the prototxt"
        )


def _unknown(message: Any) -> list[int]:
    """The numbers of the fields of ``message`` that the schema does not have."""
    unknown: Any = unknown_fields.UnknownFieldSet(message)
    return [unknown[i].field_number for i in range(len(unknown))]


# ---- writing


def write_net(path: str | os.PathLike[str], net: Any) -> None:
    """Write a NetParameter as .caffemodel; the file is replaced whole or not at all.

    Raises:
        WeightsError: the net is larger than 2 GiB, or the file cannot be written.
    """
    write_message(path, net)


def write_layers(
    path: str | os.PathLike[str], name: str, layers: Iterable[tuple[Any, Iterable[tuple[np.ndarray, Any]]]]
) -> None:
    """Write layers, each a LayerParameter with the (data, diff or None) of its blobs, as the .caffemodel of a net.

    The bytes are those of the whole NetParameter, which is never made: besides the arrays only one
    layer's parameters are in memory.

    Raises:
        WeightsError: the net is larger than 2 GiB, or the file cannot be written.
    """
    with replacing(path) as stream:
        for part in encoded_layers(path, name, layers):
            stream.write(part)


def encoded_layers(
    path: str | os.PathLike[str], name: str, layers: Iterable[tuple[Any, Iterable[tuple[np.ndarray, Any]]]]
) -> Iterator[Any]:
    """The bytes that ``write_layers`` writes, in parts; WeightsError if they exceed 2 GiB."""
    size = 0
    for part in _encoded(name, layers):
        size += len(part)
        check_size(path, size)
        yield part


def encoded_state(
    path: str | os.PathLike[str], iteration: int, learned_net: str, history: Iterable[np.ndarray], current_step: int
) -> Iterator[Any]:
    """The bytes of a .solverstate in parts, of which one array at a time is in memory; WeightsError as above."""
    number = caffe_pb2.SolverState.DESCRIPTOR.fields_by_name["history"].number
    size = 0
    before = caffe_pb2.SolverState(iter=iteration, learned_net=learned_net).SerializeToString()
    after = caffe_pb2.SolverState(current_step=current_step).SerializeToString()
    for parts in itertools.chain([[before]], (_encoded_blob(number, array, None) for array in history), [[after]]):
        size += sum(map(len, parts))
        check_size(path, size)
        yield from parts


def _encoded_blob(number: int, data: np.ndarray, diff: Any) -> list[Any]:
    """A BlobProto as field ``number`` of a message."""
    encoding = [part for field in blob_proto.encode(data, diff) for part in field]
    return [wire.tag(number, 2), wire.varint(sum(map(len, encoding))), *encoding]


def _encoded(name: str, layers: Iterable[tuple[Any, Iterable[tuple[np.ndarray, Any]]]]) -> Iterator[Any]:
    known = caffe_pb2.NetParameter.DESCRIPTOR.fields_by_name
    blobs_number = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name["blobs"].number
    yield caffe_pb2.NetParameter(name=name).SerializeToString()
    for param, blobs in layers:
        before, after = caffe_pb2.LayerParameter(), caffe_pb2.LayerParameter()
        before.CopyFrom(param)
        after.CopyFrom(param)
        for field, _ in param.ListFields():
            (before if field.number >= blobs_number else after).ClearField(field.name)
        parts: list[Any] = [before.SerializePartialToString()]
        for data, diff in blobs:
            parts += _encoded_blob(blobs_number, data, diff)
        parts.append(after.SerializePartialToString())
        yield wire.tag(known["layer"].number, 2) + wire.varint(sum(map(len, parts)))
        yield from parts
