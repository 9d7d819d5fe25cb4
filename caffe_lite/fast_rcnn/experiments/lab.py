"""Where experiments train and test: every net is made once, kept on disk, and found again by its recipe.

    OUT/data-.../                 the synthetic devkit, if no other is given
    OUT/nets/NAME-SEED-HASH/      one trained net: weights, done.json, and a folder for each test of it

HASH is of all that the net depends on: recipe, settings, data (a devkit of one's own by its path and the names of
its images), seed, and the hash of the net that it starts from. done.json is written last, so that what was
interrupted is trained to the end the next time, from its last snapshot if it has one.

On a real devkit a net is one of the paper's, started from its ImageNet weights, and a schedule is the paper's. The
small net stands for them on the synthetic devkit: it starts from weights that have learned to classify windows of
other pictures, which stand for ImageNet, and schedules are scaled to its iterations.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

import caffe_lite
from caffe_lite import threads
from caffe_lite.data import synthetic
from caffe_lite.data.config import cfg, cfg_from_file, cfg_from_list, preserved_cfg
from caffe_lite.data.factory import get_imdb
from caffe_lite.data.pascal_voc import PascalVoc
from caffe_lite.data.proposal_methods import Options
from caffe_lite.errors import DataError
from caffe_lite.fast_rcnn import rcnn, sppnet
from caffe_lite.fast_rcnn.compress import compress_net
from caffe_lite.fast_rcnn.detector import load_net
from caffe_lite.fast_rcnn.experiments.files import hash_of, read_json, write_json, write_solver, write_text
from caffe_lite.fast_rcnn.experiments.setting import (
    MINI,
    MODELS,
    PAPER_ITERS,
    RCNN_ITERS,
    TEST,
    TRAINVAL,
    Recipe,
    Setting,
)
from caffe_lite.fast_rcnn.rcnn.finetune import finetune
from caffe_lite.fast_rcnn.svm import SVMTrainer
from caffe_lite.fast_rcnn.test import im_detect, make_output_dir
from caffe_lite.fast_rcnn.train import read_solver, train_net
from caffe_lite.models import resolve
from caffe_lite.signals import SignalHandler
from caffe_lite.solver_nets import train_net_param

VERSION = 2  # raise it when the same recipe would give another net
_TEST_PHASE = 1


class Trained(NamedTuple):
    """A net or system on disk: its folder, weights, and the seconds that its training took."""

    folder: str
    weights: str
    seconds: float


class Tested(NamedTuple):
    """``aps``: class -> AP in [0, 1], empty if the annotations are not public; ``seconds``: median, of an image."""

    aps: dict[str, float]
    seconds: float

    @property
    def mean_ap(self) -> float:
        """Percent; NaN without annotations."""
        known = [ap for ap in self.aps.values() if np.isfinite(ap)]
        return 100 * float(np.mean(known)) if known else float("nan")


class _NetDetector:
    """A Fast R-CNN with what testing asks of a system."""

    def __init__(self, net: Any, classes: Sequence[str]) -> None:
        self.net, self.classes = net, tuple(classes)

    def detect(self, im: Any, boxes: Any) -> tuple[Any, Any]:
        return im_detect(self.net, im, boxes)


class Lab:
    """Trains and tests by a :class:`Setting`; makes the synthetic devkit when it is first asked for."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._synthetic = ""

    # ---- what there is to work with

    def models(self, of_paper: str) -> tuple[str, ...]:
        """The nets to measure, those of ``of_paper`` ("SML") unless the setting says otherwise."""
        if self.setting.models is not None:
            return self.setting.models
        return (MINI,) if self.setting.data is None else tuple(of_paper)

    @property
    def data(self) -> str:
        """The dataset folder."""
        return self.setting.data or self.synthetic_data()

    def synthetic_data(self) -> str:
        """The folder of the synthetic devkit, with stand-ins for 2007, 2010 and 2012; pretraining takes 2008."""
        if not self._synthetic:
            many, few = (8, 4) if self.setting.quick else (160, 160)
            folder = os.path.join(self.setting.out, f"data-v{synthetic.VERSION}-{many}-{few}")
            size = (120, 100) if self.setting.quick else (200, 150)
            sets = {
                "2007": {"trainval": many, "test": few},
                "2008": {"trainval": many},
                "2010": {"test": few},
                "2012": {"trainval": many, "test": few},
            }
            make_output_dir(self.setting.out)
            for year, images in sets.items():
                synthetic.make_devkit(folder, images=images, size=size, year=year)
            self._synthetic = folder
        return self._synthetic

    def imdb(self, name: str, proposals: str | None = None, data: str | None = None) -> Any:
        """A fresh imdb; ``proposals`` as :meth:`Imdb.set_proposals` takes them."""
        imdb = get_imdb(name, data or self.data)
        for part in getattr(imdb, "parts", [imdb]):
            if isinstance(part, PascalVoc):
                part.config["selective_search"] = {"progress": self.setting.progress}
        if proposals is not None:
            imdb.set_proposals(proposals, Options(imdb.cache_folder, progress=self.setting.progress))
        return imdb

    def scaled(self, model: str, paper_iters: int) -> int:
        """The paper's iterations, or the same share of the net's own."""
        return max(1, round(paper_iters * (self.setting.iters or self._default_iters(model)) / PAPER_ITERS))

    def _default_iters(self, model: str) -> int:
        return 6 if self.setting.quick else MODELS[model].iters

    # ---- training

    def train(self, recipe: Recipe, seed: int) -> Trained:
        """The net of ``recipe``."""
        start = self._start(recipe, seed)
        imdb = self.imdb(recipe.imdb, recipe.proposals)
        iters = self.scaled(recipe.model, recipe.schedule.iters)
        parts = [recipe.model, recipe.variant, *(p for p in recipe.frozen[-1:]), *recipe.imdb.split("+")]
        what = "-".join(part for part in parts if part).replace("voc_", "")
        key = [recipe._replace(start=None), iters, os.path.basename(start.folder), _images(imdb)]

        def work(folder: str) -> tuple[str, float]:
            solver = self._solver(recipe, folder, iters)
            unfinished = "latest" if glob.glob(os.path.join(glob.escape(folder), "*.solverstate")) else None
            _ = imdb.roidb  # proposals are no part of the training
            began, before = time.perf_counter(), _iterations(folder) if unfinished else 0
            trained = train_net(
                solver, imdb, folder, start.weights, iters, self.setting.progress,
                resume=unfinished, keep=1, signals=SignalHandler(),
            )  # fmt: skip
            if trained.solver.iter < iters:
                raise KeyboardInterrupt
            share = max(1, iters - before) / iters  # of the iterations that were done now
            return trained.snapshots[-1], (time.perf_counter() - began) / share

        return self._made(what, seed, key, recipe, work)

    def _start(self, recipe: Recipe, seed: int) -> Trained:
        return self.pretrained(recipe.model, seed) if recipe.start is None else self.train(recipe.start, seed)

    def pretrained(self, model: str, seed: int) -> Trained:
        """ImageNet weights, or what stands for them: the small net as a classifier of windows of other pictures."""
        if MODELS[model].weights is not None:
            return Trained(path := self._imagenet(model), path, 0.0)
        data = self.synthetic_data()
        imdb = self.imdb("voc_2008_trainval", data=data)
        iters = self.scaled(model, PAPER_ITERS)

        def work(folder: str) -> tuple[str, float]:
            _ = imdb.roidb
            definition = self._definition(model, "rcnn", folder, iters)
            began = time.perf_counter()
            found = finetune(f"{definition}/solver.prototxt", imdb, folder, iters, progress=self.setting.progress)
            net = caffe_lite.Net(resolve(f"{definition}/test.prototxt"), _TEST_PHASE, weights=found)
            weights = os.path.join(folder, "pretrained.caffemodel")  # without cls_score, as ImageNet's
            net.save(weights)
            return weights, time.perf_counter() - began

        return self._made(f"{model}-pretrained", seed, [iters, _images(imdb)], Recipe(model), work)

    def _imagenet(self, model: str) -> str:
        name = MODELS[model].weights
        assert name is not None
        path = os.path.join(self.setting.weights or os.curdir, name)
        if not os.path.isfile(path):
            raise DataError(
                f"{path}: no such file: net {model} starts from its ImageNet weights; give their folder (--weights), "
                f"or measure the small net (--models {MINI})"
            )
        return os.path.abspath(path)

    def system(self, name: str, model: str, seed: int) -> Trained:
        """``rcnn`` or ``sppnet``, all stages, on VOC 2007 trainval."""
        start = self.pretrained(model, seed)
        imdb = self.imdb(TRAINVAL)
        iters = self.scaled(model, RCNN_ITERS if name == "rcnn" else PAPER_ITERS)
        recipe = Recipe(model, name, settings=tuple(self._system_settings(name, model)))

        def work(folder: str) -> tuple[str, float]:
            _ = imdb.roidb
            definition = self._definition(model, name, folder, iters)
            package = rcnn if name == "rcnn" else sppnet
            options: dict[str, Any] = {"definition": definition, "iters": iters, "progress": self.setting.progress}
            found = package.train(imdb, folder, pretrained=start.weights, **options)
            for features in glob.glob(os.path.join(glob.escape(folder), "*.npy")):
                os.unlink(features)  # large, and of no more use
            return os.path.join(folder, "heads.npz"), sum(found.seconds.values())

        return self._made(
            f"{model}-{name}", seed, [name, iters, os.path.basename(start.folder), _images(imdb)], recipe, work
        )

    def _system_settings(self, name: str, model: str) -> list[str]:
        if name != "sppnet":
            return []
        return ["TEST.SCALES", str(MODELS[model].scales), "TEST.MAX_SIZE", str(MODELS[model].max_size)]

    # ---- what is made of a trained net

    def compress(self, recipe: Recipe, seed: int) -> str:
        """Weights of the truncated SVD's net, whose prototxt is the model's ``compressed``."""
        trained = self.train(recipe, seed)
        known = glob.glob(os.path.join(glob.escape(trained.folder), "*_svd_*.caffemodel"))
        if known:
            return known[0]
        folder = MODELS[recipe.model].folder
        names = [os.fspath(resolve(f"{folder}/{part}test.prototxt")) for part in ("", "compressed/")]
        return compress_net(names[0], trained.weights, svd_prototxt=names[1], output_dir=trained.folder).weights

    def svms(self, recipe: Recipe, seed: int) -> str:
        """Weights with SVMs in the place of the softmax's."""
        trained = self.train(recipe, seed)
        path = os.path.join(trained.folder, "svm.caffemodel")
        if not os.path.exists(path):
            with self._conditions(recipe, seed):
                net = load_net(f"{MODELS[recipe.model].folder}/test.prototxt", trained.weights)
                SVMTrainer(net, self.imdb(recipe.imdb, recipe.proposals), self.setting.progress).train()
                net.save(path)
        return path

    # ---- testing

    def test(
        self,
        recipe: Recipe,
        seed: int,
        imdb: str = TEST,
        settings: Sequence[str] = (),
        variant: str = "",
        weights: str | None = None,
    ) -> Tested:
        """Test the net of ``recipe`` with further ``settings``, by the model's ``variant`` of test.prototxt."""
        trained = self.train(recipe, seed)
        file, chosen = os.path.join(MODELS[recipe.model].folder, variant, "test.prototxt"), weights or trained.weights

        def system(classes: Sequence[str]) -> Any:
            return _NetDetector(load_net(file, chosen), classes)

        key = [variant, os.path.basename(chosen), list(settings)]
        with self._conditions(recipe, seed, settings):
            return self._tested(trained, key, self.imdb(imdb, recipe.proposals), system)

    def test_system(self, name: str, model: str, seed: int) -> Tested:
        """Test ``rcnn`` or ``sppnet``."""
        trained = self.system(name, model, seed)
        package = rcnn if name == "rcnn" else sppnet

        def system(_: Sequence[str]) -> Any:
            return package.load(trained.folder, os.path.join(trained.folder, "definition"))

        with self._conditions(Recipe(model), seed, self._system_settings(name, model)):
            return self._tested(trained, [], self.imdb(TEST), system)

    def _tested(self, trained: Trained, key: list[Any], imdb: Any, system: Callable[[Sequence[str]], Any]) -> Tested:
        folder = os.path.join(trained.folder, f"{imdb.name}-{hash_of([*key, _images(imdb)])}")
        file = os.path.join(folder, "tested.json")
        known = read_json(file)
        if known is None:
            make_output_dir(folder)
            imdb.competition_mode(not imdb.has_gt)
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                found = rcnn.test(system(imdb.classes), imdb, folder, self.setting.progress)
            if not imdb.has_gt:
                print(printed.getvalue(), file=sys.stderr, flush=True)
            aps = {name: ap if np.isfinite(ap) else None for name, ap in found.aps.items()}
            known = {"aps": aps, "seconds": float(np.median(found.seconds))}
            write_json(file, known)
        return Tested({k: float("nan") if v is None else v for k, v in known["aps"].items()}, known["seconds"])

    # ---- the machinery

    def _made(
        self, what: str, seed: int, key: list[Any], recipe: Recipe, work: Callable[[str], tuple[str, float]]
    ) -> Trained:
        """What ``work(folder)`` -> (weights, seconds) makes, once for each key and seed."""
        name = f"{what}-{seed}-{hash_of([VERSION, self.data_name(), seed, *key])}"
        folder = os.path.abspath(os.path.join(self.setting.out, "nets", name))
        done = os.path.join(folder, "done.json")
        known = read_json(done)
        if known is None:
            make_output_dir(folder)
            print(f"training {what}, seed {seed}, in {folder}", file=sys.stderr, flush=True)
            with self._conditions(recipe, seed), contextlib.redirect_stdout(io.StringIO()):
                weights, seconds = work(folder)
            known = {"weights": os.path.basename(weights), "seconds": seconds}
            write_json(done, known)
        return Trained(folder, os.path.join(folder, known["weights"]), float(known["seconds"]))

    def data_name(self) -> str:
        """What tells one devkit from another in a hash: the synthetic one's settings, or the path."""
        if self.setting.data is None:
            return f"synthetic {synthetic.VERSION} {self.setting.quick}"
        return os.path.abspath(self.setting.data)

    @contextmanager
    def _conditions(self, recipe: Recipe, seed: int, settings: Sequence[str] = ()) -> Iterator[None]:
        """Settings of the recipe and random seeds; the small net computes with one thread, as it gains from no more."""
        before = threads.get_num_threads()
        model = MODELS[recipe.model]
        with preserved_cfg():
            if model.settings is not None:
                cfg_from_file(resolve(model.settings))
                threads.set_num_threads(1)
            cfg_from_list([*recipe.settings, *settings])
            cfg.RNG_SEED = seed
            np.random.seed(seed)
            caffe_lite.set_random_seed(seed)
            try:
                yield
            finally:
                if model.settings is not None:
                    threads.set_num_threads(before)

    def _solver(self, recipe: Recipe, folder: str, iters: int) -> str:
        """The model's solver with the schedule, and the train net with the frozen layers, written into ``folder``."""
        param, origin = read_solver(os.path.join(MODELS[recipe.model].folder, recipe.variant, "solver.prototxt"))
        param.stepsize = self.scaled(recipe.model, recipe.schedule.step)
        net = train_net_param(param, origin)[0]
        for layer in net.layer:
            if layer.name in recipe.frozen:
                for spec in layer.param:
                    spec.lr_mult = spec.decay_mult = 0
        return write_solver(param, net, folder)

    def _definition(self, model: str, name: str, folder: str, iters: int) -> str:
        """The folder of a system's solver and test net, its schedule scaled to ``iters`` for the small net."""
        source = os.path.join(MODELS[model].folder, name)
        param, origin = read_solver(os.path.join(source, "solver.prototxt"))
        if MODELS[model].weights is None:
            param.stepsize = max(1, round(0.75 * iters))
        target = make_output_dir(os.path.join(folder, "definition"))
        write_solver(param, train_net_param(param, origin)[0], target)
        with open(resolve(os.path.join(source, "test.prototxt")), encoding="utf-8") as stream:
            write_text(os.path.join(target, "test.prototxt"), stream.read())
        return target


def _iterations(folder: str) -> int:
    """Of the newest snapshot in ``folder``, by its name."""
    names = glob.glob(os.path.join(glob.escape(folder), "*_iter_*.solverstate"))
    return max((int(name.rsplit("_", 1)[1].split(".")[0]) for name in names), default=0)


def _images(imdb: Any) -> str:
    return hash_of([imdb.name, list(imdb.image_index)])
