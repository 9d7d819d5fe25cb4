"""The original's ``roi_data_layer.minibatch`` under a short name; see the module of that name in roi_data_layer."""

from caffe_lite.data.roi_data_layer.minibatch import get_minibatch

__all__ = ["get_minibatch"]
