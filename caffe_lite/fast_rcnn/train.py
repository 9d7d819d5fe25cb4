"""Training: a solver over an imdb's regions of interest, with Fast R-CNN's own snapshots.

Girshick, Fast R-CNN (2015), section 2.3, and the original's training code. K counts the background.

The net learns box targets that were normalised to zero mean and unit deviation for each class and
coordinate. A snapshot is meant for testing, so the normalisation is folded into the layer
``bbox_pred`` while it is written, W * std and b * std + mean, and taken out again afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe_lite import prototxt, registry, upgrade
from caffe_lite.data.config import cfg, get_output_dir
from caffe_lite.data.roi_data_layer.layer import read_num_classes
from caffe_lite.data.roi_data_layer.roidb import add_bbox_regression_targets, filter_roidb, prepare_roidb
from caffe_lite.errors import NetError, SolverError
from caffe_lite.fast_rcnn.test import make_output_dir
from caffe_lite.models import resolve
from caffe_lite.progress import progress_bar
from caffe_lite.proto import caffe_pb2
from caffe_lite.solver_nets import train_net_param

BBOX_LAYER = "bbox_pred"
_DATA_MODULES = ("roi_data_layer.layer", "caffe_lite.data.roi_data_layer.layer")


class SolverWrapper:
    """A solver that trains on ``roidb`` and writes Fast R-CNN's snapshots into ``output_dir``.

    The output folder, the number of classes and the weights are checked before anything is trained.
    Attributes: ``solver``; ``losses``, a list of values for ``"loss"`` and for each loss blob of the
    net, one value an iteration; ``snapshots``, the paths written.

    Raises:
        DataError: the output folder cannot be written, or the roidb is unusable.
        NetError: the classes of data layer, cls_score, bbox_pred and roidb disagree.
        WeightsError: the weights do not fit.
    """

    def __init__(
        self,
        solver_prototxt: str | os.PathLike[str],
        roidb: Sequence[Any],
        output_dir: str | os.PathLike[str],
        pretrained_model: str | os.PathLike[str] | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.output_dir = make_output_dir(output_dir)
        param, origin = read_solver(solver_prototxt)
        if num_classes is None and roidb:
            num_classes = int(roidb[0]["gt_overlaps"].shape[1])
        net_param, _ = train_net_param(param, origin)
        check_num_classes(net_param, num_classes, param.train_net or origin)
        self.bbox_means, self.bbox_stds = add_bbox_regression_targets(roidb)
        self.solver = registry.solvers.get(param.type, origin).from_param(param, origin)
        if pretrained_model is not None:
            self.copy_report = self.solver.net.copy_from(pretrained_model)
        self._data_layer = _data_layer(self.solver.net, origin)
        self._data_layer.set_roidb(roidb)
        self.losses: dict[str, list[float]] = {"loss": []}
        self._loss_blobs = [name for name, weight in self.solver.net.blob_loss_weights.items() if weight]
        if len(self._loss_blobs) > 1:
            self.losses.update((name, []) for name in self._loss_blobs)
        self.snapshots: list[str] = []

    def snapshot(self) -> str:
        """Write ``<prefix>[_infix]_iter_<N>.caffemodel`` for testing; its path. The net is as before."""
        solver, net = self.solver, self.solver.net
        infix = f"_{cfg.TRAIN.SNAPSHOT_INFIX}" if cfg.TRAIN.SNAPSHOT_INFIX else ""
        prefix = os.path.basename(solver.snapshot_prefix)
        path = os.path.join(self.output_dir, f"{prefix}{infix}_iter_{solver.iter}.caffemodel")
        if not cfg.TRAIN.BBOX_REG or BBOX_LAYER not in net.params:
            net.save(path)
        else:
            blobs = net.params[BBOX_LAYER]
            saved = [blob.data.copy() for blob in blobs]
            try:
                unnormalise(blobs, self.bbox_means, self.bbox_stds)
                net.save(path)
            finally:
                for blob, values in zip(blobs, saved, strict=True):
                    blob.data[...] = values
        self.snapshots.append(path)
        return path

    def train_model(self, max_iters: int, progress: bool = True) -> str:
        """Train up to iteration ``max_iters``, snapshotting as cfg says and at the end; the last snapshot.

        Raises SolverError if the loss becomes NaN or infinite, naming the iteration, the first bad
        layer and the images of the minibatch. Snapshots already written stay.
        """
        bar = progress_bar(total=max_iters, initial=self.solver.iter, desc="train", unit="it", disable=not progress)
        display = max(1, self.solver.param.display or 20)
        recent = self.losses["loss"]
        with bar:
            while self.solver.iter < max_iters:
                rate = self.solver.lr
                self.solver.step(1)
                self._note_losses()
                bar.update()
                if self.solver.iter % display == 0:
                    bar.set_postfix(loss=f"{np.mean(recent[-display:]):.3f}", lr=f"{rate:g}", refresh=False)
                if self.solver.iter % cfg.TRAIN.SNAPSHOT_ITERS == 0:
                    self.snapshot()
        if not self.snapshots or self.solver.iter % cfg.TRAIN.SNAPSHOT_ITERS:
            self.snapshot()
        return self.snapshots[-1]

    def _note_losses(self) -> None:
        self.losses["loss"].append(float(self.solver.smoothed_loss))  # of one step: nothing is smoothed
        for name in self._loss_blobs if len(self.losses) > 1 else ():
            self.losses[name].append(float(np.sum(self.solver.net.blobs[name].data)))


def unnormalise(blobs: Sequence[Any], means: np.ndarray, stds: np.ndarray) -> None:
    """Fold target means and deviations (4K,) into the weights (4K, D) and biases (4K,) of a layer."""
    weights = blobs[0].data
    weights[...] = weights * stds.reshape((-1,) + (1,) * (weights.ndim - 1))
    if len(blobs) > 1:
        blobs[1].data[...] = blobs[1].data * stds + means


def read_solver(path: str | os.PathLike[str]) -> tuple[Any, str]:
    """The SolverParameter of a solver.prototxt and the name of the file.

    The path, and the net's path in it, follow :func:`caffe_lite.models.resolve`: against the working
    directory as in Caffe, and ``models/...`` also among the shipped files.
    """
    origin = os.fspath(resolve(path))
    param, _ = prototxt.read_solver(origin)
    param = upgrade.upgrade_solver(param)
    for field in ("train_net", "net"):
        if param.HasField(field):
            setattr(param, field, os.fspath(resolve(getattr(param, field))))
    if param.snapshot:
        raise SolverError(
            f"{origin}: snapshot: {param.snapshot} would also write weights whose boxes are normalised; "
            "set snapshot: 0 and use TRAIN.SNAPSHOT_ITERS"
        )
    return param, origin


def check_num_classes(net_param: Any, imdb_classes: int | None, origin: str) -> None:
    """Refuse a net whose parts and imdb disagree on the number of classes; nothing is built for it.

    Compared are the imdb, num_classes of the data layer, the outputs of cls_score and a quarter of
    the outputs of bbox_pred; what a net does not have is left out.
    """
    net = caffe_pb2.NetParameter()
    net.CopyFrom(net_param)
    upgrade.upgrade_net(net, None)  # layers in the form of an older Caffe count too
    scores = _num_output(net, "cls_score")
    boxes = _num_output(net, BBOX_LAYER)
    sources = [p.python_param for p in net.layer if p.type == "Python" and p.python_param.layer == "RoIDataLayer"]
    ours = [p.param_str for p in sources if p.module in _DATA_MODULES]
    layer_classes = read_num_classes(ours[0]) if ours else None
    given = [v for v in (imdb_classes, layer_classes, scores, None if boxes is None else boxes / 4) if v is not None]
    if len(set(given)) <= 1:
        return

    def text(value: Any) -> str:
        return "absent" if value is None else str(value)

    expected = imdb_classes if imdb_classes is not None else layer_classes
    raise NetError(
        f"{origin}: the numbers of classes disagree (background included): imdb {text(imdb_classes)}, num_classes of "
        f"the data layer {text(layer_classes)}, num_output of cls_score {text(scores)}, num_output of bbox_pred "
        f"{text(boxes)} (4 for each class); for this imdb write num_classes {expected}, cls_score {expected} and "
        f"bbox_pred {4 * expected if expected else '4 for each'}"
    )


def _num_output(net_param: Any, layer_name: str) -> int | None:
    for param in net_param.layer:
        if param.name == layer_name:
            holder = param.convolution_param if param.type == "Convolution" else param.inner_product_param
            return int(holder.num_output) if holder.HasField("num_output") else None
    return None


def _data_layer(net: Any, origin: str) -> Any:
    found = [layer for layer in net.layers if hasattr(layer, "set_roidb")]
    if len(found) != 1:
        raise NetError(
            f"{origin}: the train net has {len(found)} layers with set_roidb, expected one: "
            'type: "Python" python_param { module: "roi_data_layer.layer" layer: "RoIDataLayer" ... }'
        )
    return found[0]


def get_training_roidb(imdb: Any) -> Any:
    """The roidb of ``imdb`` ready for training: mirrored images appended if cfg says so, fields derived."""
    if cfg.TRAIN.USE_FLIPPED:
        imdb.append_flipped_images()
    prepare_roidb(imdb)
    kept = filter_roidb(imdb.roidb)
    if len(kept) < len(imdb.roidb):
        print(f"{imdb.name}: {len(imdb.roidb) - len(kept)} of {len(imdb.roidb)} entries have no region to train on")
    return kept


def train_net(
    solver_prototxt: str | os.PathLike[str],
    imdb: Any,
    output_dir: str | os.PathLike[str] | None = None,
    pretrained_model: str | os.PathLike[str] | None = None,
    max_iters: int = 40000,
    progress: bool = True,
) -> SolverWrapper:
    """Train on ``imdb`` for ``max_iters`` iterations; the wrapper, with snapshots and losses.

    ``output_dir`` defaults to cfg's folder for this imdb. What can be refused is refused before
    proposals are computed.
    """
    output_dir = make_output_dir(output_dir or get_output_dir(imdb))
    param, origin = read_solver(solver_prototxt)
    check_num_classes(train_net_param(param, origin)[0], imdb.num_classes, param.train_net or origin)
    roidb = get_training_roidb(imdb)
    wrapper = SolverWrapper(solver_prototxt, roidb, output_dir, pretrained_model, imdb.num_classes)
    wrapper.train_model(max_iters, progress)
    return wrapper
