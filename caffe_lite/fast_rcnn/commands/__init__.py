"""The commands of ``fast-rcnn``, one module each; what a module holds says :mod:`caffe_lite.console`."""
