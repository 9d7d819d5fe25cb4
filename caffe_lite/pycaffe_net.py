"""The part of a net that pycaffe's users call: named inputs and outputs, batches, callbacks.

:class:`caffe_lite.net.Net` builds the layers and runs ranges of them by number; what stands here
speaks of blobs and layers by name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from caffe_lite.errors import NetError, ShapeError, UnknownNameError, did_you_mean

Arrays = dict[str, np.ndarray]
Callback = Callable[[int], Any]


class PycaffeNet:
    """Base of Net; the attributes are Net's."""

    name: str
    blobs: OrderedDict[str, Any]
    blob_loss_weights: OrderedDict[str, float]
    layers: list[Any]
    layer_dict: OrderedDict[str, Any]
    inputs: list[str]
    outputs: list[str]
    top_names: OrderedDict[str, list[str]]
    bottom_names: OrderedDict[str, list[str]]
    _layer_names: list[str]

    def __init__(self) -> None:
        self.callbacks: dict[str, list[Callback]] = {
            f"{when}_{direction}": [] for when in ("before", "after") for direction in ("forward", "backward")
        }

    def run_forward(self, start: int = 0, end: int | None = None) -> None:
        """Run layers ``start`` to ``end`` inclusive; Net does it."""
        raise NotImplementedError

    def _backward(self, start: int, end: int) -> None:
        """Run layers ``start`` down to ``end`` inclusive, backward; Net does it."""
        raise NotImplementedError

    # ---- forward and backward, by name

    def layer_index(self, name: str) -> int:
        """The number of layer ``name``; NetError if there is none."""
        if name not in self.layer_dict:
            raise NetError(f"net {self.name!r} has no layer {name!r}{did_you_mean(name, self.layer_dict)}")
        return self._layer_names.index(name)

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> Arrays:
        """Forward pass, from layer ``start`` to layer ``end`` inclusive.

        Args:
            blobs: names of blobs to return besides the outputs.
            kwargs: an array for each input blob, of the blob's size along axis 0.

        Returns:
            ``{name: array}`` of the net's outputs (of ``end``'s tops if it is given): views, which
            the next forward overwrites.
        """
        first = self.layer_index(start) if start is not None else 0
        last = self.layer_index(end) if end is not None else len(self.layers) - 1
        names = set(self.top_names[end] if end is not None else self.outputs) | set(blobs or ())
        self.check_blob_names(names)
        self._fill(kwargs, self.inputs, "input", "data")
        self.run_forward(first, last)
        return {name: self.blobs[name].data for name in sorted(names)}

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> Arrays:
        """Backward pass, from layer ``start`` (the last) down to layer ``end`` (the first) inclusive.

        Args:
            diffs: names of blobs whose diffs to return besides the inputs'.
            kwargs: a diff for each output blob.

        Returns:
            ``{name: diff}`` of the net's inputs (of ``end``'s bottoms if it is given).
        """
        first = self.layer_index(start) if start is not None else len(self.layers) - 1
        last = self.layer_index(end) if end is not None else 0
        names = set(self.bottom_names[end] if end is not None else self.inputs) | set(diffs or ())
        self.check_blob_names(names)
        self._fill(kwargs, self.outputs, "output", "diff")
        self._backward(first, last)
        return {name: self.blobs[name].diff for name in sorted(names)}

    def check_blob_names(self, names: Iterable[str]) -> None:
        """Raise UnknownNameError (a KeyError, too) for a name that is no blob of this net."""
        for name in names:
            if name not in self.blobs:
                raise UnknownNameError(f"net {self.name!r} has no blob {name!r}{did_you_mean(name, self.blobs)}")

    def _fill(self, given: dict[str, Any], expected: Sequence[str], kind: str, part: str) -> None:
        if not given:
            return
        if set(given) != set(expected):
            raise NetError(f"{kind} blobs are {sorted(expected)}, got {sorted(given)}: give all of them, or none")
        for name, values in given.items():
            blob = self.blobs[name]
            values = np.asarray(values)
            if values.ndim and len(blob.shape) and values.shape[0] != blob.shape[0]:
                raise ShapeError(
                    f"{kind} {name!r}: {values.shape[0]} items given, the blob holds {blob.shape[0]}; "
                    f"net.blobs[{name!r}].reshape(...) first"
                )
            try:
                getattr(blob, part)[...] = values
            except ValueError as error:
                raise ShapeError(f"{kind} {name!r}: shape {values.shape} does not fit {blob.shape}") from error

    # ---- more items than a batch holds

    def forward_all(self, blobs: Sequence[str] | None = None, **kwargs: np.ndarray) -> Arrays:
        """``forward`` in batches on N items: ``{name: array}``, copies of length N.

        kwargs: an array of N items for each input blob; the last batch is filled up with zeros. Of
        an output that has not an entry for each item, as a loss, there is one value for each batch.
        """
        items = self._item_count(kwargs)
        parts = [self._copies(self.forward(blobs, None, None, **batch)) for batch in self._batch(kwargs)]
        return self._joined(parts, items)

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **kwargs: np.ndarray
    ) -> tuple[Arrays, Arrays]:
        """``forward`` and ``backward`` in batches on N items: blobs and diffs, each as ``forward_all`` gives them.

        kwargs: an array of N items for each input blob, and for each output blob one of N diffs if
        its diff is not the net's own.
        """
        items = self._item_count(kwargs)
        ours, theirs = ({n: kwargs[n] for n in names if n in kwargs} for names in (self.inputs, self.outputs))
        if unknown := sorted(set(kwargs) - {*ours, *theirs}):
            raise NetError(f"{unknown[0]!r} is neither an input ({self.inputs}) nor an output ({self.outputs})")
        found_blobs, found_diffs = [], []
        none: Arrays = {}
        for inputs, outputs in zip_longest(self._batch(ours), self._batch(theirs), fillvalue=none):
            found_blobs.append(self._copies(self.forward(blobs, None, None, **inputs)))
            found_diffs.append(self._copies(self.backward(diffs, None, None, **outputs)))
        return self._joined(found_blobs, items), self._joined(found_diffs, items)

    @property
    def batch_size(self) -> int:
        """How many items one forward takes: the size along axis 0 of the first blob."""
        shape = next(iter(self.blobs.values())).shape
        return shape[0] if shape else 1

    def _item_count(self, arrays: dict[str, np.ndarray]) -> int:
        counts = {name: len(array) for name, array in arrays.items()}
        if not counts:
            raise NetError(f"no arrays: give one for each of the inputs {self.inputs}")
        if len(set(counts.values())) > 1 or 0 in counts.values():
            raise ShapeError(f"the arrays must hold equally many items, one at least; got {counts}")
        return next(iter(counts.values()))

    def _batch(self, blobs: dict[str, np.ndarray]) -> Iterator[Arrays]:
        """``blobs`` in pieces of ``batch_size`` items, the last filled up with zeros."""
        size = self.batch_size
        for start in range(0, len(next(iter(blobs.values()), ())), size):
            batch = {name: np.asarray(array[start : start + size]) for name, array in blobs.items()}
            missing = size - len(next(iter(batch.values())))
            if missing:
                batch = {n: np.concatenate([a, np.zeros((missing, *a.shape[1:]), a.dtype)]) for n, a in batch.items()}
            yield batch

    @staticmethod
    def _copies(arrays: Arrays) -> Arrays:
        return {name: array.copy() for name, array in arrays.items()}

    def _joined(self, parts: list[Arrays], items: int) -> Arrays:
        """The results of all batches one after the other, without those of the zeros."""
        result = {}
        for name, first in parts[0].items():
            per_item = first.ndim and first.shape[0] == self.batch_size
            of_all = np.concatenate([np.atleast_1d(part[name]) for part in parts])
            result[name] = of_all[:items] if per_item else of_all
        return result

    # ---- arrays and callbacks

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Let the net's first layer, a MemoryData, serve ``data`` (n, C, H, W) and ``labels`` (n,).

        Raises:
            NetError: the first layer is none, or the arrays do not fit it.
        """
        reset = getattr(self.layers[0], "reset", None)
        if reset is None:
            first = self.layers[0]
            raise NetError(f"set_input_arrays: the first layer must be a MemoryData, {first.name!r} is a {first.type}")
        reset(data, labels)

    def before_forward(self, callback: Callback) -> None:
        """Call ``callback(number of the layer)`` before each layer's forward, from now on."""
        self.callbacks["before_forward"].append(callback)

    def after_forward(self, callback: Callback) -> None:
        """Call ``callback(number of the layer)`` after each layer's forward, from now on."""
        self.callbacks["after_forward"].append(callback)

    def before_backward(self, callback: Callback) -> None:
        """Call ``callback(number of the layer)`` before each layer's turn in a backward, from now on."""
        self.callbacks["before_backward"].append(callback)

    def after_backward(self, callback: Callback) -> None:
        """Call ``callback(number of the layer)`` after each layer's turn in a backward, from now on."""
        self.callbacks["after_backward"].append(callback)

    # ---- by number, as pycaffe's tools ask for them

    @property
    def _blobs(self) -> list[Any]:
        return list(self.blobs.values())

    @property
    def _blob_names(self) -> list[str]:
        return list(self.blobs)

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self.blob_loss_weights.values())

    @property
    def _inputs(self) -> list[int]:
        return self._numbers(self.inputs)

    @property
    def _outputs(self) -> list[int]:
        return self._numbers(self.outputs)

    def _top_ids(self, layer: int) -> list[int]:
        return self._numbers(self.top_names[self._layer_names[layer]])

    def _bottom_ids(self, layer: int) -> list[int]:
        return self._numbers(self.bottom_names[self._layer_names[layer]])

    def _numbers(self, names: Sequence[str]) -> list[int]:
        return [self._blob_names.index(name) for name in names]
