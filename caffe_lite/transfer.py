"""Trained parameters from net to net and to files: copied or shared by layer name, as Caffe does.

Layers of the source that the net does not have are passed over (and reported); a layer that both
have must have as many parameter blobs of the same shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from caffe_lite import caffemodel, weights
from caffe_lite.caffemodel import TrainedNet
from caffe_lite.errors import WeightsError
from caffe_lite.proto import caffe_pb2
from caffe_lite.stored_blobs import StoredBlob

if TYPE_CHECKING:
    from caffe_lite.net import Net


@dataclass
class CopyReport:
    """What a copy did: layer names of the source, in its order, and layers of the net left as they were.

    ``str(report)`` is a table. A copy never happens while ``mismatched`` has an entry.
    """

    copied: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # in the source only
    untouched: list[str] = field(default_factory=list)  # in the net only, with parameters
    mismatched: dict[str, str] = field(default_factory=dict)  # in both, but not alike: what differs
    notes: list[str] = field(default_factory=list)  # what of the source was not understood

    def __str__(self) -> str:
        rows = [("copied", name, "") for name in self.copied]
        rows += [("ignored", name, "in the file only") for name in self.ignored]
        rows += [("untouched", name, "in the net only") for name in self.untouched]
        rows += [("mismatched", name, why) for name, why in self.mismatched.items()]
        width = max((len(name) for _, name, _ in rows), default=0)
        lines = [f"{what:<10}  {name:<{width}}  {why}".rstrip() for what, name, why in rows]
        counts = [(len(self.copied), "copied"), (len(self.ignored), "ignored"), (len(self.untouched), "untouched")]
        counts += [(len(self.mismatched), "mismatched")]
        return "\n".join([*lines, *self.notes, ", ".join(f"{count} {what}" for count, what in counts)])

    def refuse_incomplete(self, origin: str) -> None:
        """Refuse a copy after which anything of the file or of the net would be left over.

        Raises:
            WeightsError: with the table as its text.
        """
        if self.ignored or self.untouched or self.mismatched:
            raise WeightsError(f"{origin}: does not fit the net exactly, nothing was copied:\n{self}")

    def refuse_mismatched(self, origin: str) -> None:
        """Refuse a copy of layers that differ.

        Raises:
            WeightsError: with every difference.
        """
        if self.mismatched:
            raise WeightsError("\n".join(f"{origin}: {why}" for why in self.mismatched.values()))


def copy_trained_layers(net: Net, source: TrainedNet, origin: str, strict: bool = False) -> CopyReport:
    """Copy the blobs of the open .caffemodel ``source``, named ``origin`` in errors, into ``net``.

    Everything is checked before anything is written. ``strict``: every layer with parameters,
    of the file and of the net, must be copied.

    Raises:
        WeightsError: a layer's number of blobs or a shape differs, or too much or too little if
            ``strict``; nothing was copied.
    """
    report = compare_layers(net, source, origin)
    if strict:
        report.refuse_incomplete(origin)
    report.refuse_mismatched(origin)
    for name, _, blobs in _common_layers(net, source):
        for blob, stored in zip(net.layer_dict[name].blobs, blobs, strict=True):
            stored.read_into(blob.data.reshape(-1))
    return report


def compare_layers(net: Net, source: TrainedNet, origin: str) -> CopyReport:
    """What a copy of ``source`` would do.

    Raises:
        WeightsError: the file contradicts itself: two layers of one name, values that do not fit their shape.
    """
    report = CopyReport(notes=list(source.notes))
    _check_claims(source, origin)
    for layer_param in source.param.layer:
        if layer_param.blobs and layer_param.name not in net.layer_dict:
            report.ignored.append(layer_param.name)
    for name, targets, blobs in _common_layers(net, source):
        why = _difference(name, targets, blobs)
        if why:
            report.mismatched[name] = why
        else:
            report.copied.append(name)
    done = {*report.copied, *report.mismatched}
    report.untouched = [name for name, blobs in net.params.items() if blobs and name not in done]
    return report


def _check_claims(source: TrainedNet, origin: str) -> None:
    seen: set[str] = set()
    for layer_param, blobs in zip(source.param.layer, source.blobs, strict=True):
        name = layer_param.name
        if blobs and name in seen:
            raise WeightsError(f"{origin}: two layers named {name!r} have parameters: which are meant cannot be told")
        seen |= {name} if blobs else set()
        for index, blob in enumerate(blobs):
            try:
                blob.check()
            except WeightsError as error:
                raise WeightsError(f"{origin}: layer {name!r}, parameter {index}: {error}") from error


def _common_layers(net: Net, source: TrainedNet) -> Iterator[tuple[str, Sequence[Any], list[StoredBlob]]]:
    """(name, the net's blobs, the file's) of each layer that both have, if either has blobs."""
    for layer_param, blobs in zip(source.param.layer, source.blobs, strict=True):
        layer = net.layer_dict.get(layer_param.name)
        if layer is not None and (blobs or layer.blobs):
            yield layer_param.name, layer.blobs, blobs


def _difference(name: str, targets: Sequence[Any], blobs: list[StoredBlob]) -> str:
    """Why the blobs of a layer cannot be copied, or ""."""
    if len(targets) != len(blobs):
        return (
            f"layer {name!r} has {len(blobs)} parameter blob(s) in the file, {len(targets)} in the net; "
            "if the net's layer is a different one, give it another name"
        )
    for index, (target, stored) in enumerate(zip(targets, blobs, strict=True)):
        if not _fits(stored, target.shape):
            return (
                f"layer {name!r}, parameter {index}: shape {stored.shape} in the file, {tuple(target.shape)} in "
                "the net; rename the layer in the prototxt to train it anew, or use the prototxt of the file"
            )
    return ""


def _fits(stored: StoredBlob, expected: tuple[int, ...]) -> bool:
    """Shapes must be equal; a legacy 4-D one is compared from the right, its leading axes being 1."""
    if stored.has_legacy_shape and len(expected) <= 4:
        return stored.shape == (1,) * (4 - len(expected)) + tuple(expected)
    return stored.shape == tuple(expected)


def share_trained_layers(net: Net, other: Net) -> None:
    """Let ``net`` use the memory of ``other``'s parameters wherever layer names agree."""
    for name, layer in other.layer_dict.items():
        if name not in net.layer_dict:
            continue
        targets = net.layer_dict[name].blobs
        if len(targets) != len(layer.blobs):
            raise WeightsError(
                f"cannot share layer {name!r}: {len(layer.blobs)} parameter blob(s) there, {len(targets)} here"
            )
        for index, (blob, source) in enumerate(zip(targets, layer.blobs, strict=True)):
            if blob.shape != source.shape:
                raise WeightsError(
                    f"cannot share layer {name!r}, parameter {index}: shape {source.shape} there, {blob.shape} here"
                )
            blob.on_device.share_data(source.on_device)


