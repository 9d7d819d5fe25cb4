"""Memory plan of a TEST net: blobs that are never needed at the same time share their storage.

A blob is needed from the layer that makes it to the last one that reads it. Blobs that alias each
other (in place, Split, Reshape, Flatten, a Concat or Slice of one) are one group, needed as long as
any of them. The largest group is placed first, each into the first slot that holds nothing needed
at the same time; a chain of layers gets by with two slots, whatever its length.

Left alone, and readable as ever: the net's outputs, what layers without bottoms make (inputs, data),
blobs with a loss weight, tops of layers that are user code, parameters that a layer shows as a blob, and what
``keep`` names.

Caffe has no such plan: it keeps every blob, as this package does unless asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from caffe_lite.blob import FORWARDED, Blob, Storage
from caffe_lite.errors import NetError

if TYPE_CHECKING:
    from caffe_lite.graph import LayerNode
    from caffe_lite.net import Net


@dataclass
class Group:
    """Blobs of one storage, needed from layer ``first`` to layer ``last`` inclusive."""

    blobs: list[Blob]
    first: int
    last: int

    @property
    def size(self) -> int:
        return max(blob.count for blob in self.blobs)

    def meets(self, other: Group) -> bool:
        return self.first <= other.last and other.first <= self.last


class MemoryPlan:
    """Places the blobs of ``net`` and, when its inputs change their shapes, places them anew.

    ``shared``: the names of the blobs whose values do not outlast a forward.
    """

    def __init__(self, net: Net, keep: Iterable[str] = ()) -> None:
        self._net = net
        self._groups = find_groups(net, keep)
        planned = {id(blob) for group in self._groups for blob in group.blobs}
        self.shared = [name for name, blob in net.blobs.items() if id(blob.on_device) in planned]
        self._sources = [top for node in net.nodes if not node.bottoms for top in node.tops]
        self._placed_for: list[tuple[int, ...]] | None = None
        self._storages: list[Storage] = []
        self._next = 0  # the layer at which a forward may go on

    def before_forward(self, start: int, end: int) -> None:
        """Get ready to run layers ``start`` to ``end`` inclusive.

        Raises:
            NetError: the bottoms of layer ``start`` may have been overwritten since they were made.
        """
        if start not in (0, self._next):
            raise NetError(
                f"net {self._net.name!r} shares memory between blobs (optimize_memory): a forward starts at its first "
                f"layer, or goes on where the last one ended, at layer {self._next}; this one starts at layer {start}"
            )
        self._next = end + 1
        shapes = [blob.shape for blob in self._sources]
        if start == 0 and shapes != self._placed_for:
            self._net.reshape()
            self._place()
            self._placed_for = shapes

    def _place(self) -> None:
        """Give each group its storage; larger slots get the storages that have grown larger already."""
        slots = pack(self._groups)
        while len(self._storages) < len(slots):
            self._storages.append(Storage(self._net.device, self._net.dtype))
        self._storages.sort(key=lambda storage: 0 if storage.flat is None else -storage.flat.size)
        del self._storages[len(slots) :]
        for slot, storage in zip(slots, self._storages, strict=True):
            for blob in (blob for group in slot for blob in group.blobs):
                blob.keep_data_in(storage)


def find_groups(net: Net, keep: Iterable[str] = ()) -> list[Group]:
    """The groups of ``net`` that may share memory with others, in the order in which they are made."""
    groups: dict[Storage, Group] = {}
    for i, node in enumerate(net.nodes):
        for blob in (*node.bottoms, *node.tops):
            group = groups.setdefault(blob.storages[0], Group([], i, i))
            group.last = i
            if not any(blob is known for known in group.blobs):
                group.blobs.append(blob)
    lasting = {blob.storages[0] for blob in _lasting(net, keep)}
    return [group for storage, group in groups.items() if storage not in lasting]


def _lasting(net: Net, keep: Iterable[str]) -> Iterable[Blob]:
    """Blobs that are to be found unchanged after a forward."""
    for name in (*net.outputs, *keep):
        yield net.blobs[name].on_device
    for node in net.nodes:
        yield from (blob.on_device for blob in node.layer.blobs)
        yield from node.tops if _fills_once(node) else ()
        yield from (top for top, weight in zip(node.tops, node.layer.loss_weights, strict=True) if weight)


def _fills_once(node: LayerNode) -> bool:
    """May a top hold what an earlier forward, or the user, has put there?"""
    return not node.bottoms or node.layer.on_host


def pack(groups: Iterable[Group]) -> list[list[Group]]:
    """Slots of groups of which no two are needed at the same time; the first of a slot is its largest."""
    slots: list[list[Group]] = []
    for group in sorted(groups, key=lambda g: -g.size):
        for slot in slots:
            if not any(group.meets(other) for other in slot):
                slot.append(group)
                break
        else:
            slots.append([group])
    return slots


class SharedBlob:
    """What users see of a blob whose memory the plan shares: its shape, but neither data nor diff."""

    def __init__(self, blob: Any, name: str) -> None:
        self._blob = blob
        self._name = name

    def __repr__(self) -> str:
        return f"{self._blob!r}, memory shared"

    @property
    def data(self) -> NoReturn:
        self._refuse("data")

    @property
    def diff(self) -> NoReturn:
        self._refuse("diff")

    def _refuse(self, part: str) -> NoReturn:
        raise NetError(
            f"blob {self._name!r} has no {part} to read: the net was asked to optimize_memory, so that other blobs use "
            f"the same memory; build it with keep=[{self._name!r}], or without optimize_memory"
        )

    @property
    def on_device(self) -> Blob:
        blob: Blob = self._blob.on_device
        return blob

    def reshape(self, *shape: Any) -> None:
        self._blob.reshape(*shape)

    def __getattr__(self, name: str) -> Any:
        if name in FORWARDED:
            return getattr(self._blob, name)
        raise AttributeError(f"a blob has no attribute {name!r}")
