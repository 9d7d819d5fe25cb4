"""CuPy's manners without a GPU: arrays and an array module that refuse what CuPy refuses.

``xp`` has NumPy's functions, as far as CuPy has them, on :class:`DeviceArray`, which holds a NumPy array and hides it.
So code that was never run on a GPU fails here as it would there:

* a function, a parameter or a method of NumPy that CuPy lacks (``LACKING``, ``LACKING_PARAMETERS``, ``METHODS``: of
  CuPy 13.6 and 14.2 together, compared with NumPy 2.4);
* an array of the host in an expression, an assignment or an index with one of the device;
* ``np.asarray(x)`` and the like, which would be copies behind one's back; ``x.get()`` is the way;
* a result without axes stays an array of the device: no ``len``, no ``range`` of it;
* an assignment to repeated places, of which CuPy does not say which one lasts.

``closed()`` forbids, while it lasts, whatever waits for a GPU: ``get``, ``item``, ``float``, ``int``, ``bool``, a mask
as an index, ``nonzero``. The sign of a NaN is 0, as in CuPy 13.

What this cannot show: CuPy's numbers, where they differ from NumPy's in more than that; and speed.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

LACKING = frozenset(
    """
    acos acosh apply_over_axes asin asinh asmatrix astype atan atan2 atanh bitwise_count bitwise_invert
    bitwise_left_shift bitwise_right_shift block bmat busday_count busday_offset concat cumulative_prod cumulative_sum
    datetime_as_string datetime_data einsum_path errstate frompyfunc fromregex geomspace get_include getbufsize geterr
    geterrcall histogram_bin_edges info insert is_busday isdtype isnat matrix_transpose matvec nanpercentile
    nanquantile nested_iters ndindex permute_dims polyder polydiv polyint pow put_along_axis setbufsize seterr
    seterrcall show_runtime spacing test testing trapezoid unique_all unique_counts unique_inverse unique_values
    unstack vecdot vecmat
    """.split()
)
_REDUCED = "where initial"
LACKING_PARAMETERS = {
    name: frozenset(parameters.split())
    for names, parameters in {
        "all any mean nanmean sum prod max min amax amin nansum nanprod nanmax nanmin": _REDUCED,
        "std var nanstd nanvar": "where mean correction",
        "zeros ones empty full eye arange array asarray asanyarray ascontiguousarray identity tri": "device like",
        "zeros_like ones_like empty_like full_like linspace": "device",
        "argsort sort": "order stable",
        "argpartition partition": "kind order",
        "broadcast_to broadcast_arrays copy": "subok",
        "clip": "min max",
        "count_nonzero": "keepdims",
        "isin": "kind",
        "lexsort": "axis",
        "percentile quantile": "weights",
        "take": "mode",
        "unique": "sorted",
    }.items()
    for name in names.split()
}
UFUNC_PARAMETERS = frozenset(("out", "dtype", "casting"))
METHODS = {  # the parameters that both versions know, in NumPy's order
    "all": "axis out keepdims", "any": "axis out keepdims", "argmax": "axis out", "argmin": "axis out",
    "argsort": "axis", "astype": "dtype order casting subok copy", "clip": "min max out", "copy": "order",
    "cumsum": "axis dtype out", "diagonal": "offset axis1 axis2", "dot": "b out", "fill": "value", "flatten": "order",
    "max": "axis out keepdims", "mean": "axis dtype out keepdims", "min": "axis out keepdims", "nonzero": "",
    "prod": "axis dtype out keepdims", "ravel": "order", "repeat": "repeats axis", "reshape": "order",
    "round": "decimals out", "searchsorted": "v side sorter", "sort": "axis", "squeeze": "axis",
    "std": "axis dtype out ddof keepdims", "sum": "axis dtype out keepdims", "swapaxes": "axis1 axis2",
    "take": "indices axis out", "trace": "offset axis1 axis2 dtype out", "transpose": "",
    "var": "axis dtype out ddof keepdims", "view": "dtype",
}  # fmt: skip
ATTRIBUTES = frozenset(("dtype", "flags", "itemsize", "nbytes", "ndim", "shape", "size", "strides"))
FROM_HOST = frozenset(("array", "asarray"))  # take arrays of the host
WAIT = frozenset(("nonzero", "flatnonzero", "argwhere", "unique", "array_equal", "allclose", "bincount"))
BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or",
    "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift", "lt": "less", "le": "less_equal",
    "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}  # fmt: skip
UNARY = {"neg": "negative", "pos": "positive", "invert": "invert", "abs": "absolute"}
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")

_closed = False


@contextlib.contextmanager
def closed() -> Iterator[None]:
    """Nothing may wait for the device in here."""
    global _closed
    before, _closed = _closed, True
    try:
        yield
    finally:
        _closed = before


def _waits(what: str) -> None:
    assert not _closed, f"{what} waits for the device, and must not here"


class DeviceArray:
    """What cupy.ndarray shows of itself; ``_array`` is for this module and the emulation of kernels."""

    __slots__ = ("_array",)
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __repr__(self) -> str:
        return f"DeviceArray({self._array!r})"

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[DeviceArray]:
        return (self[i] for i in range(len(self)))

    def __getattr__(self, name: str) -> Any:
        if name in ATTRIBUTES:
            return getattr(self._array, name)
        if name in METHODS:
            return _wrapper(f"ndarray.{name}", getattr(self._array, name), allowed=METHODS[name].split())
        raise AttributeError(f"cupy.ndarray has no attribute {name!r}, or the stand-in for it does not know it")

    @property
    def T(self) -> DeviceArray:
        return DeviceArray(self._array.T)

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self._array.ctypes.data)

    # ---- to and from the host

    def get(self) -> np.ndarray:
        _waits("get()")
        return self._array.copy()

    def set(self, array: np.ndarray) -> None:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"set() takes an array of the host, got {type(array).__name__}")
        if array.dtype != self.dtype or array.shape != self.shape:
            raise ValueError(f"set(): {array.dtype} {array.shape} into {self.dtype} {self.shape}")
        self._array[...] = array

    def item(self) -> Any:
        _waits("item()")
        return self._array.item()

    def tolist(self) -> Any:
        _waits("tolist()")
        return self._array.tolist()

    def __float__(self) -> float:
        _waits("float()")
        return float(self._array)

    def __int__(self) -> int:
        _waits("int()")
        return int(self._array)

    def __bool__(self) -> bool:
        _waits("bool()")
        return bool(self._array)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    # ---- NumPy's functions, called with an array of the device

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__":
            raise TypeError(f"{ufunc.__name__}.{method} is not for arrays of the device")
        if isinstance(options.get("out"), tuple):
            (options["out"],) = options["out"]
        return getattr(xp, ufunc.__name__)(*inputs, **options)

    def __array_function__(self, function: Any, _types: Any, args: Any, options: Any) -> Any:
        return getattr(xp, function.__name__)(*args, **options)

    # ---- elements

    def __getitem__(self, key: Any) -> DeviceArray:
        parts = _index(key)
        if any(isinstance(p, np.ndarray) and p.dtype == bool for p in parts):
            _waits("a mask as an index")
        return DeviceArray(self._array[parts])

    def __setitem__(self, key: Any, value: Any) -> None:
        parts = _index(key)
        if isinstance(value, DeviceArray) and any(isinstance(p, np.ndarray) and p.dtype != bool for p in parts):
            places = np.arange(self.size).reshape(self.shape)[parts]
            assert np.unique(places).size == places.size, "an assignment to repeated places: which one lasts?"
        self._array[parts] = _hidden("assignment", value)


def _index(key: Any) -> tuple[Any, ...]:
    """``key`` for the hidden array, such that the result is always an array."""
    parts = key if isinstance(key, tuple) else (key,)
    hidden = tuple(_hidden("index", part) for part in parts)
    return hidden if any(part is Ellipsis for part in hidden) else (*hidden, ...)


def _hidden(where: str, value: Any) -> Any:
    """``value`` with the arrays of the device in it laid open; arrays of the host are refused."""
    if isinstance(value, DeviceArray):
        return value._array
    if isinstance(value, np.ndarray):
        raise TypeError(f"{where}: Unsupported type <class 'numpy.ndarray'>: an array of the host, {value.shape}")
    if isinstance(value, (tuple, list)):
        return type(value)(_hidden(where, part) for part in value)
    return value


def _shown(result: Any) -> Any:
    if isinstance(result, (np.ndarray, np.generic)):
        return DeviceArray(np.asarray(result))
    return type(result)(map(_shown, result)) if type(result) in (tuple, list) else result


def _wrapper(name: str, function: Callable[..., Any], allowed: Any = None, lacking: Any = ()) -> Callable[..., Any]:
    """``function`` on arrays of the device; ``allowed``: the keywords that CuPy's takes, or ``lacking`` those not."""

    def call(*args: Any, **options: Any) -> Any:
        for keyword in options:
            if keyword in lacking or (allowed is not None and keyword not in allowed):
                raise TypeError(f"cupy.{name}() got an unexpected keyword argument {keyword!r}")
        if name.rpartition(".")[2] in WAIT:
            _waits(f"{name}()")
        if name in FROM_HOST and isinstance(args[0], np.ndarray):
            return DeviceArray(np.array(*args, **options))  # always a copy
        out = options.get("out")
        result = function(*_hidden(name, args), **{k: _hidden(name, v) for k, v in options.items()})
        if out is not None:
            return out
        aliased = [a for a in args if isinstance(a, DeviceArray) and a._array is result]
        return aliased[0] if aliased else _shown(result)

    return call


