"""Fillers: the values that a parameter starts with (Caffe's FillerParameter).

Each is a function ``(param, shape, rng) -> array of shape`` registered by name. ``n`` in the
formulas is fan-in (count / shape[0]), fan-out (count / shape[1]) or their mean, by variance_norm.
Caffe draws from boost's mt19937, whose streams cannot be had elsewhere: values differ, laws do not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from caffe_lite.errors import NetError
from caffe_lite.registry import fillers, register_filler


def fill(array: Any, param: Any, rng: np.random.Generator, where: str = "") -> None:
    """Fill a host or device ``array`` as FillerParameter ``param`` says."""
    function = fillers.get(param.type, where)
    if array.size == 0:
        raise NetError(f"{where}: cannot fill a blob of shape {array.shape}, which has no elements")
    if param.sparse != -1 and param.type != "gaussian":
        raise NetError(f"{where}: filler {param.type!r} takes no 'sparse'; only 'gaussian' does")
    try:
        values = np.asarray(function(param, array.shape, rng), dtype=array.dtype)
    except ValueError as error:
        raise NetError(f"{where}: filler {param.type!r}: {error}") from error
    if hasattr(array, "set"):  # CuPy: one copy to the device
        array.set(np.ascontiguousarray(values))
    else:
        array[...] = values


def _fan(param: Any, shape: tuple[int, ...]) -> float:
    count = math.prod(shape)
    fan_in = count / shape[0] if shape else 1
    fan_out = count / shape[1] if len(shape) > 1 else count
    return {param.FAN_IN: fan_in, param.FAN_OUT: fan_out, param.AVERAGE: (fan_in + fan_out) / 2}[param.variance_norm]


@register_filler("constant")
def constant(param: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """value"""
    return np.full(shape, param.value)


@register_filler("uniform")
def uniform(param: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """U(min, max)"""
    if param.min > param.max:
        raise ValueError(f"min {param.min} is greater than max {param.max}")
    return rng.uniform(param.min, param.max, shape)


@register_filler("gaussian")
def gaussian(param: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """N(mean, std^2); with sparse >= 0 each value is kept with probability sparse / shape[0], else 0"""
    if param.std <= 0:
        raise ValueError(f"std must be > 0, got {param.std}")
    values = rng.normal(param.mean, param.std, shape)
    if param.sparse >= 0:
        if not shape or param.sparse > shape[0]:
            raise ValueError(f"sparse {param.sparse} is more than the number of outputs of shape {shape}")
        values *= rng.random(shape) < param.sparse / shape[0]
    return values


@register_filler("positive_unitball")
def positive_unitball(param: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """U(0, 1), then each slice of axis 0 divided by its sum"""
    values = rng.random(shape)
    rows = values.reshape(shape[0] if shape else 1, -1)
    rows /= rows.sum(axis=1, keepdims=True)
    return values


@register_filler("xavier")
def xavier(param: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """U(-s, s), s = sqrt(3 / n)"""
    scale = math.sqrt(3 / _fan(param, shape))
    return rng.uniform(-scale, scale, shape)


@register_filler("msra")
def msra(param: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """N(0, 2 / n)"""
    return rng.normal(0, math.sqrt(2 / _fan(param, shape)), shape)


@register_filler("bilinear")
def bilinear(param: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """The kernel of bilinear upsampling, for a Deconvolution: (1 - |x/f - c|) (1 - |y/f - c|)"""
    if len(shape) != 4 or shape[2] != shape[3]:
        raise ValueError(f"needs a 4-D blob with square kernels, got shape {shape}")
    f = math.ceil(shape[3] / 2)
    center = (shape[3] - 1) / (2 * f)
    row = 1 - np.abs(np.arange(shape[3]) / f - center)
    return np.broadcast_to(row[:, None] * row, shape)
