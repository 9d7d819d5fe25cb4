"""caffe_lite: Caffe's nets and solvers in Python, from prototxt, on the CPU and the GPU.

import caffe_lite as caffe
net = caffe.Net("deploy.prototxt", caffe.TEST, weights="net.caffemodel")
net.blobs["data"].data[...] = image
probabilities = net.forward()["prob"]
"""

from caffe_lite import numba_setup

numba_setup.prepare()  # before any module that imports numba

from caffe_lite.blob import Blob  # noqa: E402
from caffe_lite.device import set_device, set_mode_cpu, set_mode_gpu, set_random_seed  # noqa: E402
from caffe_lite.errors import (  # noqa: E402
    CaffeError,
    DataError,
    DeviceError,
    NetError,
    PrototxtError,
    ShapeError,
    SolverError,
    UnknownTypeError,
    WeightsError,
)
from caffe_lite.layer import Layer  # noqa: E402
from caffe_lite.net import Net  # noqa: E402
from caffe_lite.registry import layer_type_list  # noqa: E402
from caffe_lite.solver import Solver, get_solver  # noqa: E402
from caffe_lite.threads import get_num_threads, set_num_threads  # noqa: E402

__version__ = "0.1.0"
TRAIN, TEST = 0, 1

__all__ = [
    "TEST",
    "TRAIN",
    "Blob",
    "CaffeError",
    "DataError",
    "DeviceError",
    "Layer",
    "Net",
    "NetError",
    "PrototxtError",
    "ShapeError",
    "Solver",
    "SolverError",
    "UnknownTypeError",
    "WeightsError",
    "get_num_threads",
    "get_solver",
    "layer_type_list",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_num_threads",
    "set_random_seed",
]
