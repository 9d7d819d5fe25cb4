"""Does a net fit the memory of its GPU? Asked before its first forward and before its first backward.

The estimate is :func:`caffe_lite.summary.memory`'s less what the net holds already, so it is a lower bound: the
kernels' scratch memory comes on top. What the estimate lets through and the GPU has no room for is an error of
the layer that asked for too much. Caffe checks nothing, and names no layer: "out of memory".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from caffe_lite import summary
from caffe_lite.errors import CaffeError, DeviceError, NetError

if TYPE_CHECKING:
    from caffe_lite.layer import Layer
    from caffe_lite.net import Net

KNOBS = (
    "use smaller batches (batch_size or the input's shape), smaller pictures (TRAIN.SCALES and MAX_SIZE, or TEST's), "
    "fewer RoIs (TRAIN.BATCH_SIZE, or fewer proposals for each picture of a test), or a GPU that nobody else uses"
)


def before_run(net: Net, direction: str) -> None:
    """Refuse to run ``net`` for the first time if its GPU has less memory free than that will ask for.

    ``direction``: "forward" or "backward". On the CPU, and at later runs, nothing is done.

    Raises:
        DeviceError: saying what is needed, what is free, the largest layer and what to change.
    """
    if not net.device.is_gpu or direction in net.has_memory_for:
        return
    backward = direction == "backward"
    if not backward:
        net.reshape()  # the shapes that the inputs have now
    needed, free = missing(net, backward), net.device.free_memory()
    if needed <= free:
        net.has_memory_for.add(direction)
        return
    largest = max(net.nodes, key=lambda node: sum(blob.count for blob in node.tops)).layer
    share = "" if backward or net.phase == 0 else ", or share memory between blobs (optimize_memory)"
    raise DeviceError(
        f"net {net.name!r} needs {summary.megabytes(needed)} more to run {direction}, "
        f"and {net.device} has {summary.megabytes(free)} free; the largest outputs are those of "
        f"{largest.explain('').rstrip(': ')}: {KNOBS}{share}"
    )


def missing(net: Net, backward: bool) -> int:
    """Bytes that ``net`` has yet to allocate for its next forward, or for forward and backward.

    A solver's history is none of the net's, and is there before the net runs.
    """
    cost = summary.memory(net)
    blobs = [*net.learnable_params, *(blob for node in net.nodes for blob in node.tops)]
    storages = {id(s): s for blob in blobs for s in blob.storages[: 2 if backward else 1]}
    held = sum(s.flat.nbytes for s in storages.values() if s.flat is not None)
    return max(0, (cost.train - cost.history if backward else cost.test) - held)


def exhausted(layer: Layer, error: MemoryError) -> CaffeError:
    """What to raise when ``layer`` could not allocate what it needs (CuPy's OutOfMemoryError is a MemoryError)."""
    if not layer.device.is_gpu:
        return NetError(layer.explain(f"not enough memory: {error}"))
    return DeviceError(layer.explain(f"{layer.device} is out of memory ({error}): {KNOBS}"))
