"""NetSpec: nets written in Python, as pycaffe's net_spec.

from caffe_lite import NetSpec, layers as L, params as P
n = NetSpec()
n.data, n.label = L.MemoryData(batch_size=64, channels=1, height=28, width=28, ntop=2)
n.ip = L.InnerProduct(n.data, num_output=10, weight_filler=dict(type="xavier"))
n.relu = L.ReLU(n.ip, in_place=True)
n.loss = L.SoftmaxWithLoss(n.relu, n.label)
text = str(n.to_proto())

``L.Type(*tops, **fields)`` makes a layer and gives its top, a tuple of ``ntop`` tops, or with
``ntop=0`` its Function. A field whose name ends in "param" is the layer's own (``param``,
``transform_param``, ``convolution_param``); any other goes to the type's parameter message if that
has it, else to the layer (``name``, ``loss_weight``, ``include``). A message is a dict, a repeated
field a list (one value may stand without). Layers take the name of their first top; tops without a
name are called Type1, Type2, ... ``P.Pooling.MAX`` is a value of an enum of ``PoolingParameter``.

Differs from pycaffe: a tuple serves as a list, and a field that does not exist is named with its like.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any

from caffe_lite.errors import NetError, did_you_mean
from caffe_lite.proto import caffe_pb2


class UnknownFieldError(NetError, AttributeError):
    """A field that neither the layer nor its type's parameters have."""


def param_name_dict() -> dict[str, str]:
    """Layer type -> name of its parameter field without ``_param``: ``{"InnerProduct": "inner_product", ...}``."""
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields
    return {
        field.message_type.name.removesuffix("Parameter"): field.name.removesuffix("_param")
        for field in fields
        if field.name.endswith("_param")
    }


_param_names = param_name_dict()


def assign_proto(proto: Any, name: str, value: Any) -> None:
    """Set field ``name`` of a message: a dict fills a message, a list extends a repeated field.

    Raises:
        UnknownFieldError: the message has no such field (an AttributeError, too).
    """
    if name not in proto.DESCRIPTOR.fields_by_name:
        near = did_you_mean(name, proto.DESCRIPTOR.fields_by_name)
        raise UnknownFieldError(f"{proto.DESCRIPTOR.name} has no field {name!r}{near}")
    field = getattr(proto, name)
    if hasattr(field, "extend"):
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, dict):
                _fill(field.add(), item)
            else:
                field.append(item)
    elif isinstance(value, dict):
        field.SetInParent()
        _fill(field, value)
    else:
        setattr(proto, name, value)


