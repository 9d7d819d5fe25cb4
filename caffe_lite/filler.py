"""Fillers: the values that a parameter starts with (Caffe's FillerParameter).

Each is a function ``(param, out, rng)`` registered by name that fills the host array ``out``. ``n`` in the
formulas is fan-in (count / shape[0]), fan-out (count / shape[1]) or their mean, by variance_norm.
Caffe draws from boost's mt19937, whose streams cannot be had elsewhere: values differ, laws do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from caffe_lite.errors import NetError
from caffe_lite.registry import fillers, register_filler

PIECE = 1 << 20  # elements drawn at a time


def fill(array: Any, param: Any, rng: np.random.Generator, where: str = "") -> None:
    """Fill a host or device ``array`` as FillerParameter ``param`` says.

    Raises:
        NetError: unknown type, parameters without sense, an array without elements.
    """
    function = fillers.get(param.type, where)
    if array.size == 0:
        raise NetError(f"{where}: cannot fill a blob of shape {array.shape}, which has no elements")
    if param.sparse != -1 and param.type != "gaussian":
        raise NetError(f"{where}: filler {param.type!r} takes no 'sparse'; only 'gaussian' does")
    on_host = array if isinstance(array, np.ndarray) else np.empty(array.shape, array.dtype)
    try:
        function(param, on_host, rng)
    except ValueError as error:
        raise NetError(f"{where}: filler {param.type!r}: {error}") from error
    if on_host is not array:
        array.set(on_host)


def _draw(out: np.ndarray, draw: Callable[[int], np.ndarray]) -> None:
    """Fill ``out`` from ``draw(n)``, in pieces: draws are double, and fc6 of VGG16 would take 800 MB of them."""
    flat = out.reshape(-1)
    for start in range(0, flat.size, PIECE):
        piece = flat[start : start + PIECE]
        piece[...] = draw(piece.size)


def _fan(param: Any, shape: tuple[int, ...]) -> float:
    count = math.prod(shape)
    fan_in = count / shape[0] if shape else 1
    fan_out = count / shape[1] if len(shape) > 1 else count
    return {param.FAN_IN: fan_in, param.FAN_OUT: fan_out, param.AVERAGE: (fan_in + fan_out) / 2}[param.variance_norm]


@register_filler("constant")
def constant(param: Any, out: np.ndarray, rng: np.random.Generator) -> None:
    """value"""
    out[...] = param.value


@register_filler("uniform")
def uniform(param: Any, out: np.ndarray, rng: np.random.Generator) -> None:
    """U(min, max)"""
    if param.min > param.max:
        raise ValueError(f"min {param.min} is greater than max {param.max}")
    _draw(out, lambda n: rng.uniform(param.min, param.max, n))


@register_filler("gaussian")
def gaussian(param: Any, out: np.ndarray, rng: np.random.Generator) -> None:
    """N(mean, std^2); with sparse >= 0 each value is kept with probability sparse / shape[0], else 0"""
    if param.std <= 0:
        raise ValueError(f"std must be > 0, got {param.std}")
    if param.sparse >= 0 and not (out.shape and param.sparse <= out.shape[0]):
        raise ValueError(f"sparse {param.sparse} is more than the number of outputs of shape {out.shape}")
    _draw(out, lambda n: rng.normal(param.mean, param.std, n))
    if param.sparse >= 0:
        kept = np.empty(out.shape, bool)
        _draw(kept, lambda n: rng.random(n) < param.sparse / out.shape[0])
        out *= kept


@register_filler("positive_unitball")
def positive_unitball(param: Any, out: np.ndarray, rng: np.random.Generator) -> None:
    """U(0, 1), then each slice of axis 0 divided by its sum"""
    _draw(out, rng.random)
    rows = out.reshape(out.shape[0] if out.shape else 1, -1)
    rows /= rows.sum(axis=1, keepdims=True)


@register_filler("xavier")
def xavier(param: Any, out: np.ndarray, rng: np.random.Generator) -> None:
    """U(-s, s), s = sqrt(3 / n)"""
    scale = math.sqrt(3 / _fan(param, out.shape))
    _draw(out, lambda n: rng.uniform(-scale, scale, n))


@register_filler("msra")
def msra(param: Any, out: np.ndarray, rng: np.random.Generator) -> None:
    """N(0, 2 / n)"""
    std = math.sqrt(2 / _fan(param, out.shape))
    _draw(out, lambda n: rng.normal(0, std, n))


@register_filler("bilinear")
def bilinear(param: Any, out: np.ndarray, rng: np.random.Generator) -> None:
    """The kernel of bilinear upsampling, for a Deconvolution: (1 - |x/f - c|) (1 - |y/f - c|)"""
    if out.ndim != 4 or out.shape[2] != out.shape[3]:
        raise ValueError(f"needs a 4-D blob with square kernels, got shape {out.shape}")
    size = out.shape[3]
    f = math.ceil(size / 2)
    center = (size - 1) / (2 * f)
    row = 1 - np.abs(np.arange(size) / f - center)
    out[...] = row[:, None] * row
