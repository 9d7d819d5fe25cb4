"""RoIDataLayer and what feeds it: roidb preparation and minibatch sampling of Fast R-CNN."""

from caffe_lite.data.roi_data_layer.layer import RoIDataLayer

__all__ = ["RoIDataLayer"]
