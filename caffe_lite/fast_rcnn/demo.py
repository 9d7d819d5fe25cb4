"""The main job in one go on made-up pictures: data, proposals, training, testing, drawings.

Everything is a function of the seed: data, draws and initial weights, and so the printed mAP, to the
last digit, whether or not the caches of an earlier run are there. It computes with one thread unless
told otherwise, since the net is too small to gain from more: threads would wait for each other, most
of all on a machine that does something else beside. (Another processor may round sums otherwise.)
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import caffe_lite
from caffe_lite import threads
from caffe_lite.data import synthetic
from caffe_lite.data.config import cfg, cfg_from_file, cfg_from_list, preserved_cfg
from caffe_lite.data.factory import get_imdb
from caffe_lite.data.image_blob import read_image
from caffe_lite.data.voc_eval import mean_ap
from caffe_lite.fast_rcnn import draw
from caffe_lite.fast_rcnn.test import apply_nms, load_detections, make_output_dir, test_net
from caffe_lite.fast_rcnn.train import SolverWrapper, train_net
from caffe_lite.models import resolve

ITERS = 2000
IMAGES = {"trainval": 320, "test": 80}
SIZE = (200, 150)
CONF = 0.6  # detections that are drawn


class DemoResult(NamedTuple):
    """What the demo found and where it put it."""

    aps: dict[str, float]
    mean_ap: float
    pictures: list[str]
    weights: str


def run_demo(
    output: str | os.PathLike[str] = "output",
    seed: int | None = None,
    iters: int | None = None,
    images: dict[str, int] | None = None,
    settings: Sequence[str] = (),
    progress: bool = True,
    num_threads: int = 1,
) -> DemoResult:
    """Make the data, train the mini net, test it on held-out pictures, draw; prints as it goes.

    Files go to ``output``/demo, the pictures to ``output`` itself. ``iters`` defaults to ITERS,
    ``images`` (set name -> count) to IMAGES, ``seed`` to cfg.RNG_SEED; ``settings`` are KEY VALUE
    pairs as of ``--set``. ``cfg`` and the number of threads are as before afterwards.
    """
    before = threads.get_num_threads()
    with preserved_cfg():
        threads.set_num_threads(num_threads)
        cfg_from_file(resolve("models/mini/mini.yml"))
        cfg_from_list(list(settings))
        if seed is not None:
            cfg.RNG_SEED = int(seed)
        try:
            return _run(os.fspath(output), iters or ITERS, images or IMAGES, progress)
        finally:
            threads.set_num_threads(before)


def _run(output: str, iters: int, images: dict[str, int], progress: bool) -> DemoResult:
    work = make_output_dir(os.path.join(output, "demo"))
    made_by = synthetic.VERSION  # pictures of an older release stay where they are
    name = "-".join(map(str, ["data", f"v{made_by}", cfg.RNG_SEED, *images.values()]))
    start = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - start:5.1f} s] {text}", flush=True)

    say(f"making {sum(images.values())} pictures of shapes in {os.path.join(work, name)}")
    data = synthetic.make_devkit(os.path.join(work, name), cfg.RNG_SEED, images, SIZE)
    np.random.seed(cfg.RNG_SEED)
    caffe_lite.set_random_seed(cfg.RNG_SEED)

    say("proposals of the training pictures by selective search")
    train_set = get_imdb("synthetic_trainval", data=data)
    train_set.config["selective_search"] = {"progress": progress}
    _ = train_set.roidb
    say(f"training for {iters} iterations; the first run on a machine compiles for half a minute before")
    trained = train_net("models/mini/solver.prototxt", train_set, work, max_iters=iters, progress=progress)
    say(f"weights in {trained.snapshots[-1]}")

    say("testing on held-out pictures")
    test_set = get_imdb("synthetic_test", data=data)
    test_set.config["selective_search"] = {"progress": progress}
    net = caffe_lite.Net(resolve("models/mini/test.prototxt"), caffe_lite.TEST, weights=trained.snapshots[-1])
    aps = test_net(net, test_set, work, progress)
    result = mean_ap(aps)
    print(f"mAP = {result!r}")

    pictures = _draw(output, work, trained, test_set)
    say("done; look at")
    for picture in pictures:
        print(f"    {picture}")
    return DemoResult(aps, result, pictures, trained.snapshots[-1])


def _draw(output: str, work: str, trained: SolverWrapper, imdb: Any) -> list[str]:
    """The loss curve, some test pictures with detections, and a sheet of them; their paths."""
    all_boxes, classes, _ = load_detections(os.path.join(work, "detections.npz"))
    kept = apply_nms(all_boxes, cfg.TEST.NMS)
    shown = range(min(12, imdb.num_images))
    drawn, paths = [], []
    folder = make_output_dir(os.path.join(work, "pictures"))
    for i in shown:
        dets = [np.zeros((0, 5), np.float32)] + [of_class[i] for of_class in kept[1:]]
        dets = [d[d[:, 4] >= CONF] for d in dets]
        entry = imdb.roidb[i]
        truth = entry["boxes"][entry["gt_classes"] > 0]
        im = read_image(imdb.image_path_at(i))
        drawn.append(draw.draw_detections(im, dets, classes, truth, shortest=280))
        large = draw.draw_detections(im, dets, classes, truth)
        draw.save_png(os.path.join(folder, f"{imdb.image_index[i]}.png"), large)
    for name, make in (
        ("demo_detections.png", lambda p: draw.save_png(p, draw.contact_sheet(drawn, columns=3))),
        ("demo_loss.png", lambda p: draw.loss_curve(p, trained.losses, "Training loss of the demo")),
    ):
        paths.append(os.path.join(output, name))
        make(paths[-1])
    return [*paths, f"{folder}{os.sep}*.png ({len(drawn)} pictures, ground truth in white)"]
