"""caffe_lite: Caffe's nets and solvers in Python, from prototxt, on the CPU and the GPU.

import caffe_lite as caffe
net = caffe.Net("deploy.prototxt", caffe.TEST, weights="net.caffemodel")
net.blobs["data"].data[...] = image
probabilities = net.forward()["prob"]
"""

from caffe_lite import numba_setup

numba_setup.prepare()  # before any module that imports numba

from caffe_lite import io, layers  # noqa: E402
from caffe_lite.as_caffe import install_as_caffe  # noqa: E402
from caffe_lite.blob import Blob  # noqa: E402
from caffe_lite.classifier import Classifier  # noqa: E402
from caffe_lite.detector import Detector  # noqa: E402
from caffe_lite.device import set_compute  # noqa: E402
from caffe_lite.errors import (  # noqa: E402
    CaffeError,
    DataError,
    DeviceError,
    NetError,
    PrototxtError,
    ShapeError,
    SolverError,
    UnknownNameError,
    UnknownTypeError,
    WeightsError,
)
from caffe_lite.net_spec import NetSpec, params, to_proto  # noqa: E402
from caffe_lite.pycaffe import (  # noqa: E402
    NCCL,
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    Layer,
    NesterovSolver,
    Net,
    RMSPropSolver,
    SGDSolver,
    Solver,
    Timer,
    get_solver,
    has_nccl,
    init_log,
    layer_type_list,
    log,
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_random_seed,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from caffe_lite.threads import get_num_threads, set_num_threads  # noqa: E402

__version__ = "0.1.0"
TRAIN, TEST = 0, 1

__all__ = [
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "CaffeError",
    "Classifier",
    "DataError",
    "Detector",
    "DeviceError",
    "Layer",
    "NCCL",
    "NesterovSolver",
    "Net",
    "NetError",
    "NetSpec",
    "PrototxtError",
    "RMSPropSolver",
    "SGDSolver",
    "ShapeError",
    "Solver",
    "SolverError",
    "TEST",
    "TRAIN",
    "Timer",
    "UnknownNameError",
    "UnknownTypeError",
    "WeightsError",
    "get_num_threads",
    "get_solver",
    "has_nccl",
    "init_log",
    "install_as_caffe",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "params",
    "set_compute",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_num_threads",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
]
