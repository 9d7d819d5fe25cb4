"""SPPnet: what Fast R-CNN is compared with, on the same engine and the same data.

He et al., Spatial pyramid pooling (2014), section 4. The convolutions see the whole image, once for each of five
scales; every region takes the scale at which its area is nearest to the net's training input, and its features are
max-pooled onto grids of 6 x 6, 3 x 3, 2 x 2 and 1 x 1 bins. Only the layers behind that are fine-tuned.

    pyramid.py      features of regions; they are kept on disk as R-CNN's
    finetune.py     the fully connected layers classify cached features
    pipeline.py     all of it: train(imdb, folder, weights) -> RegionModel; test and SVMs are R-CNN's

Differs from the release: bins are those of the ROIPooling layer, which rounds a region's corners to the nearest
cells, where SPPnet maps them through the centres of receptive fields.
"""

from caffe_lite.fast_rcnn.rcnn.region_model import DetectionRun, RegionModel, test
from caffe_lite.fast_rcnn.sppnet.pipeline import load, train

__all__ = ["DetectionRun", "RegionModel", "load", "test", "train"]
