"""What pycaffe's compiled module offers besides nets and layers: logging, parallel state, solver classes, NCCL.

    init_log, log                                   Caffe's log on stderr
    SGDSolver, ... AdamSolver                       a solver of that type, whatever its prototxt's type is
    solver_count, solver_rank, set_*, NCCL          one process trains on one device: 1, 0, and an error

In scripts that ``import caffe`` this is also ``caffe._caffe``.
"""

from __future__ import annotations

import logging
from typing import Any, NoReturn

from caffe_lite import glog, registry
from caffe_lite.blob import Blob, BlobVec
from caffe_lite.device import set_device, set_mode_cpu, set_mode_gpu, set_random_seed
from caffe_lite.errors import DeviceError
from caffe_lite.layer import Layer
from caffe_lite.net import Net
from caffe_lite.registry import layer_type_list
from caffe_lite.solver import Solver, get_solver
from caffe_lite.timer import Timer

__all__ = [
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "BlobVec",
    "Layer",
    "NCCL",
    "Net",
    "NesterovSolver",
    "RMSPropSolver",
    "SGDSolver",
    "Solver",
    "Timer",
    "get_solver",
    "has_nccl",
    "init_log",
    "layer_type_list",
    "log",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
]

_log_handlers: list[logging.Handler] = []  # what init_log installed

SGDSolver: type[Solver] = registry.solvers.get("SGD")
NesterovSolver: type[Solver] = registry.solvers.get("Nesterov")
AdaGradSolver: type[Solver] = registry.solvers.get("AdaGrad")
RMSPropSolver: type[Solver] = registry.solvers.get("RMSProp")
AdaDeltaSolver: type[Solver] = registry.solvers.get("AdaDelta")
AdamSolver: type[Solver] = registry.solvers.get("Adam")


def init_log(level: int = 0, stderr: bool = True) -> None:
    """Print Caffe's log to stderr from severity ``level`` on: 0 INFO, 1 WARNING, 2 ERROR, 3 FATAL.

    ``stderr`` False prints nothing. Handlers of your own on the logger "caffe_lite" get the lines in either case.

    Raises:
        ValueError: another level.
    """
    if level not in range(len(glog.LEVELS)):
        raise ValueError(f"init_log: level must be 0 INFO, 1 WARNING, 2 ERROR or 3 FATAL, got {level!r}")
    glog.remove(_log_handlers)
    _log_handlers[:] = glog.install(level) if stderr else []


def log(message: str) -> None:
    """Write ``message`` to Caffe's log, severity INFO."""
    glog.logger.info("%s", message)


def solver_count() -> int:
    """How many solvers train together: 1."""
    return 1


def set_solver_count(count: int) -> None:
    """Accepts 1.

    Raises:
        DeviceError: more solvers than one.
    """
    if count != 1:
        raise DeviceError(f"set_solver_count({count}): one process trains on one device, the count is always 1")


def solver_rank() -> int:
    """The number of this solver among those that train together: 0."""
    return 0


def set_solver_rank(rank: int) -> None:
    """Accepts 0.

    Raises:
        DeviceError: another rank.
    """
    if rank != 0:
        raise DeviceError(f"set_solver_rank({rank}): one process trains on one device, the rank is always 0")


def set_multiprocess(multiprocess: bool) -> None:
    """Whether other processes train together with this one, which makes no difference to it by itself."""


def has_nccl() -> bool:
    """Can several GPUs train together? No."""
    return False


class NCCL:
    """Pycaffe's link between the GPUs of one training; here a clear error."""

    def __init__(self, solver: Any, uid: bytes) -> None:
        _refuse()

    @staticmethod
    def new_uid() -> bytes:
        """Raise DeviceError."""
        _refuse()


def _refuse() -> NoReturn:
    raise DeviceError("NCCL: training on several GPUs is not available (has_nccl() is False); use one GPU")
