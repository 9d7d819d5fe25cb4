"""The layer types, one module each; the registry finds them by name.

``layers.Convolution(bottom, num_output=20)``, a type's own name, makes a layer of a NetSpec
(:mod:`caffe_lite.net_spec`), so that ``from caffe_lite import layers as L`` works as pycaffe's.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if not name[0].isupper():  # types are CamelCase, modules and what Python asks for are not
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from caffe_lite import net_spec

    return getattr(net_spec.layers, name)
