"""A PyTorch module under construction: what the converters of layers write into.

Names of layers and blobs come from files. In the source they stand as identifiers made of letters,
digits and underscores, and in comments as their ``ascii()``, which has no line breaks: nothing of a
name is ever run.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe_lite.export.converters import NotExportable, parameter_values

# The public names of torch.nn.Module, which a layer's attribute must not hide.
MODULE_NAMES = frozenset(
    """T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double
    dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu
    load_state_dict modules mtia named_buffers named_children named_modules named_parameters parameters
    register_backward_hook register_buffer register_forward_hook register_forward_pre_hook
    register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter register_state_dict_post_hook
    register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule share_memory state_dict to to_empty
    train training type xpu zero_grad""".split()
)
_KEYWORDS = frozenset([*keyword.kwlist, *keyword.softkwlist])
_GLOBALS = frozenset(["self", "torch", "torchvision", "nn", "F", "Scale", "lrn_within_channel", "mvn", *dir(builtins)])


class Identifiers:
    """Different identifiers for different texts, none of them ``reserved``."""

    def __init__(self, reserved: frozenset[str]) -> None:
        self._taken = set(reserved)
        self._made: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """The identifier for ``text``, the same each time."""
        if text not in self._made:
            name = re.sub(r"\W", "_", text, flags=re.ASCII).lstrip("_") or "unnamed"
            name = f"n{name}" if name[0].isdigit() else name
            name = f"{name}_" if name in self._taken else name
            unique, count = name, 1
            while unique in self._taken:
                count += 1
                unique = f"{name}{'' if name.endswith('_') else '_'}{count}"
            self._taken.add(unique)
            self._made[text] = unique
        return self._made[text]


def number(value: Any) -> str:
    """A float32 as Python source, in as few digits as tell it from its neighbours."""
    value = np.float32(value)
    return str(value) if np.isfinite(value) else f'float("{value}")'


def pair(sizes: Sequence[int]) -> str:
    """Sizes along the axes: one number if they are equal."""
    return str(sizes[0]) if len(set(sizes)) == 1 else str(tuple(sizes))


class Source:
    """The text of a module class, and the arrays of its state dict by key.

    ``aliases`` are further keys of arrays that layers share.
    """

    def __init__(self) -> None:
        self.attributes = Identifiers(MODULE_NAMES | _KEYWORDS)
        self.variables = Identifiers(_GLOBALS | _KEYWORDS)
        self.init: list[str] = []
        self.forward: list[str] = []
        self.helpers: set[str] = set()
        self.arrays: dict[str, np.ndarray] = {}
        self.aliases: dict[str, str] = {}
        self._owners: dict[str, str] = {}  # name of a shared parameter -> its key

    def module(self, layer: Any, constructor: str, *names: str, values: Sequence[np.ndarray] | None = None) -> str:
        """``self.<layer>``, made by ``constructor``, whose parameters are the layer's blobs (or ``values``) by name."""
        path = self.attributes(layer.name)
        comment = "" if path == layer.name else f"  # {ascii(layer.name)}"
        self.init.append(f"self.{path} = {constructor}{comment}")
        arrays = parameter_values(layer) if values is None else values
        for i, (name, array) in enumerate(zip(names, arrays, strict=False)):
            self._add_array(layer, i if values is None else -1, f"{path}.{name}", array)
        return f"self.{path}"

    def parameter(self, layer: Any, index: int, what: str) -> str:
        """``self.<layer>_<what>``, a parameter blob that belongs to no module."""
        path = self.attributes(f"{layer.name} {what}")
        array = parameter_values(layer)[index]
        self.init.append(f"self.{path} = nn.Parameter(torch.empty({tuple(array.shape)}))  # {ascii(layer.name)}")
        self._add_array(layer, index, path, array)
        return f"self.{path}"

    def _add_array(self, layer: Any, index: int, key: str, array: np.ndarray) -> None:
        specs = layer.layer_param.param
        shared = specs[index].name if 0 <= index < len(specs) else ""
        owner = self._owners.setdefault(shared, key) if shared else key
        if owner == key:
            self.arrays[key] = np.ascontiguousarray(array)
            return
        if self.arrays[owner].shape != array.shape:
            raise NotExportable(f"it shares {shared!r} in another shape: modules share parameters of one shape")
        self.aliases[key] = owner
        self.init.append(f"self.{key} = self.{owner}  # shared")

    def text(self, name: str, inputs: Sequence[str], outputs: Sequence[str], shapes: Sequence[Any], stem: str) -> str:
        """The module's source: ``inputs`` and ``outputs`` are variables, ``shapes`` the shapes of the inputs."""
        cls = Identifiers(_GLOBALS | _KEYWORDS | {stem})(name or "Net")
        takes = ", ".join(f"{v} {tuple(s)}" for v, s in zip(inputs, shapes, strict=True))
        gives = ", ".join(outputs)
        imports = ["import torch", *(["import torchvision"] if "torchvision" in self.helpers else []), *_IMPORTS]
        init = ["super().__init__()", *self.init]
        lines = [
            f'"""{cls}: a Caffe net as a PyTorch module, written by caffe_lite.',
            "",
            f"    net = {cls}()",
            f'    net.load_state_dict(torch.load("{stem}.pt", weights_only=True))',
            f"    {gives} = net.eval()({', '.join(inputs)})",
            "",
            f"Inputs, in the order of forward: {takes}.",
            'Every line of forward is a layer, every variable a blob.\n"""',
            "",
            *imports,
            "",
            *(line for name in sorted(self.helpers & set(_HELPERS)) for line in ("", *_HELPERS[name].split("\n"))),
            "",
            f"class {cls}(nn.Module):",
            "    def __init__(self):",
            *(f"        {line}" for line in init),
            "",
            f"    def forward({', '.join(['self', *inputs])}):",
            *(f"        {line}" for line in self.forward),
            f"        return {gives}",
            "",
        ]
        return "\n".join(lines)


_IMPORTS = ["from torch import nn", "from torch.nn import functional as F"]
_HELPERS = {
    "Scale": '''\
class Scale(nn.Module):
    """x * weight + bias, one number each for the axes of x from ``axis`` on that they cover."""

    def __init__(self, shape, axis=1, weight=True, bias=True):
        super().__init__()
        self.axis = axis
        self.weight = nn.Parameter(torch.ones(shape)) if weight else None
        self.bias = nn.Parameter(torch.zeros(shape)) if bias else None

    def forward(self, x, weight=None):
        weight = self.weight if weight is None else weight
        if weight is not None:
            x = x * self.spread(weight, x)
        return x if self.bias is None else x + self.spread(self.bias, x)

    def spread(self, values, x):
        after = x.dim() - self.axis - values.dim() if values.dim() else 0
        return values.reshape(values.shape + (1,) * after)
''',
    "lrn_within_channel": '''\
def lrn_within_channel(x, size, alpha, beta):
    """Each pixel by the mean square of the size x size pixels around it, zeros beyond the image."""
    mean = F.avg_pool2d(x * x, size, stride=1, padding=size // 2)
    return x * (1 + alpha * mean) ** -beta
''',
    "mvn": '''\
def mvn(x, first, eps=None):
    """Mean 0 and, with eps, variance 1 over the axes from ``first`` on."""
    axes = tuple(range(first, x.dim()))
    x = x - x.mean(axes, keepdim=True)
    return x if eps is None else x / ((x * x).mean(axes, keepdim=True).sqrt() + eps)
''',
}
