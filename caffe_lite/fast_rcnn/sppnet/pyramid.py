"""SPPnet's features of regions: convolutions over an image pyramid, spatial pyramid pooling over each region.

The net has the inputs ``data`` (1, 3, H, W) and ``rois`` (R, 5), and several ROIPooling layers over the same rois,
whose outputs, flattened, are concatenated: P = channels * 50 for 6x6, 3x3, 2x2 and 1x1 bins. The shape of ``data``
in the prototxt is the input on which the convolutions were trained: a region goes to the scale at which its area is
nearest to that input's (224 x 224 in the paper).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe_lite.data.config import cfg
from caffe_lite.data.image_blob import Float32, im_list_to_blob, prep_im_for_blob
from caffe_lite.errors import NetError
from caffe_lite.fast_rcnn.rcnn.features import RegionFeatures
from caffe_lite.fast_rcnn.test import project_rois


class PyramidFeatures(RegionFeatures):
    """Features of regions at ``cfg.TEST.SCALES``, with cfg.TEST.MAX_SIZE and cfg.PIXEL_MEANS, as they are now.

    The convolutions run once for each scale that any region goes to, and all its regions are pooled together.
    """

    def __init__(self, net: Any) -> None:
        super().__init__(net)
        if sorted(net.inputs) != ["data", "rois"] or len(net.blobs["data"].shape) != 4:
            raise NetError(f"net {net.name!r} has the inputs {net.inputs}; expected data (1, 3, H, W) and rois (R, 5)")
        self.area = float(np.prod(net.blobs["data"].shape[2:]))
        self.scales, self.max_size, self.means = tuple(cfg.TEST.SCALES), cfg.TEST.MAX_SIZE, cfg.PIXEL_MEANS.copy()

    def settings(self) -> str:
        return repr(("pyramid", self.area, self.scales, self.max_size, self.means.tolist()))

    def pooled(self, im: NDArray[np.uint8], boxes: NDArray[Any]) -> Float32:
        found = np.empty((len(boxes), self.pooled_dim), np.float32)
        levels = [prep_im_for_blob(im, self.means, target, self.max_size) for target in self.scales]
        rois = project_rois(boxes, np.array([scale for _, scale in levels]), self.area)
        for level, (scaled, _) in enumerate(levels):
            rows = np.flatnonzero(rois[:, 0] == level)
            if len(rows):
                own = rois[rows]
                own[:, 0] = 0
                found[rows] = self._run(data=im_list_to_blob([scaled]), rois=own)
        return found
