"""A Caffe net as a PyTorch module, for timing: the layer types of the benchmark's cases.

RoI pooling is torchvision's roi_pool; without torchvision the pooled features are constants, and
PyTorch is spared that layer (``TorchNet.without_roi_pooling``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import caffe_lite
from caffe_lite import prototxt

try:
    from torchvision.ops import roi_pool
except (ImportError, RuntimeError):  # RuntimeError: a torchvision that was built for another PyTorch
    roi_pool = None


class TorchNet(torch.nn.Module):
    """``net({input: tensor})`` is the sum of the losses, or the last output if there is none."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        param, _ = prototxt.read_net(str(folder / "net.prototxt"))
        self.layers = [layer for layer in param.layer if layer.type not in ("Input", "Accuracy")]
        self.without_roi_pooling = roi_pool is None and any(p.type == "ROIPooling" for p in self.layers)
        self.weights = torch.nn.ParameterDict()
        source = caffe_lite.Net(folder / "net.prototxt", caffe_lite.TEST, weights=folder / "weights.caffemodel")
        for layer in self.layers:
            for i, blob in enumerate(source.params.get(layer.name, ())):
                trained = not layer.param or layer.param[min(i, len(layer.param) - 1)].lr_mult != 0
                values = torch.from_numpy(blob.data.copy())
                self.weights[self._key(layer, i)] = torch.nn.Parameter(values, requires_grad=trained)

    @staticmethod
    def _key(layer: Any, i: int) -> str:
        return f"{layer.name}_{i}".replace(".", "_")

    def forward(self, blobs: dict[str, torch.Tensor]) -> torch.Tensor:
        blobs = dict(blobs)
        losses = []
        result = torch.empty(0)
        for layer in self.layers:
            result = self.run_layer(layer, *(blobs[name] for name in layer.bottom))
            blobs[layer.top[0]] = result
            if layer.type.endswith("Loss"):
                losses.append(result)
        return sum(losses[1:], losses[0]) if losses else result

    def run_layer(self, layer: Any, *bottoms: torch.Tensor) -> torch.Tensor:
        """The top of one layer of ``layers``."""
        return getattr(self, "_" + layer.type.lower())(layer, *bottoms)

    def weights_of(self, layer: Any) -> list[torch.Tensor]:
        """Its parameters, if it has any."""
        keys = [self._key(layer, i) for i in range(2)]
        return [self.weights[key] for key in keys if key in self.weights]

    def _blobs(self, layer: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.weights[self._key(layer, 0)], self.weights[key] if (
            key := self._key(layer, 1)
        ) in self.weights else None

    def _convolution(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        p = layer.convolution_param
        return F.conv2d(x, *self._blobs(layer), stride=_one(p.stride, 1), padding=_one(p.pad, 0), groups=p.group)

    def _innerproduct(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.flatten(1), *self._blobs(layer))

    def _relu(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        return F.relu_(x)

    def _pooling(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        p = layer.pooling_param
        return F.max_pool2d(x, p.kernel_size, p.stride, p.pad, ceil_mode=True)

    def _lrn(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        p = layer.lrn_param
        return F.local_response_norm(x, p.local_size, p.alpha, p.beta, p.k)

    def _dropout(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, layer.dropout_param.dropout_ratio, self.training)

    def _roipooling(self, layer: Any, x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        p = layer.roi_pooling_param
        if roi_pool is not None:
            return roi_pool(x, rois, (p.pooled_h, p.pooled_w), p.spatial_scale)
        return x.mean().expand(len(rois), x.shape[1], p.pooled_h, p.pooled_w)

    def _softmax(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        return F.softmax(x, 1)

    def _softmaxwithloss(self, layer: Any, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(x, labels.long())

    def _smoothl1loss(self, layer: Any, x: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.smooth_l1_loss(weight * x, weight * target, reduction="sum") / len(x)


def _one(values: Any, default: int) -> int:
    return values[0] if len(values) else default
