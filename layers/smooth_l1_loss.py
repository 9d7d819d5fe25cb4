"""SmoothL1Loss: the loss of box regression, quadratic near zero and linear beyond.

Girshick, Fast R-CNN (2015), equation 3; behaves as SmoothL1LossLayer of caffe-fast-rcnn (2 or 3 bottoms)
and of py-faster-rcnn's Caffe (2 or 4 bottoms). With s = sigma^2 (1 unless smooth_l1_loss_param says otherwise):
    bottom[0]  predictions      (R, ...)
    bottom[1]  targets          the same shape
    bottom[2]  inside weights   the same shape; 1 if absent
    bottom[3]  outside weights  the same shape; 1 if absent
    top[0]     loss             ()  sum of outside * f(d) / R,  d = inside * (prediction - target)
    f(d) = s d^2 / 2 if |d| < 1 / s, else |d| - 1 / (2 s)
R counts all regions, background too. There is no loss_weight unless the prototxt gives one.
Gradients go to predictions and, negated, to targets: loss_weight / R * f'(d), times inside * outside with four
bottoms; with three the weights are NOT in the gradient, which is right for weights of 0 and 1 only. Weights get
none: zero where one is asked for.

Differs from Caffe: there is a CPU half; the loss is summed in double; backward may be called twice; an empty
batch has loss 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numba
import numpy as np

from caffe_lite.blob import Blob
from caffe_lite.cuda import Kernels
from caffe_lite.layer import Array, Blobs, Flags, LossLayer
from caffe_lite.registry import register_layer

kernels = Kernels(__file__)
NAMES = "predictions", "targets", "inside weights", "outside weights"


@register_layer("SmoothL1Loss")
class SmoothL1Loss(LossLayer):
    exact_bottoms = None
    min_bottoms, max_bottoms = 2, 4

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        sigma = self.param.smooth_l1_loss_param.sigma
        self.check(sigma > 0, f"sigma must be > 0, got {sigma:g}")
        self.sigma2 = float(sigma) ** 2

    def gradient_caveat(self, bottom: Blobs) -> str:
        if len(bottom) != 3 or bool(((bottom[2].data == 0) | (bottom[2].data == 1)).all()):
            return ""
        return "with three bottoms the weights are not in the gradient, which is right for weights of 0 and 1 only"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        for blob, name in zip(bottom, NAMES):  # noqa: B905 - weights may be absent
            self.check_shape(
                blob.shape == shape, f"{name} must have shape {shape}, as the predictions, got {blob.shape}"
            )
        self.regions = max(math.prod(shape[:1]), 1)
        top[0].reshape(())

    def default_loss_weight(self, top_index: int) -> float:
        return 0.0

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index < 2

    @staticmethod
    def _flat(bottom: Blobs) -> tuple[Array, Array, Array, Array, int]:
        """Predictions, targets, inside and outside weights (any array where absent), how many there are."""
        given = [blob.data.reshape(-1) for blob in bottom]
        predictions, targets, inside, outside = given + given[:1] * (4 - len(given))
        return predictions, targets, inside, outside, len(given)

    def forward_cpu(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = _forward(*self._flat(bottom), self.sigma2) / self.regions

    def forward_gpu(self, bottom: Blobs, top: Blobs) -> None:
        losses = self.device.workspace("smooth_l1_loss", (bottom[0].count,), self.dtype)
        kernels("smooth_l1_forward", losses.size, *self._flat(bottom), self.sigma2, losses, dtype=self.dtype)
        top[0].data[...] = losses.sum(dtype="float64") / self.regions

    def backward_cpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        scale = float(top[0].diff.reshape(-1)[0]) / self.regions
        for blob, sign in self._gradients(propagate_down, bottom):
            _backward(*self._flat(bottom), self.sigma2, sign * scale, blob.diff.reshape(-1))

    def backward_gpu(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        for blob, sign in self._gradients(propagate_down, bottom):
            scale = sign / self.regions
            kernels(
                "smooth_l1_backward", blob.count, *self._flat(bottom), self.sigma2, scale, top[0].diff, blob.diff,
                dtype=self.dtype,
            )  # fmt: skip

    @staticmethod
    def _gradients(propagate_down: Flags, bottom: Blobs) -> Iterator[tuple[Blob, float]]:
        """(blob, sign) of the bottoms whose gradient is wanted; that of weights is zeroed here."""
        for blob, sign, wanted in zip(bottom, (1.0, -1.0, 0.0, 0.0), propagate_down):  # noqa: B905
            if wanted and sign:
                yield blob, sign
            elif wanted and blob.diff_in_use:
                blob.diff[...] = 0


# No branches: which side of 1 / s a difference falls on cannot be predicted.


@numba.njit(cache=True)
def _forward(
    prediction: np.ndarray, target: np.ndarray, inside: np.ndarray, outside: np.ndarray, bottoms: int, sigma2: float
) -> float:
    total = 0.0
    for i in range(prediction.size):
        d = prediction[i] - target[i]
        if bottoms > 2:
            d *= inside[i]
        size = abs(d)
        near = size if size < 1 / sigma2 else 1 / sigma2
        loss = sigma2 * near * (size - 0.5 * near)  # both cases of f; a NaN stays one
        total += outside[i] * loss if bottoms > 3 else loss
    return total


@numba.njit(cache=True)
def _backward(
    prediction: np.ndarray, target: np.ndarray, inside: np.ndarray, outside: np.ndarray,
    bottoms: int, sigma2: float, scale: float, dx: np.ndarray,
) -> None:  # fmt: skip
    for i in range(prediction.size):
        d = prediction[i] - target[i]
        if bottoms > 2:
            d *= inside[i]
        slope = sigma2 * d  # of a NaN, and at 0, too
        slope = 1.0 if slope > 1.0 else slope
        slope = -1.0 if slope < -1.0 else slope
        dx[i] = scale * (slope * inside[i] * outside[i] if bottoms > 3 else slope)
