"""Convolution and its gradients from the definition, in float64: a loop over the taps of the kernels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np


def windows(padded: np.ndarray, out: Any, kernel: Any, stride: Any, dilation: Any) -> Any:
    """(tap, the view (N, C, *out) of what that tap meets) for each tap."""
    for tap in itertools.product(*map(range, kernel)):
        where = [
            slice(t * d, t * d + (o - 1) * s + 1, s) for t, d, o, s in zip(tap, dilation, out, stride, strict=True)
        ]
        yield tap, padded[(slice(None), slice(None), *where)]


def pad_with_zeros(x: np.ndarray, pad: Any) -> np.ndarray:
    return np.pad(x.astype(np.float64), [(0, 0), (0, 0), *((p, p) for p in pad)])


def convolve(x: np.ndarray, w: np.ndarray, stride: Any, pad: Any, dilation: Any) -> np.ndarray:
    """x (N, C, *in), w (K, C, *kernel) -> (N, K, *out)."""
    padded, kernel = pad_with_zeros(x, pad), w.shape[2:]
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    out = [(n - r) // s + 1 for n, r, s in zip(padded.shape[2:], reach, stride, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *out))
    for tap, met in windows(padded, out, kernel, stride, dilation):
        weights = w[(slice(None), slice(None), *tap)].astype(np.float64)
        y += np.moveaxis(np.tensordot(weights, met, (1, 1)), 0, 1)
    return y


def gradients(x: np.ndarray, w: np.ndarray, dy: np.ndarray, stride: Any, pad: Any, dilation: Any) -> Any:
    """(dx, dw): each tap passes dy on to the inputs that it met, and to its weights."""
    padded, kernel, dy = pad_with_zeros(x, pad), w.shape[2:], dy.astype(np.float64)
    dpadded, dw = np.zeros_like(padded), np.zeros(w.shape)
    spatial = [0, *range(2, x.ndim)]
    targets = windows(dpadded, dy.shape[2:], kernel, stride, dilation)
    for (tap, met), (_, target) in zip(windows(padded, dy.shape[2:], kernel, stride, dilation), targets, strict=True):
        of_tap = (slice(None), slice(None), *tap)
        dw[of_tap] = np.tensordot(dy, met, (spatial, spatial))
        target += np.moveaxis(np.tensordot(w[of_tap].astype(np.float64), dy, (0, 1)), 0, 1)
    inside = tuple(slice(p, p + n) for p, n in zip(pad, x.shape[2:], strict=True))
    return dpadded[(slice(None), slice(None), *inside)], dw
