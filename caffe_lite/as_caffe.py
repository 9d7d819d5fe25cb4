"""Let ``import caffe`` and its submodules mean caffe_lite, for scripts written for pycaffe.

    import caffe_lite
    caffe_lite.install_as_caffe()   # or run the script by: python -m caffe_lite SCRIPT [ARGS]
    import caffe                    # from caffe import layers as L, import caffe.proto.caffe_pb2, ...

Module ``caffe`` has what caffe_lite has, and Caffe's ``__version__``, since scripts ask for it;
``caffe.io`` and the other submodules are caffe_lite's own modules under a second name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from caffe_lite.errors import CaffeError

CAFFE_VERSION = "1.0.0"  # the release whose interface this is
SUBMODULES = {
    "caffe._caffe": "caffe_lite.pycaffe",
    "caffe.classifier": "caffe_lite.classifier",
    "caffe.coord_map": "caffe_lite.coord_map",
    "caffe.detector": "caffe_lite.detector",
    "caffe.draw": "caffe_lite.draw",
    "caffe.io": "caffe_lite.io",
    "caffe.net_spec": "caffe_lite.net_spec",
    "caffe.proto": "caffe_lite.proto",
    "caffe.proto.caffe_pb2": "caffe_lite.proto.caffe_pb2",
    "caffe.pycaffe": "caffe_lite.pycaffe",
}


PYCAFFE_NAMES = (
    "AdaDeltaSolver AdaGradSolver AdamSolver Classifier Detector Layer NCCL Net NesterovSolver NetSpec RMSPropSolver "
    "SGDSolver TEST TRAIN Timer get_solver has_nccl init_log io layer_type_list layers log params set_device "
    "set_mode_cpu set_mode_gpu set_multiprocess set_random_seed set_solver_count set_solver_rank solver_count "
    "solver_rank to_proto"
).split()


class _Caffe(ModuleType):
    """Module ``caffe``: what it does not have itself is looked up in caffe_lite."""

    def __getattr__(self, name: str) -> Any:
        if f"caffe.{name}" in SUBMODULES:
            raise AttributeError(f"module 'caffe' has no attribute {name!r}: import caffe.{name} first")
        return getattr(importlib.import_module("caffe_lite"), name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__all__})


class _Alias(Loader):
    """Loads a module by putting another one in its place, whose own name and spec stay as they are."""

    def __init__(self, target: str) -> None:
        self.target = target

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(self.target)


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if name not in SUBMODULES:
            return None
        return ModuleSpec(name, _Alias(SUBMODULES[name]), is_package=name == "caffe.proto")


def install_as_caffe() -> None:
    """From now on ``import caffe`` means caffe_lite, in the whole process. A second call does nothing.

    Raises:
        CaffeError: another caffe has been imported already.
    """
    present = sys.modules.get("caffe")
    if isinstance(present, _Caffe):
        return
    if present is not None:
        where = getattr(present, "__file__", None) or "an unknown place"
        raise CaffeError(f"caffe is imported already, from {where}: call install_as_caffe() before 'import caffe'")
    import caffe_lite

    module = _Caffe("caffe", __doc__)
    module.__all__ = list(PYCAFFE_NAMES)  # type: ignore[attr-defined]
    module.__version__ = CAFFE_VERSION  # type: ignore[attr-defined]
    module.__file__ = caffe_lite.__file__
    module.__path__ = []
    module.layers = caffe_lite.net_spec.layers  # type: ignore[attr-defined]
    module.__spec__ = ModuleSpec("caffe", None, origin=caffe_lite.__file__, is_package=True)
    sys.modules["caffe"] = module
    sys.meta_path.insert(0, _Finder())
    for name in SUBMODULES.keys() - {"caffe.coord_map", "caffe.draw"}:  # pycaffe's import brings all but these, too
        importlib.import_module(name)