def _sign(x: Any, out: Any = None) -> Any:
    found = np.where(np.isnan(x), 0, np.sign(x)).astype(x.dtype)
    return found if out is None else np.copyto(out, found)


class _Module:
    """The stand-in for the module cupy."""

    __name__ = "cupy"
    ndarray = DeviceArray
    cuda = types.SimpleNamespace(
        Device=lambda index: types.SimpleNamespace(use=lambda: None),
        get_current_stream=lambda: types.SimpleNamespace(synchronize=lambda: None),
    )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in LACKING or not hasattr(np, name):
            raise AttributeError(f"module 'cupy' has no attribute {name!r}")
        found = getattr(np, name)
        if not callable(found) or isinstance(found, type):
            return found  # nan, float32
        if isinstance(found, np.ufunc):
            wrapped = _wrapper(name, _sign if name == "sign" else found, allowed=UFUNC_PARAMETERS)
        else:
            wrapped = _wrapper(name, found, lacking=LACKING_PARAMETERS.get(name, ()))
        setattr(self, name, wrapped)
        return wrapped

    @staticmethod
    def asnumpy(array: Any) -> np.ndarray:
        return array.get() if isinstance(array, DeviceArray) else np.asarray(array)


xp: Any = _Module()


def _operators() -> None:
    """Give DeviceArray its operators: each is the function of ``xp``; in place with ``out``."""

    def binary(name: str) -> tuple[Any, Any, Any]:
        def forward(self: Any, other: Any) -> Any:
            return getattr(xp, name)(self, other)

        def reflected(self: Any, other: Any) -> Any:
            return getattr(xp, name)(other, self)

        def in_place(self: Any, other: Any) -> Any:
            return getattr(xp, name)(self, other, out=self)

        return forward, reflected, in_place

    for short, name in BINARY.items():
        forward, reflected, in_place = binary(name)
        setattr(DeviceArray, f"__{short}__", forward)
        if short not in COMPARISONS:
            setattr(DeviceArray, f"__r{short}__", reflected)
            setattr(DeviceArray, f"__i{short}__", in_place)
    for short, name in UNARY.items():
        setattr(DeviceArray, f"__{short}__", lambda self, name=name: getattr(xp, name)(self))


_operators()


def laid_open(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a kernel for its emulation; arrays of the host beside those of the device are refused."""
    on_device = any(isinstance(v, DeviceArray) for v in values)
    if on_device:
        return tuple(_hidden("kernel argument", v) for v in values)
    return values
