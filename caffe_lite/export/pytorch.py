"""A net as PyTorch: a state dict, and the source of a module that loads it.

    export_torch(net, "net.pt")    writes net.pt and net.py

The module is to be read: its attributes are the layers, its variables the blobs, each line of
``forward`` one layer. In ``eval()`` it computes what the net computes in TEST, to float32 rounding.
The keys of the state dict are the module's, ``<layer>.weight`` and ``<layer>.bias`` where the layer has
these; characters that no identifier has are underscores. Of a BatchNorm they are ``running_mean`` and
``running_var``, Caffe's sums divided by their scale factor. Layers without bottoms become inputs.
"""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np

from caffe_lite import atomic
from caffe_lite.errors import CaffeError, NetError
from caffe_lite.export.converters import NotExportable
from caffe_lite.export.onnx import relative_error
from caffe_lite.export.torch_layers import converters
from caffe_lite.export.torch_source import Source
from caffe_lite.gradient_check import fill_inputs


def import_torch() -> Any:
    """The package ``torch``, or an error that says what to install."""
    try:
        import torch
    except ImportError as error:
        raise CaffeError("PyTorch files need the package torch: pip install torch") from error
    return torch


def export_torch(net: Any, path: str | os.PathLike[str]) -> Path:
    """Write ``net``, built for TEST, as a state dict and as the source of a module beside it; the source's path.

    Raises:
        NetError: layers cannot be exported, each named with the reason; nothing was written.
        CaffeError: the package torch is missing.
    """
    path = Path(path)
    source = source_path(path)
    torch = import_torch()
    text, arrays, aliases = build_module(net, source.stem)
    state = {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}
    state.update((key, state[owner]) for key, owner in aliases.items())
    with atomic.atomic_files() as files:
        torch.save(state, files.open(path))
        files.open(source).write(text.encode())
    return source


def source_path(path: Path) -> Path:
    """Where the module of the state dict ``path`` is written: a name that can be imported."""
    stem = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    return path.with_name(f"{'_' if stem[:1].isdigit() else ''}{stem}.py")


def build_module(net: Any, stem: str = "net") -> tuple[str, dict[str, np.ndarray], dict[str, str]]:
    """(source of the module, arrays of its state dict by key, {key: key of the array that it shares}).

    Needs no torch. ``stem``: the name of the state dict's file, without its ending.

    Raises:
        NetError: as :func:`export_torch`.
    """
    if net.phase != 1:
        raise NetError(f"net {net.name!r} is built for TRAIN; export the TEST phase")
    source = Source()
    variables: dict[str, str] = {}  # of each blob
    inputs: list[str] = []
    problems: list[str] = []
    for node in net.nodes:
        if not node.bottoms and node.layer.type != "Parameter":
            inputs += node.top_names
            variables.update((name, source.variables(name)) for name in node.top_names)
        elif node.layer.type == "Split":
            variables.update((name, variables[node.bottom_names[0]]) for name in node.top_names)
        elif node.layer.type != "Silence":
            try:
                _add_line(source, node, variables)
            except NotExportable as reason:
                problems.append(f"{node.layer.name!r} ({node.layer.type}): {reason}")
                variables.update((name, "") for name in node.top_names)
    if problems:
        listed = "\n  ".join(problems)
        raise NetError(f"net {net.name!r} cannot be exported to PyTorch; nothing was written:\n  {listed}")
    outputs = [variables[name] for name in net.outputs if name in variables]
    shapes = [net.blobs[name].shape for name in inputs]
    text = source.text(net.name, [variables[name] for name in inputs], outputs, shapes, stem)
    return text, source.arrays, source.aliases


def _add_line(source: Source, node: Any, variables: dict[str, str]) -> None:
    """Write one layer."""
    layer = node.layer
    if layer.type not in converters:
        raise NotExportable("there is no PyTorch form of this type")
    bottoms = [variables[name] for name in node.bottom_names]
    expression = converters[layer.type](source, layer, bottoms, [blob.shape for blob in node.bottoms])
    tops = [source.variables(name) for name in node.top_names]
    variables.update(zip(node.top_names, tops, strict=True))
    says_its_name = layer.name == tops[0] or f"self.{layer.name}(" in expression
    comment = "" if says_its_name else f"  # {ascii(layer.name)[1:-1]}"
    source.forward.append(f"{', '.join(tops)} = {expression}{comment}")
    if layer.type == "Pooling" and len(tops) == 2:
        source.forward.append(f"{tops[1]} = {tops[1]}.to({tops[0]}.dtype)")


def run_torch(path: str | os.PathLike[str], inputs: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs of what :func:`export_torch` wrote: its module is run, so let it be a file of your own.

    Raises:
        CaffeError: torch, or torchvision for RoI pooling, is missing.
    """
    torch = import_torch()
    try:
        names = runpy.run_path(os.fspath(source_path(Path(path))))
    except ModuleNotFoundError as error:
        raise CaffeError(f"running the module needs the package {error.name}: pip install {error.name}") from error
    module = [value for value in names.values() if isinstance(value, type)][-1]()  # the last class of the source
    module.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        found = module.eval()(*(torch.from_numpy(values) for values in inputs))
    return [values.numpy() for values in (found if isinstance(found, tuple) else (found,))]


def compare(net: Any, path: str | os.PathLike[str], seed: int = 0) -> dict[str, float]:
    """{output: largest difference between the module and ``net``, over its largest value}, on random inputs."""
    fill_inputs(net, np.random.default_rng(seed))
    inputs = [np.array(net.blobs[name].data, dtype=np.float32) for name in net.inputs]
    expected = {name: np.array(values) for name, values in net.forward().items()}
    found = dict(zip(net.outputs, run_torch(path, inputs), strict=True))
    return {name: relative_error(found[name], values) for name, values in expected.items()}
