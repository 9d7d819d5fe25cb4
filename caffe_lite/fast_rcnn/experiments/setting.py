"""How an experiment runs: nets, schedules, the recipe of a trained net."""

from __future__ import annotations

from typing import Any, NamedTuple

TRAINVAL, TEST = "voc_2007_trainval", "voc_2007_test"
MINI = "mini"
PAPER_ITERS = 40000  # of the default schedule, to which others are scaled
RCNN_ITERS = 70000


class Model(NamedTuple):
    """A net of the paper, or the small one."""

    folder: str
    weights: str | None  # file name of its ImageNet weights; None: the small net has none
    iters: int
    settings: str | None  # a YAML file that goes with it
    scales: tuple[int, ...]  # of the image pyramid in Table 7
    max_size: int


_FIVE, _FIVE_MAX = (480, 576, 688, 864, 1200), 2000
MODELS = {
    "S": Model("models/CaffeNet", "CaffeNet.v2.caffemodel", PAPER_ITERS, None, _FIVE, _FIVE_MAX),
    "M": Model("models/VGG_CNN_M_1024", "VGG_CNN_M_1024.v2.caffemodel", PAPER_ITERS, None, _FIVE, _FIVE_MAX),
    "L": Model("models/VGG16", "VGG16.v2.caffemodel", PAPER_ITERS, None, _FIVE, _FIVE_MAX),
    MINI: Model("models/mini", None, 500, "models/mini/mini.yml", (154, 184, 220, 276, 384), 640),
}


class Setting(NamedTuple):
    """How experiments run.

    ``data``: a devkit's folder, None for the synthetic one; ``weights``: folder of the ImageNet weights.
    """

    out: str
    data: str | None = None
    seeds: tuple[int, ...] = (3, 4, 5)
    models: tuple[str, ...] | None = None  # None: what the table has, or the small net on the synthetic devkit
    iters: int | None = None  # in the place of 40,000; other schedules follow
    weights: str | None = None
    quick: bool = False
    progress: bool = True


class Schedule(NamedTuple):
    """Iterations, and after how many the rate falls to a tenth, in the paper's numbers."""

    iters: int = PAPER_ITERS
    step: int = 30000


class Recipe(NamedTuple):
    """All that a Fast R-CNN depends on but data and seed.

    ``variant``: folder of the model's solver, or ""; ``settings``: KEY VALUE pairs as of ``--set``; ``start``: the
    net that it starts from, None for the pretrained one; ``frozen``: further layers that do not learn.
    """

    model: str
    variant: str = ""
    imdb: str = TRAINVAL
    schedule: Schedule = Schedule()
    settings: tuple[str, ...] = ()
    proposals: str | None = None
    start: Any = None  # a Recipe
    frozen: tuple[str, ...] = ()
