"""Python: a layer that the user wrote, as pycaffe's.

    layer { type: "Python" python_param { module: "my_layers" layer: "MyLayer" param_str: "'k': 3" } }

names class MyLayer of module my_layers, a subclass of caffe_lite.Layer with ``setup``, ``reshape``,
``forward`` and ``backward``. The module is looked for on sys.path, then among caffe_lite.data, so that
Fast R-CNN's "roi_data_layer.layer" finds the one there. The class finds its param_str as
``self.param_str`` and, under Fast R-CNN's older name, ``self.param_str_``. It sees NumPy arrays on
every device. What it raises reaches the caller as it is.

Differs from Caffe: share_in_parallel has no meaning here; a mistake in module or layer is a NetError.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np

from caffe_lite.device import Device
from caffe_lite.errors import NetError, did_you_mean
from caffe_lite.layer import Layer
from caffe_lite.registry import register_layer

OURS = "caffe_lite.data"  # where a module is looked for that sys.path does not have


@register_layer("Python")
class Python(Layer):
    @classmethod
    def create(cls, param: Any, phase: int, device: Device, dtype: Any, where: str) -> Layer:
        """An instance of the class that ``param.python_param`` names."""
        p = param.python_param
        place = f"{where + ': ' if where else ''}layer {param.name!r} ({param.type})"
        if not (p.module and p.layer):
            raise NetError(f"{place}: python_param needs module and layer, got {p.module!r} and {p.layer!r}")
        user_class = _class(_module(p.module, place), p.layer, place)
        layer: Any = user_class(param, phase, device, dtype, where)
        layer.phase = phase
        layer.param_str = layer.param_str_ = p.param_str
        layer.on_host = layer.blobs.on_host = True
        layer.in_place = True  # Caffe leaves it to the user's code
        layer.xp = np
        return layer


def _module(name: str, place: str) -> ModuleType:
    full_name = name
    if not _exists(name.partition(".")[0]):
        full_name = f"{OURS}.{name}"
        if not _exists(full_name):
            raise NetError(
                f"{place}: there is no Python module {name!r}, on sys.path or in {OURS}: "
                "put the folder that holds it on sys.path (PYTHONPATH), or correct python_param.module"
            )
    try:
        return importlib.import_module(full_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{full_name}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        raise NetError(f"{place}: Python module {full_name!r} does not exist: {error}") from error


def _exists(name: str) -> bool:
    """Is there a module or package ``name``? Parent packages are imported, it is not."""
    if name in sys.modules:  # __main__ has no spec
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def _class(module: ModuleType, name: str, place: str) -> type[Layer]:
    found = getattr(module, name, None)
    if found is None:
        classes = [n for n, value in vars(module).items() if isinstance(value, type)]
        raise NetError(f"{place}: module {module.__name__!r} has no class {name!r}{did_you_mean(name, classes)}")
    if not (isinstance(found, type) and issubclass(found, Layer)):
        raise NetError(f"{place}: {module.__name__}.{name} is not a subclass of caffe_lite.Layer, got {found!r}")
    return found
