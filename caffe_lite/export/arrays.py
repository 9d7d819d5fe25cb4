"""The parameters of a net as arrays with names: .safetensors and .npz files, and what name maps speak of.

An array is called ``<layer>.<what it is>``:

    Convolution, Deconvolution, InnerProduct, Embed, Scale    weight, bias
    Bias                                                      bias (as of a Scale by a second bottom)
    PReLU                                                     weight
    BatchNorm      mean, variance: running sums, as Caffe keeps them; scale_factor: what both are divided by
    LSTM, RNN      input_weight, bias, [static_weight], hidden_weight; of RNN also output_weight, output_bias
    any other                                                 0, 1, 2 ...

Shapes and values are those of the net's blobs. Parameters that layers share stand there once, under
the name of the layer that comes first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from caffe_lite import atomic
from caffe_lite.errors import CaffeError

_WEIGHT_AND_BIAS = ("Convolution", "Deconvolution", "InnerProduct", "Embed", "Scale", "PReLU")


def blob_names(layer: Any) -> list[str]:
    """What each parameter blob of ``layer`` is, in their order."""
    count = len(layer.blobs)
    if layer.type == "Bias" or (layer.type == "Scale" and len(layer.layer_param.bottom) == 2):
        names = ["bias"]
    elif layer.type in _WEIGHT_AND_BIAS:
        names = ["weight", "bias"]
    elif layer.type == "BatchNorm":
        names = ["mean", "variance", "scale_factor"]
    elif layer.type in ("LSTM", "RNN"):
        static = ["static_weight"] if layer.has_static else []
        names = ["input_weight", "bias", *static, "hidden_weight", "output_weight", "output_bias"]
    else:
        names = [str(i) for i in range(count)]
    return names[:count]


def parameter_owners(net: Any) -> Iterator[tuple[Any, int, str]]:
    """(layer, index of the blob, name of the array) of every parameter; sharing ones have their owner's name."""
    owners: dict[str, str] = {}
    for layer in net.layers:
        specs = layer.layer_param.param
        for i, what in enumerate(blob_names(layer)):
            own = f"{layer.name}.{what}"
            shared = specs[i].name if i < len(specs) else ""
            yield layer, i, owners.setdefault(shared, own) if shared else own


def named_blobs(net: Any) -> dict[str, Any]:
    """{name: blob} of the net's parameters, shared ones once."""
    found: dict[str, Any] = {}
    for layer, i, name in parameter_owners(net):
        found.setdefault(name, layer.blobs[i])
    return found


def named_arrays(net: Any) -> dict[str, np.ndarray]:
    """{name: values} of the net's parameters, shared ones once; on the CPU they alias the net."""
    return {name: np.asarray(net.device.to_host(blob.on_device.data)) for name, blob in named_blobs(net).items()}


def export_npz(net: Any, path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Write the parameters as .npz, which np.load reads; what was written."""
    arrays: dict[str, Any] = named_arrays(net)
    with atomic.atomic_write(path) as stream:
        np.savez(stream, **arrays)
    return arrays


def export_safetensors(net: Any, path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Write the parameters as .safetensors; what was written.

    Raises:
        CaffeError: the package safetensors is missing.
    """
    package = import_safetensors()
    arrays = named_arrays(net)
    content = package.save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, {"net": net.name})
    with atomic.atomic_write(path) as stream:
        stream.write(content)
    return arrays


def import_safetensors() -> Any:
    """The module ``safetensors.numpy``, or an error that names the extra."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise CaffeError(
            ".safetensors files need the package safetensors: pip install 'caffe-lite[safetensors]'"
        ) from error
    return safetensors.numpy