def write_net(net: Net, path: str, write_diff: bool = False) -> None:
    """Write ``net`` as .caffemodel: the bytes of ``net_to_proto``, layer by layer.

    Raises:
        WeightsError: the net is larger than 2 GiB, or the file cannot be written.
    """
    caffemodel.write_layers(path, net.name, _layers(net, write_diff))


def encoded_net(net: Net, path: str, write_diff: bool = False) -> Iterator[Any]:
    """The bytes that ``write_net`` writes, in parts."""
    return caffemodel.encoded_layers(path, net.name, _layers(net, write_diff))


def _layers(net: Net, write_diff: bool) -> Iterator[tuple[Any, Iterator[tuple[Any, Any]]]]:
    for layer in net.layers:
        yield layer.layer_param, _host_arrays(net, layer, write_diff)


def net_to_proto(net: Net, write_diff: bool = False) -> Any:
    """``net`` as a NetParameter: its layers, Splits included, with their parameters."""
    param = caffe_pb2.NetParameter(name=net.name)
    for layer in net.layers:
        layer_param = param.layer.add()
        layer_param.CopyFrom(layer.layer_param)
        del layer_param.blobs[:]
        for data, diff in _host_arrays(net, layer, write_diff):
            weights.array_to_blob(data, layer_param.blobs.add(), diff)
    return param


def _host_arrays(net: Net, layer: Any, write_diff: bool) -> Iterator[tuple[Any, Any]]:
    for blob in layer.blobs:
        yield net.device.to_host(blob.data), net.device.to_host(blob.diff) if write_diff else None
