"""The settings where the original has them, ``fast_rcnn.config``; see :mod:`caffe_lite.data.config`."""

from caffe_lite.data.config import cfg, cfg_from_file, cfg_from_list, get_output_dir

__all__ = ["cfg", "cfg_from_file", "cfg_from_list", "get_output_dir"]
