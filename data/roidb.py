"""The original's ``roi_data_layer.roidb`` under a short name; see :mod:`caffe_lite.data.roi_data_layer.roidb`."""

from caffe_lite.data.roi_data_layer.roidb import (
    add_bbox_regression_targets,
    check_roidb,
    filter_roidb,
    prepare_roidb,
)

__all__ = ["add_bbox_regression_targets", "check_roidb", "filter_roidb", "prepare_roidb"]
