"""Fine-tuning of R-CNN's net: it learns to classify warped windows.

Girshick et al. (2014), section 2.3: windows with IoU >= 0.5 are of the object's class, all others background; a
batch has 32 of the former and 96 of the latter. The WindowData layer of the train net says so (fg_threshold,
bg_threshold, fg_fraction, batch_size) and reads them from a window file that is written here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from caffe_lite import registry
from caffe_lite.atomic import atomic_write
from caffe_lite.data.roi_data_layer.roidb import prepare_roidb
from caffe_lite.errors import NetError
from caffe_lite.fast_rcnn.test import make_output_dir
from caffe_lite.fast_rcnn.train import check_num_classes, read_solver
from caffe_lite.progress import progress_bar
from caffe_lite.solver_nets import train_net_param


def finetune(
    solver_prototxt: str | os.PathLike[str],
    imdb: Any,
    output_dir: str | os.PathLike[str],
    iters: int,
    pretrained: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> str:
    """Train for ``iters`` iterations on the windows of ``imdb``; the path of the .caffemodel.

    ``pretrained`` are weights to start from, copied by layer name. Also writes windows.txt into ``output_dir``.

    Raises:
        NetError: the train net has not just one WindowData layer, or another number of classes than the imdb.
    """
    output_dir = make_output_dir(output_dir)
    param, origin = read_solver(solver_prototxt)
    net_param = train_net_param(param, origin)[0]
    check_num_classes(net_param, imdb.num_classes, param.train_net or origin)
    prepare_roidb(imdb)
    source = os.path.join(output_dir, "windows.txt")
    write_window_file(source, imdb)
    window_layer(net_param, origin).window_data_param.source = source
    for field in ("train_net", "net", "net_param"):
        param.ClearField(field)
    param.train_net_param.CopyFrom(net_param)
    return run_solver(param, origin, output_dir, iters, pretrained, progress)


def run_solver(
    param: Any,
    origin: str,
    output_dir: str,
    iters: int,
    pretrained: str | os.PathLike[str] | None,
    progress: bool,
    feed: Callable[[Any], None] | None = None,
) -> str:
    """Train the net of a SolverParameter, calling ``feed(net)`` before each iteration; the weights' path."""
    solver = registry.solvers.get(param.type, origin).from_param(param, origin)
    if pretrained is not None:
        solver.net.copy_from(pretrained)
    if feed is not None:
        solver.add_callback(lambda: feed(solver.net), None)
    losses: list[float] = []
    with progress_bar(total=iters, desc="fine-tune", unit="it", disable=not progress) as bar:
        while solver.iter < iters:
            solver.step(1)
            losses.append(solver.smoothed_loss)
            bar.update()
            if solver.iter % 50 == 0:
                bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
    for layer in solver.net.layers:
        if hasattr(layer, "close"):
            layer.close()  # it reads no further ahead
    path = os.path.join(output_dir, f"{os.path.basename(solver.snapshot_prefix)}_iter_{iters}.caffemodel")
    solver.net.save(path)
    return path


def window_layer(net_param: Any, origin: str) -> Any:
    """The LayerParameter of the net's one WindowData layer."""
    found = [layer for layer in net_param.layer if layer.type == "WindowData"]
    if len(found) != 1:
        raise NetError(
            f"{origin}: the train net has {len(found)} WindowData layers, expected one, which says how "
            "windows are warped"
        )
    return found[0]


def write_window_file(path: str, imdb: Any) -> None:
    """Write the prepared roidb of ``imdb`` as a window file (:mod:`caffe_lite.data.window_file`).

    Mirrored entries are left out: the layer mirrors windows itself. Overlaps are exact, so that a threshold
    separates the same windows as in the roidb.
    """
    entries = [(i, entry) for i, entry in enumerate(imdb.roidb) if not entry["flipped"]]
    with atomic_write(path, "w") as stream:
        for number, (i, entry) in enumerate(entries):
            width, height = imdb.image_size_at(i)
            stream.write(
                f"# {number}\n{os.path.abspath(entry['image'])}\n3\n{height}\n{width}\n{len(entry['boxes'])}\n"
            )
            for label, overlap, box in zip(
                entry["max_classes"].tolist(), entry["max_overlaps"].tolist(), entry["boxes"].tolist(), strict=True
            ):
                stream.write(f"{label} {overlap!r} {box[0]} {box[1]} {box[2]} {box[3]}\n")
