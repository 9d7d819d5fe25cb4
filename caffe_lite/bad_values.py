"""NaN and infinity in a net: where they appeared first, on which images, and how to get rid of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caffe_lite.blob import Blob

if TYPE_CHECKING:
    from caffe_lite.net import Net

SHOWN = 16  # images that a message names


def first_in_forward(net: Net) -> str:
    """``"layer 'ip2' (InnerProduct), parameter 0"``: the first layer, in their order, with a bad value.

    A parameter is named before the top that it spoilt. A blob that a later layer changed in place is
    seen as that layer left it, and named with the layer that made it. "" if there is none.
    """
    for layer, _, tops in net.layer_blobs():
        found = [f"parameter {i}" for i, blob in enumerate(layer.blobs) if not finite(blob.on_device, "data")]
        found += [f"top {name!r}" for name, blob in tops if not finite(blob, "data")]
        if found:
            return f"layer {layer.name!r} ({layer.type}), {found[0]}"
    return ""


def first_in_backward(net: Net) -> str:
    """The first layer, from the last one down, whose backward made a bad gradient; "" if none did."""
    for node in reversed(net.nodes):
        if not node.needs_backward:
            continue
        found = [
            f"diff of bottom {name!r}"
            for name, blob, wanted in zip(node.bottom_names, node.bottoms, node.propagate_down, strict=True)
            if wanted and blob.diff_in_use and not finite(blob, "diff")
        ]
        blobs = [blob.on_device for blob in node.layer.blobs]
        found += [
            f"diff of parameter {i}" for i, blob in enumerate(blobs) if blob.diff_in_use and not finite(blob, "diff")
        ]
        if found:
            return f"layer {node.layer.name!r} ({node.layer.type}), {found[0]}"
    return ""


def explain_loss(net: Net, loss: float) -> str:
    """What is wrong with a ``loss`` that is not finite, after a forward of ``net``."""
    first = first_in_forward(net)
    return _with_images(net, f"the loss is {loss}", first or "no blob holds one: the sum of the losses overflowed")


def explain_gradients(net: Net) -> str:
    """What is wrong with gradients that are not finite, after a backward of ``net``."""
    return _with_images(net, "a gradient is NaN or infinite", first_in_backward(net))


def copy_statistics(net: Net) -> list[tuple[Blob, Any]]:
    """The parameters that a forward changes (BatchNorm's), each with a copy of its values."""
    layers = (layer for layer in net.layers if layer.learns_nothing)
    return [(blob.on_device, blob.on_device.data.copy()) for layer in layers for blob in layer.blobs]


def undo_forward(net: Net, statistics: list[tuple[Blob, Any]]) -> None:
    """Forget what a bad forward would hand on to the next: statistics as copied before, recurrent states of zero."""
    for blob, values in statistics:
        blob.data[...] = values
    for layer in net.layers:
        layer.forget()


def _with_images(net: Net, what: str, first: str) -> str:
    images = [str(path) for layer in net.layers for path in getattr(layer, "minibatch_images", ())]
    more = f" and {len(images) - SHOWN} more" if len(images) > SHOWN else ""
    shown = f"; images of the minibatch: {', '.join(images[:SHOWN])}{more}" if images else ""
    return f"{what}; first seen in {first}{shown}" if first.startswith("layer") else f"{what}; {first}{shown}"


def finite(blob: Blob, part: str) -> bool:
    """Is every element of ``"data"`` or ``"diff"`` finite? On a GPU this waits for the device."""
    return bool(blob.device.xp.isfinite(getattr(blob, part)).all())
