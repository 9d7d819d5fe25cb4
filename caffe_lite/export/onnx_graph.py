"""An ONNX graph under construction: what the converters of layers write into.

Tensors are named after the blobs that they become; of a blob that layers change in place only the
last version has its name. Integers are int64, everything else is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe_lite.errors import CaffeError
from caffe_lite.export.converters import parameter_values

INT_MAX = np.iinfo(np.int64).max


def import_onnx() -> Any:
    """The package ``onnx``, or an error that names the extra."""
    try:
        import onnx
    except ImportError as error:
        raise CaffeError("ONNX files need the package onnx: pip install 'caffe-lite[onnx]'") from error
    return onnx


class Graph:
    """Nodes and constants in the order in which they run; ``opset`` 13 to 21.

    ``changed`` are parameters to write instead of a layer's own, by its name.
    """

    def __init__(self, opset: int, changed: dict[str, list[np.ndarray]] | None = None) -> None:
        self.onnx = import_onnx()
        self.opset = opset
        self.changed = changed or {}
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._used: dict[str, int] = {}

    def fresh(self, name: str) -> str:
        """``name``, with a number if a tensor has it already."""
        count = self._used.get(name, 0)
        self._used[name] = count + 1
        return self.fresh(f"{name}_{count}") if count else name

    def add(self, op: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        """Append a node; the name of its output, or a list of them if there are more.

        The tensors get ``name`` as their name, or the operator's.
        """
        names = [self.fresh(name or op.lower()) for _ in range(outputs)]
        node_name = self.fresh(f"{name or op.lower()}:{op}")
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), names, name=node_name, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, values: Any, name: str = "constant") -> str:
        """A constant tensor: int64 if ``values`` are integers, float32 otherwise."""
        array = np.asarray(values)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32, order="C")
        name = self.fresh(name)
        self.initializers.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def parameters(self, layer: Any) -> list[str]:
        """A constant for each parameter of ``layer``, named ``layer.0``, ``layer.1`` ..."""
        values = self.changed.get(layer.name) or parameter_values(layer)
        return [self.constant(array, f"{layer.name}.{i}") for i, array in enumerate(values)]

    # ---- operators whose form depends on the opset, and small compositions

    def reduce(self, op: str, x: str, axes: Sequence[int], keepdims: bool = True) -> str:
        """ReduceSum, ReduceMean ...; the axes are an attribute in older opsets."""
        if self.opset >= 18 or op == "ReduceSum":
            return self.add(op, x, self.constant(list(axes)), keepdims=int(keepdims))
        return self.add(op, x, axes=list(axes), keepdims=int(keepdims))

    def split(self, x: str, axis: int, parts: int, sizes: Sequence[int] | None = None) -> list[str]:
        """Pieces of ``x`` along ``axis``, of these sizes or equal ones."""
        if parts == 1:
            return [x]
        if sizes is not None:
            return list(self.add("Split", x, self.constant(list(sizes)), outputs=parts, axis=axis))
        more: dict[str, Any] = {"num_outputs": parts} if self.opset >= 18 else {}
        return list(self.add("Split", x, outputs=parts, axis=axis, **more))

    def slice(self, x: str, axis: int, start: int, end: int = INT_MAX, step: int = 1) -> str:
        """x[start:end:step] along one axis."""
        return self.add("Slice", x, *(self.constant([v]) for v in (start, end, axis, step)))

    def reshape(self, x: str, *parts: str | Sequence[int]) -> str:
        """``x`` in the shape that the parts make, one after the other: numbers, or int64 tensors of one axis."""
        parts = tuple(part for part in parts if isinstance(part, str) or len(part))
        names = [part if isinstance(part, str) else self.constant(np.array(part, np.int64)) for part in parts]
        return self.add("Reshape", x, names[0] if len(names) == 1 else self.add("Concat", *names, axis=0))

    def sizes(self, x: str, start: int, end: int) -> str:
        """The sizes of axes [start, end) of ``x`` when it runs."""
        return self.slice(self.add("Shape", x), 0, start, end)

    def dims(self, x: str, start: int, end: int) -> str | list[int]:
        """``sizes`` for ``reshape``: there may be no axes."""
        return self.sizes(x, start, end) if end > start else []

    def unsqueeze(self, x: str, axes: Sequence[int]) -> str:
        return self.add("Unsqueeze", x, self.constant(list(axes))) if len(axes) else x

    def integers(self, x: str) -> str:
        """``x`` as int64, fractions cut off."""
        return self.add("Cast", x, to=self.onnx.TensorProto.INT64)

    def floats(self, x: str) -> str:
        return self.add("Cast", x, to=self.onnx.TensorProto.FLOAT)

    def scaled(self, x: str, factor: float) -> str:
        """factor * x, or ``x`` itself for 1."""
        return x if factor == 1 else self.add("Mul", x, self.constant(float(factor)))

    def shifted(self, x: str, term: float) -> str:
        """x + term, or ``x`` itself for 0."""
        return x if term == 0 else self.add("Add", x, self.constant(float(term)))

    def rename(self, old: str, new: str) -> None:
        """Give a tensor that a node makes another name."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = new
