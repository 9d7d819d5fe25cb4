"""The protobuf messages of Caffe's files: ``from caffe_lite.proto import caffe_pb2``."""
