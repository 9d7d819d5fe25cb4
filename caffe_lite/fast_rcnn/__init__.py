"""Fast R-CNN: training, testing, drawing, and the console script ``fast-rcnn``.

Girshick, Fast R-CNN (2015). Rounding, sampling and caps follow the original Python code; each
module says in a sentence where it differs. This package imports every room of caffe_lite and is
imported by none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caffe_lite.fast_rcnn.detector import Detector

__all__ = ["Detector"]


def __getattr__(name: str) -> Any:
    """``Detector``, imported when asked for: the console script starts without it."""
    if name == "Detector":
        from caffe_lite.fast_rcnn.detector import Detector

        return Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
