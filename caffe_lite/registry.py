"""Types by name: layers, solvers, learning-rate policies and fillers register themselves.

The engine names no type. The first look-up of a layer type imports the module of
``caffe_lite.layers`` whose name is the type's in snake case (``InnerProduct``: ``inner_product.py``,
``ReLU``: ``relu.py``); a name without a module of its own makes all of them load.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from caffe_lite.errors import UnknownTypeError, did_you_mean

T = TypeVar("T")


class Registry:
    """Names of one kind of thing (``"layer type"``), filled by the modules of package ``room``."""

    def __init__(self, kind: str, room: str) -> None:
        self.kind = kind
        self.room = room
        self._entries: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Class or function decorator: make it known as ``name``."""

        def enter(thing: T) -> T:
            if name in self._entries:
                there = self._entries[name]
                raise ValueError(
                    f"{self.kind} {name!r} is registered twice: {there.__module__}.{there.__qualname__} and "
                    f"{thing.__module__}.{thing.__qualname__}; is a module imported under two names?"  # type: ignore[attr-defined]
                )
            self._entries[name] = thing
            return thing

        return enter

    def get(self, name: str, where: str = "") -> Any:
        """What is registered as ``name``.

        Raises:
            UnknownTypeError: nothing is; the message starts with ``where`` and names the nearest.
        """
        if name not in self._entries:
            self._import(lambda module: module.replace("_", "") == name.lower())
        choices = self.names() if name not in self._entries else []
        if name not in self._entries:
            place = f"{where}: " if where else ""
            raise UnknownTypeError(f"{place}unknown {self.kind} {name!r}{did_you_mean(name, choices)}")
        return self._entries[name]

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._import(lambda module: True)
        return sorted(self._entries)

    def _import(self, wanted: Callable[[str], bool]) -> None:
        package = importlib.import_module(self.room)
        for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
            if wanted(module.name):
                importlib.import_module(f"{self.room}.{module.name}")


layers = Registry("layer type", "caffe_lite.layers")
solvers = Registry("solver type", "caffe_lite.solvers")
policies = Registry("learning-rate policy", "caffe_lite.solvers")
fillers = Registry("filler type", "caffe_lite.filler")

register_layer = layers.register
register_solver = solvers.register
register_policy = policies.register
register_filler = fillers.register


def layer_type_list() -> list[str]:
    """The names of all layer types, sorted."""
    return layers.names()
