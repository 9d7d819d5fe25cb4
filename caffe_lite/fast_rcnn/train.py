"""Training: a solver over an imdb's regions of interest, with Fast R-CNN's own snapshots.

Girshick, Fast R-CNN (2015), section 2.3, and the original's training code. K counts the background.

Snapshots hold weights for testing and all that is needed to train on to the bit: see
:mod:`caffe_lite.fast_rcnn.snapshots`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe_lite import prototxt, registry, snapshot, upgrade
from caffe_lite.data.config import cfg, get_output_dir
from caffe_lite.data.roi_data_layer.layer import read_num_classes
from caffe_lite.data.roi_data_layer.roidb import add_bbox_regression_targets, filter_roidb, prepare_roidb
from caffe_lite.errors import NetError
from caffe_lite.fast_rcnn import snapshots
from caffe_lite.fast_rcnn.snapshots import BBOX_LAYER
from caffe_lite.fast_rcnn.test import make_output_dir
from caffe_lite.models import resolve
from caffe_lite.progress import progress_bar
from caffe_lite.proto import caffe_pb2
from caffe_lite.signals import SignalHandler
from caffe_lite.solver_nets import train_net_param

_DATA_MODULES = ("roi_data_layer.layer", "caffe_lite.data.roi_data_layer.layer")


class SolverWrapper:
    """A solver that trains on ``roidb`` and writes Fast R-CNN's snapshots into ``output_dir``.

    The output folder, the number of classes and the weights are checked before anything is trained.
    Attributes: ``solver``, whose own ``snapshot`` writes the same snapshots; ``losses``, a list of values
    for ``"loss"`` and for each loss blob of the net, one value an iteration; ``snapshots``, the
    .caffemodels written and not pruned.

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
        param.snapshot_prefix = os.path.join(self.output_dir, _snapshot_name(param, origin))
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
        self.solver.write_snapshot = self._write_snapshot
        self.solver.listeners.append(self._note_losses)

    def snapshot(self) -> str:
        """Write ``<prefix>[_infix]_iter_<N>.caffemodel`` for testing, and what resuming needs; its path."""
        return self.solver.snapshot()[0]

    def _write_snapshot(self, solver: Any) -> tuple[str, str]:
        model, state = snapshots.write(solver, *self._normalisation(), self.losses)
        self.snapshots = [path for path in self.snapshots if path != model and os.path.exists(path)] + [model]
        return model, state

    def _normalisation(self) -> tuple[Any, Any]:
        """Means and deviations (4K,) of what bbox_pred learns; None if the net has none."""
        normalised = cfg.TRAIN.BBOX_REG and BBOX_LAYER in self.solver.net.params
        return (self.bbox_means, self.bbox_stds) if normalised else (None, None)

    def restore(self, state_file: str | os.PathLike[str]) -> None:
        """Go on from a snapshot of the same training: net, solver, losses, random streams, place in the roidb.

        Raises:
            WeightsError: a file is damaged, or the snapshot is of other data.
        """
        self.losses.update(snapshots.restore(self.solver, state_file, *self._normalisation()))
        self.snapshots = [snapshot.model_path(state_file)]

    def restore_latest(self) -> str | None:
        """Go on from the newest whole snapshot in the output folder; its .solverstate, or None if there is none."""
        state = snapshot.latest(self.solver.snapshot_prefix)
        if state is not None:
            self.restore(state)
        return state

    def train_model(self, max_iters: int, progress: bool = True) -> str:
        """Train up to iteration ``max_iters``, snapshotting as cfg says and at the end; the last snapshot.

        solver.action_function may end it earlier, after a snapshot. One that cannot be written in the
        middle is logged, the last one is an error.

        Raises SolverError if the loss becomes NaN or infinite, naming the iteration, the first bad
        layer and the images of the minibatch. Snapshots already written stay.
        """
        solver, recent = self.solver, self.losses["loss"]
        bar = progress_bar(total=max_iters, initial=solver.iter, desc="train", unit="it", disable=not progress)
        display = max(1, solver.param.display or 20)
        with bar:
            while solver.iter < max_iters and not solver.stopped_early:
                rate = solver.lr
                solver.step(1)
                bar.update()
                if solver.iter % display == 0:
                    bar.set_postfix(loss=f"{np.mean(recent[-display:]):.3f}", lr=f"{rate:g}", refresh=False)
                if solver.iter % cfg.TRAIN.SNAPSHOT_ITERS == 0 and solver.snapshot_iter != solver.iter:
                    solver.snapshot_or_go_on()
        if solver.snapshot_iter != solver.iter:
            self.snapshot()
        return self.snapshots[-1]

    def _note_losses(self, event: str, fields: dict[str, Any]) -> None:
        if event != "iteration":
            return
        self.losses["loss"].append(float(fields["loss"]))
        for name in self._loss_blobs if len(self.losses) > 1 else ():
            self.losses[name].append(float(np.sum(self.solver.net.blobs[name].data)))


def _snapshot_name(param: Any, origin: str) -> str:
    """What names of snapshots begin with: as the solver says, and cfg's infix."""
    name = os.path.basename(snapshot.prefix_of(param, origin))
    return f"{name}_{cfg.TRAIN.SNAPSHOT_INFIX}" if cfg.TRAIN.SNAPSHOT_INFIX else name


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
    resume: str | os.PathLike[str] | None = None,
    keep: int = 0,
    signals: SignalHandler | None = None,
) -> SolverWrapper:
    """Train on ``imdb`` for ``max_iters`` iterations; the wrapper, with snapshots and losses.

    ``output_dir`` defaults to cfg's folder for this imdb. What can be refused is refused before
    proposals are computed.

    Args:
        resume: a .solverstate to go on from, or "latest": the newest whole one in the output folder, if any.
        keep: how many snapshots to keep on disk, 0 for all.
        signals: what signals mean while the net trains; by default what they always do.
    """
    output_dir = make_output_dir(output_dir or get_output_dir(imdb))
    param, origin = read_solver(solver_prototxt)
    check_num_classes(train_net_param(param, origin)[0], imdb.num_classes, param.train_net or origin)
    if resume is not None and resume != "latest":
        snapshot.check(resume)
    roidb = get_training_roidb(imdb)
    wrapper = SolverWrapper(solver_prototxt, roidb, output_dir, pretrained_model, imdb.num_classes)
    wrapper.solver.keep_snapshots = keep
    if resume == "latest":
        state = wrapper.restore_latest()
        print(
            f"going on from {state}" if state else f"no snapshot in {output_dir} yet: starting at iteration 0",
            flush=True,
        )
    elif resume is not None:
        wrapper.restore(resume)
    if signals is not None:
        wrapper.solver.action_function = signals.requested
    with signals or contextlib.nullcontext():
        wrapper.train_model(max_iters, progress)
    return wrapper
