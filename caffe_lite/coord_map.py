"""Which pixel of one blob lies at which pixel of another, and the Crop that aligns them (pycaffe's coord_map).

A map ``(axis, scale, shift)`` from blob A to blob B says that coordinate x of A lies at ``scale * x +
shift`` of B: numbers, or arrays with one for each spatial axis. axis is the one before the first of
those (None: any). Each layer has a map from bottom to top; of kernel k with its dilation, stride s, padding p:

    Convolution, Pooling, Im2col    scale 1 / s    shift (p - (k - 1) / 2) / s
    Deconvolution                   scale s        shift (k - 1) / 2 - p
    Crop by offset o                scale 1        shift -o
    PASS_THROUGH_LAYERS             the identity

Long, Shelhamer, Darrell, Fully Convolutional Networks (2015), align their skips with these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe_lite.net_spec import Function, Top, layers

CoordMap = tuple[int | None, Any, Any]
IDENTITY: CoordMap = (None, 1, 0)
PASS_THROUGH_LAYERS = (
    "AbsVal BatchNorm Bias BNLL Dropout Eltwise ELU Log LRN Exp MVN Power ReLU PReLU Scale Sigmoid Split TanH Threshold"
).split()
LEGACY_FIELDS = {f"{name}_{axis}" for name in ("pad", "kernel", "stride") for axis in "hw"}


class UndefinedMapException(Exception):
    """A layer of which no coordinates pass through, as InnerProduct."""


class AxisMismatchException(Exception):
    """Two maps about different axes cannot be composed."""


def conv_params(fn: Function) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """(axis, stride, kernel size with its dilation, padding) of a layer with a sliding window.

    Raises:
        AssertionError: the layer uses the older fields kernel_h, stride_w and so on.
    """
    params = fn.params.get("convolution_param", fn.params)
    legacy = LEGACY_FIELDS & (set(fn.params) | set(params))
    assert not legacy, f"{fn.type_name}: {', '.join(sorted(legacy))} cannot be mapped: give kernel_size, stride and pad"
    size, dilation = np.array(params["kernel_size"], ndmin=1), np.array(params.get("dilation", 1), ndmin=1)
    stride, pad = (np.array(params.get(name, default), ndmin=1) for name, default in (("stride", 1), ("pad", 0)))
    return params.get("axis", 1), stride, (size - 1) * dilation + 1, pad


def crop_params(fn: Function) -> tuple[int, np.ndarray]:
    """(axis, offset) of a Crop layer."""
    params = fn.params.get("crop_param", fn.params)
    return params.get("axis", 2), np.array(params.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> CoordMap:
    """The map of one layer, from its bottom to its top.

    Raises:
        UndefinedMapException: it has none.
    """
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, size, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (size - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, size, pad = conv_params(fn)
        return axis, stride, (size - 1) / 2 - pad
    if fn.type_name in PASS_THROUGH_LAYERS:
        return IDENTITY
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset  # the axis before the first that is cropped, as a convolution's
    raise UndefinedMapException(f"{fn.type_name} does not keep coordinates")


def compose(base_map: CoordMap, next_map: CoordMap) -> CoordMap:
    """First ``next_map``, then ``base_map``.

    Raises:
        AxisMismatchException: they are about different axes.
    """
    base_axis, base_scale, base_shift = base_map
    axis, scale, shift = next_map
    if None not in (base_axis, axis) and base_axis != axis:
        raise AxisMismatchException(f"one map is about axis {base_axis}, the other about axis {axis}")
    return axis if base_axis is None else base_axis, base_scale * scale, base_scale * shift + base_shift


def inverse(coord_map: CoordMap) -> CoordMap:
    """The map back."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def _mapped_bottoms(top: Top) -> Sequence[Top]:
    """The bottoms whose coordinates ``top`` keeps: of a Crop its first, the second gives the size only."""
    return top.fn.inputs[:1] if top.fn.type_name == "Crop" else top.fn.inputs


def _walk(start: Top, goal: dict[Top, CoordMap] | None = None) -> tuple[dict[Top, CoordMap], Top | None]:
    """The map to ``start`` from each top that it is made of, as far as there are maps; stops at one in ``goal``.

    Of several ways to the same top the first is taken: where they differ, no crop could align the blobs.
    """
    maps: dict[Top, CoordMap] = {start: IDENTITY}
    frontier = [start]
    while frontier:
        top = frontier.pop()
        if goal is not None and top in goal:
            return maps, top
        for bottom in _mapped_bottoms(top):
            if bottom in maps:
                continue
            try:
                maps[bottom] = compose(maps[top], coord_map(top.fn))
            except UndefinedMapException:
                break
            frontier.append(bottom)
    return maps, None


def coord_map_from_to(top_from: Top, top_to: Top) -> CoordMap:
    """The map from coordinates of ``top_from`` to those of ``top_to``, by way of a blob that both come from.

    Raises:
        RuntimeError: there is none, or a layer between keeps no coordinates.
    """
    from_maps, _ = _walk(top_from)
    to_maps, common = _walk(top_to, from_maps)
    if common is None:
        raise RuntimeError(
            "Could not compute map between tops; are they connected by spatial layers? "
            f"(from a {top_from.fn.type_name} to a {top_to.fn.type_name})"
        )
    return compose(to_maps[common], inverse(from_maps[common]))


def crop(top_from: Top, top_to: Top) -> Top:
    """A Crop layer that cuts ``top_from`` to the size of ``top_to``, aligned with it.

    Raises:
        RuntimeError: no map joins the two.
        AssertionError: their scales differ, or the offset is negative or no whole number.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    scale, shift = np.atleast_1d(scale), np.atleast_1d(shift)
    assert (scale == 1).all(), f"scale mismatch on crop (a = {scale})"
    assert (shift <= 0).all(), f"cannot crop negative offset (b = {shift})"
    assert (np.round(shift) == shift).all(), f"cannot crop noninteger offset (b = {shift})"
    axis = 1 if axis is None else axis
    return layers.Crop(top_from, top_to, crop_param={"axis": axis + 1, "offset": [int(-s) for s in shift]})