def _fill(message: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        assign_proto(message, name, value)


class Top:
    """Output ``n`` of Function ``fn``."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> Any:
        """A NetParameter of all that this top needs."""
        return to_proto(self)


class Function:
    """A layer to be: its type, the tops that it reads and its fields."""

    def __init__(self, type_name: str, inputs: tuple[Top, ...], params: dict[str, Any]) -> None:
        for index, top in enumerate(inputs):
            if not isinstance(top, Top):
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(top)})")
        self.type_name = type_name
        self.inputs = inputs
        self.params = dict(params)
        self.ntop: int = self.params.pop("ntop", 1)
        self.in_place: bool = self.params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def to_layer(self, bottom: list[str], top: list[str], name: str) -> Any:
        """The LayerParameter.

        Raises:
            UnknownFieldError: a field that the type does not have.
        """
        layer = caffe_pb2.LayerParameter(type=self.type_name, name=name, bottom=bottom, top=top)
        own = _param_names.get(self.type_name, "") + "_param"
        own_message = getattr(layer, own, None)
        for field, value in self.params.items():
            try:
                if own_message is None or field.endswith("param") or field not in own_message.DESCRIPTOR.fields_by_name:
                    assign_proto(layer, field, value)
                else:
                    own_message.SetInParent()
                    assign_proto(own_message, field, value)
            except UnknownFieldError as error:
                raise UnknownFieldError(f"layer {name!r} ({self.type_name}): {self._explain(field, error)}") from None
            except (TypeError, ValueError) as error:
                raise type(error)(f"layer {name!r} ({self.type_name}): field {field!r}: {error}") from error
        return layer

    def _explain(self, field: str, error: UnknownFieldError) -> str:
        """The message for ``error``; if it is ``field`` itself that is unknown, both places where it might stand."""
        own = _param_names.get(self.type_name)
        layer_fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
        choices = layer_fields[f"{own}_param"].message_type.fields_by_name if own else {}
        if own is None or field in layer_fields or field in choices:
            return str(error)
        return f"neither {own}_param nor the layer has a field {field!r}{did_you_mean(field, choices)}"


class _Writer:
    """Turns functions into layers, each once and after what it reads, and gives names to those without."""

    def __init__(self, names: dict[Top | Function, str]) -> None:
        self.names = names
        self.counts: Counter[str] = Counter()
        self.layers: OrderedDict[Function, Any] = OrderedDict()

    def add(self, fn: Function) -> None:
        for needed in self._not_written(fn):
            bottom = [self.layers[top.fn].top[top.n] for top in needed.inputs]
            top = bottom if needed.in_place else [self._name(t, needed) for t in needed.tops]
            name = self._name(needed.tops[0] if needed.tops else needed, needed)
            self.layers[needed] = needed.to_layer(bottom, list(top), name)

    def _not_written(self, fn: Function) -> Iterator[Function]:
        """``fn`` and what it needs, inputs first; a stack, since nets may be deeper than Python's recursion."""
        stack = [(fn, iter(fn.inputs))]
        while stack:
            current, inputs = stack[-1]
            following = next((top.fn for top in inputs if top.fn not in self.layers), None)
            if following is not None:
                stack.append((following, iter(following.inputs)))
                continue
            stack.pop()
            if current not in self.layers:
                yield current

    def _name(self, thing: Top | Function, fn: Function) -> str:
        if thing not in self.names:
            self.counts[fn.type_name] += 1
            self.names[thing] = f"{fn.type_name}{self.counts[fn.type_name]}"
        return self.names[thing]

    def net(self) -> Any:
        return caffe_pb2.NetParameter(layer=self.layers.values())


def to_proto(*tops: Top) -> Any:
    """A NetParameter of all that ``tops`` need, every name an automatic one."""
    writer = _Writer({})
    for top in tops:
        writer.add(top.fn)
    return writer.net()


class NetSpec:
    """Names for tops, by attribute (``n.conv1 = ...``) or item (``n["conv1"] = ...``), in the order of assignment.

    ``tops`` is the OrderedDict of them; a Function with no tops may stand in it, too.
    """

    tops: OrderedDict[str, Any]

    def __init__(self) -> None:
        super().__setattr__("tops", OrderedDict())

    def __setattr__(self, name: str, value: Any) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and inspect ask for these
            raise AttributeError(name)
        return self.tops[name]

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.tops[name] = value

    def __getitem__(self, name: str) -> Any:
        return self.tops[name]

    def __delitem__(self, name: str) -> None:
        del self.tops[name]

    def update(self, name: str, params: dict[str, Any]) -> None:
        """Change or add fields of the layer that makes top ``name``."""
        self._function(name).params.update(params)

    def to_proto(self) -> Any:
        """The NetParameter; what a top needs stands before it, named or not."""
        writer = _Writer({top: name for name, top in self.tops.items()})
        for name in self.tops:
            writer.add(self._function(name))
        return writer.net()

    def _function(self, name: str) -> Function:
        value = self.tops[name]
        if not isinstance(value, Top | Function):
            raise TypeError(f"{name!r} is not a Top or a Function (type is {type(value)})")
        return value.fn if isinstance(value, Top) else value


class Layers:
    """``L.Convolution(bottom, num_output=20, kernel_size=5)``: any layer type by name (see the module)."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def layer(*tops: Top, **fields: Any) -> Any:
            fn = Function(name, tops, fields)
            if fn.ntop == 0:
                return fn
            return fn.tops[0] if fn.ntop == 1 else fn.tops

        layer.__name__ = name
        return layer


class Parameters:
    """``P.Pooling.MAX``: what ``PoolingParameter`` defines, most of all its enums' values."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        message = getattr(caffe_pb2, f"{name}Parameter", None)
        if message is None:
            raise AttributeError(f"there is no {name}Parameter{did_you_mean(name, _param_names)}")
        return message


layers = Layers()
params = Parameters()
