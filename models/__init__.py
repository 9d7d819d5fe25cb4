"""The prototxt files that ship with caffe_lite, laid out as Fast R-CNN's: one folder a net.

    CaffeNet/  VGG_CNN_M_1024/  VGG16/    models S, M and L of the paper: train, test, solver
    mini/                                 a small net for the demo, with its settings in mini.yml
    cfgs/                                 settings of the paper's experiments, for --cfg
    classification/                       LeNet to ResNet-101: deploy, and train_val and solver where published

The folders of the detectors hold variants, each with the files that differ:

    no_bbox_reg/    classification alone            fc_only/    VGG16, trained from fc6 up
    piecewise/      then box regression alone       conv2_1/    VGG16, trained from conv2_1 up
    compressed/     fully connected layers factored by truncated SVD
    coco/           81 classes (VGG_CNN_M_1024, VGG16)

They are layer definitions only; no weights are shipped.
"""

from __future__ import annotations

import os
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def path(name: str) -> Path:
    """The file of a shipped model: ``path("VGG16/test.prototxt")``.

    Raises FileNotFoundError, with the names that exist, if there is no such file.
    """
    found = _FOLDER / name
    if not found.is_file():
        known = ", ".join(sorted(p.relative_to(_FOLDER).as_posix() for p in _FOLDER.rglob("*.prototxt")))
        raise FileNotFoundError(f"no shipped model {name!r}; there are: {known}")
    return found


def resolve(name: str | os.PathLike[str]) -> Path:
    """A model file as the command line means it: the file itself, or the shipped one of that name.

    A relative path is tried against the working directory, as Caffe does. If nothing is there and
    the path begins with ``models/``, the file shipped with the package is taken; so
    ``--solver models/VGG16/solver.prototxt`` works from any folder, and a file of your own always
    comes first. The path is returned unchanged when neither exists: whoever opens it names it.
    """
    given = Path(name)
    if given.is_absolute() or given.exists() or given.parts[:1] != ("models",):
        return given
    shipped = _FOLDER.joinpath(*given.parts[1:])
    return shipped if shipped.is_file() else given
