"""What the exporters share: tables of converters by layer type, and why a layer cannot be converted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

Shapes = Sequence[tuple[int, ...]]  # of a layer's bottoms
Converter = TypeVar("Converter", bound=Callable[..., Any])


class NotExportable(Exception):
    """Why one layer has no counterpart in a format; the exporter says which layer."""


class Converters(dict[str, Converter], Generic[Converter]):
    """{layer type: the function that converts a layer of it}."""

    def of(self, *types: str) -> Callable[[Converter], Converter]:
        """Register the converter of these layer types."""

        def register(function: Converter) -> Converter:
            self.update((name, function) for name in types)
            return function

        return register


def parameter_values(layer: Any) -> list[np.ndarray]:
    """The parameters of ``layer`` as NumPy."""
    return [np.asarray(layer.device.to_host(blob.on_device.data)) for blob in layer.blobs]
