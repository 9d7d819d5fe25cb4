"""The commands of ``caffe-lite``, one module each; what a module holds says :mod:`caffe_lite.console`."""
