"""Net: builds the layers of a prototxt and runs them forward and backward.

The members and methods are pycaffe's: ``net.blobs['fc7'].data`` and ``net.params['fc7'][0].diff``
are NumPy arrays that alias the net on the CPU (on a GPU see :mod:`caffe_lite.blob`).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from caffe_lite import (
    caffemodel,
    debug_info,
    device_memory,
    graph,
    hdf5_weights,
    prototxt,
    registry,
    threads,
    transfer,
    upgrade,
    weights,
)
from caffe_lite import device as devices
from caffe_lite.blob import Blob, BlobVec, HostBlob
from caffe_lite.errors import CaffeError, NetError, ShapeError
from caffe_lite.graph import LayerNode, LayerSpec
from caffe_lite.layer import Layer
from caffe_lite.memory_plan import MemoryPlan, SharedBlob
from caffe_lite.proto import caffe_pb2
from caffe_lite.pycaffe_net import PycaffeNet


class Net(PycaffeNet):
    """``Net(file, phase, level=0, stages=None, weights=None)`` or pycaffe's older ``Net(file, weights, phase)``.

    ``phase`` is ``TRAIN`` (0) or ``TEST`` (1). ``dtype`` "float64" builds the same net in double, for
    gradient checks. ``device`` defaults to the one that set_mode_cpu or set_mode_gpu chose.
    ``optimize_memory`` and ``keep``: see :meth:`optimize_memory`.

    Raises:
        PrototxtError: the file is missing or not a net.
        NetError: the net cannot be built.
        WeightsError: the weights do not fit.
    """

    def __init__(
        self,
        network_file: str | os.PathLike[str],
        phase: int | str | os.PathLike[str],
        level: int = 0,
        stages: Sequence[str] | int | None = None,
        weights: str | os.PathLike[str] | None = None,
        *,
        dtype: Any = "float32",
        device: devices.Device | None = None,
        optimize_memory: bool = False,
        keep: Sequence[str] = (),
    ) -> None:
        if not hasattr(phase, "__index__"):  # Net(file, weights, phase)
            weights, phase, level = phase, level, 0
        param, positions = prototxt.read_net(network_file)
        param.state.phase = phase
        param.state.level = level
        param.state.stage.extend(stages or ())
        self._build(param, positions, dtype, device)
        if weights is not None:
            self.copy_from(weights)
        if optimize_memory:
            self.optimize_memory(keep)

    @classmethod
    def from_param(
        cls, param: Any, positions: Any = None, *, dtype: Any = "float32", device: devices.Device | None = None
    ) -> Net:
        """A net from a NetParameter; its ``state`` says the phase (TEST if unset, as in Caffe)."""
        net = cls.__new__(cls)
        copy = caffe_pb2.NetParameter()
        copy.CopyFrom(param)
        net._build(copy, positions, dtype, device)
        return net

    # ---- building

    def _build(self, param: Any, positions: Any, dtype: Any, device: devices.Device | None) -> None:
        PycaffeNet.__init__(self)
        self.device = device or devices.current()
        self.dtype = np.dtype(dtype)
        specs = self._specs(param, positions)
        self.name: str = param.name
        self.phase: int = param.state.phase
        self.debug_info: bool = param.debug_info  # log mean absolute values as layers run
        self.nodes: list[LayerNode] = []
        self._blobs_by_name: OrderedDict[str, Blob] = OrderedDict()
        self._param_owners: dict[str, tuple[Blob, Any, str]] = {}
        self.learnable_params: list[Blob] = []
        self.learnable_specs: list[Any] = []  # the ParamSpec (lr_mult, decay_mult) of each
        self._consumed: set[str] = set()
        self.inputs: list[str] = []
        self._needs: dict[str, bool] = {}  # blob name -> does its gradient matter

        for spec in specs:
            self._add_layer(spec)
        graph.prune_backward(self.nodes)
        if param.force_backward:
            graph.mark_all_backward(self.nodes, lambda node, j: node.layer.allow_force_backward(j))
        self.outputs = sorted(set(self._blobs_by_name) - self._consumed)
        self._fused = self._find_fused_relus()
        self._memory_plan: MemoryPlan | None = None
        self.has_memory_for: set[str] = set()  # "forward", "backward": kept by device_memory
        self._expose()

    def _specs(self, param: Any, positions: Any) -> list[LayerSpec]:
        positions = upgrade.upgrade_net(param, positions)
        where = [positions.at(("layer", i)) if positions else "" for i in range(len(param.layer))]
        specs = [LayerSpec(p, w) for p, w in zip(param.layer, where, strict=True)]
        return graph.insert_splits(graph.filter_layers(specs, param.state))

    def _add_layer(self, spec: LayerSpec) -> None:
        param = spec.param
        if not param.HasField("phase"):
            param.phase = self.phase
        if param.propagate_down and len(param.propagate_down) != len(param.bottom):
            given = len(param.propagate_down)
            raise NetError(spec.explain(f"{given} propagate_down for {len(param.bottom)} bottom(s): give one for each"))
        layer_class = registry.layers.get(param.type, f"{spec.where + ': ' if spec.where else ''}layer {param.name!r}")
        layer = layer_class.create(param, param.phase, self.device, self.dtype, spec.where)
        if any(n.layer.name == layer.name for n in self.nodes):
            raise NetError(spec.explain("two layers have this name: parameters are found by name, so give one another"))
        bottoms = [self._blobs_by_name[name] for name in param.bottom]
        node = LayerNode(layer, list(param.bottom), list(param.top), bottoms, [], [])
        node.propagate_down = [
            bool(param.propagate_down[j]) if param.propagate_down else self._needs[name]
            for j, name in enumerate(node.bottom_names)
        ]
        self._consumed.update(node.bottom_names)
        self._add_tops(node, spec)
        if layer.is_input:
            self.inputs.extend(node.top_names)
        layer.preloaded = [weights.blob_to_array(proto) for proto in param.blobs]
        del param.blobs[:]
        try:
            layer.set_up(self._seen_by(layer, node.bottoms), self._seen_by(layer, node.tops))
        except MemoryError as error:
            raise device_memory.exhausted(layer, error) from error
        layer.preloaded = []
        self._add_params(layer, spec)
        node.needs_backward = any(node.propagate_down) or any(layer.param_propagate_down)
        self._needs.update((name, node.needs_backward) for name in node.top_names)
        self.nodes.append(node)

    def _add_tops(self, node: LayerNode, spec: LayerSpec) -> None:
        for j, name in enumerate(node.top_names):
            if j < len(node.bottom_names) and node.bottom_names[j] == name:
                node.tops.append(node.bottoms[j])
                self._consumed.discard(name)
                continue
            if name in self._blobs_by_name:
                raise NetError(spec.explain(f"top {name!r} is already made by another layer"))
            self._blobs_by_name[name] = blob = Blob((), self.dtype, self.device)
            node.tops.append(blob)
        if node.layer.auto_tops:
            while len(node.tops) < (node.layer.exact_tops or node.layer.min_tops or 0):
                node.top_names.append("(automatic)")
                node.tops.append(Blob((), self.dtype, self.device))

    def _add_params(self, layer: Layer, spec: LayerSpec) -> None:
        given = list(spec.param.param)
        if len(given) > len(layer.blobs):
            raise NetError(spec.explain(f"{len(given)} param {{}} entries for {len(layer.blobs)} parameter blob(s)"))
        given += [caffe_pb2.ParamSpec() for _ in range(len(layer.blobs) - len(given))]
        layer.param_propagate_down = [p.lr_mult != 0 for p in given]
        blobs = [blob.on_device for blob in layer.blobs]
        for index, (blob, param_spec) in enumerate(zip(blobs, given, strict=True)):
            owner = self._param_owners.get(param_spec.name) if param_spec.name else None
            if owner is None:
                self.learnable_params.append(blob)
                self.learnable_specs.append(param_spec)
                if param_spec.name:
                    self._param_owners[param_spec.name] = (blob, param_spec, layer.name)
            else:
                self._share_param(blob, param_spec, owner, spec, index)

    @staticmethod
    def _share_param(blob: Blob, mine: Any, owner: tuple[Blob, Any, str], spec: LayerSpec, index: int) -> None:
        shared, theirs, owner_name = owner
        permissive = mine.share_mode == caffe_pb2.ParamSpec.PERMISSIVE
        fits = blob.count == shared.count if permissive else blob.shape == shared.shape
        if not fits:
            raise ShapeError(
                spec.explain(
                    f"parameter {index} shares {mine.name!r} with layer {owner_name!r}, but has shape {blob.shape} and "
                    f"that one {shared.shape}"
                    + ("" if permissive else " (share_mode: PERMISSIVE compares counts only)")
                )
            )
        for multiplier in ("lr_mult", "decay_mult"):
            if not mine.HasField(multiplier):
                continue
            if not theirs.HasField(multiplier):
                setattr(theirs, multiplier, getattr(mine, multiplier))
            elif getattr(mine, multiplier) != getattr(theirs, multiplier):
                raise NetError(
                    spec.explain(
                        f"shared parameter {mine.name!r} has {multiplier} {getattr(mine, multiplier)} here and "
                        f"{getattr(theirs, multiplier)} in layer {owner_name!r}: they must agree"
                    )
                )
        blob.share_data(shared)
        blob.share_diff(shared)

    def _find_fused_relus(self) -> dict[int, int]:
        """Index of a layer -> index of the in-place ReLU right after it that it can do itself."""
        return {
            i: i + 1
            for i, (node, after) in enumerate(zip(self.nodes, self.nodes[1:]))  # noqa: B905 - pairs
            if node.layer.can_fuse_relu
            and after.layer.is_relu
            and len(node.tops) == 1
            and after.bottoms[0] is node.tops[0] is after.tops[0]
        }

    def _seen_by(self, layer: Layer, blobs: list[Blob]) -> list[Any]:
        return [HostBlob(b) for b in blobs] if layer.on_host and self.device.is_gpu else blobs

    def _expose(self) -> None:
        """The collections that pycaffe users see."""

        def host(blob: Blob) -> Any:
            return HostBlob(blob) if self.device.is_gpu else blob

        self.layers = [node.layer for node in self.nodes]
        self._layer_names = [layer.name for layer in self.layers]
        self.layer_dict = OrderedDict(zip(self._layer_names, self.layers, strict=True))
        tops = [top for n in self.nodes for top in zip(n.top_names, n.tops, strict=True)]
        self.blobs = OrderedDict((name, host(blob)) for name, blob in tops)
        self.params: OrderedDict[str, Any] = OrderedDict()
        for layer in self.layers:
            if layer.blobs:
                self.params[layer.name] = BlobVec(self.dtype, self.device)
                self.params[layer.name].extend(host(blob.on_device) for blob in layer.blobs)
        self.top_names = OrderedDict((n.layer.name, list(n.top_names)) for n in self.nodes)
        self.bottom_names = OrderedDict((n.layer.name, list(n.bottom_names)) for n in self.nodes)
        loss_weights: dict[str, float] = {}
        for node in self.nodes:
            loss_weights.update(zip(node.top_names, node.layer.loss_weights, strict=True))
        self.blob_loss_weights = OrderedDict((name, loss_weights[name]) for name in self.blobs)

    def optimize_memory(self, keep: Iterable[str] = ()) -> None:
        """Let blobs that are never needed at the same time share memory (see :mod:`caffe_lite.memory_plan`).

        Inputs, outputs and the blobs that ``keep`` names can be read as before; to read another one, or
        to run backward, raises NetError. Results do not change.

        Raises:
            NetError: the net is no TEST net, or it does so already.
            UnknownNameError: ``keep`` names no blob of this net.
        """
        if self.phase != caffe_pb2.TEST:
            raise NetError(f"net {self.name!r} is for training, which reads all blobs: optimize_memory needs TEST")
        if self._memory_plan is not None:
            raise NetError(f"net {self.name!r} shares the memory of its blobs already")
        keep = list(keep)
        self.check_blob_names(keep)
        self._memory_plan = MemoryPlan(self, keep)
        for name in self._memory_plan.shared:
            self.blobs[name] = SharedBlob(self.blobs[name], name)

    # ---- running

    def _forward(self, start: int, end: int) -> float:
        """Run layers ``start`` to ``end`` inclusive; the weighted sum of their losses."""
        self.run_forward(start, end)
        return self.loss(start, end)

    def run_forward(self, start: int = 0, end: int | None = None) -> None:
        """Reshape and run layers ``start`` to ``end`` inclusive, without waiting for the device."""
        end = len(self.nodes) - 1 if end is None else end
        threads.apply()
        self.device.make_current()
        if self._memory_plan is not None:
            self._memory_plan.before_forward(start, end)
        device_memory.before_run(self, "forward")
        before, after = self.callbacks["before_forward"], self.callbacks["after_forward"]
        watched = self.debug_info or before or after
        done_by_fusion = -1
        for i in range(start, end + 1):
            for callback in before:
                callback(i)
            node = self.nodes[i]
            layer = node.layer
            relu = None if watched else self._fused.get(i)  # who watches sees the blob before the ReLU
            layer.fused_relu = relu is not None and relu <= end
            bottoms, tops = self._seen_by(layer, node.bottoms), self._seen_by(layer, node.tops)
            try:
                layer.reshape(bottoms, tops)
                if i != done_by_fusion:
                    layer.forward(bottoms, tops)
            except CaffeError as error:
                raise layer.located(error) from error
            except MemoryError as error:
                raise device_memory.exhausted(layer, error) from error
            if self.debug_info:
                debug_info.log_forward(self, i)
            if layer.fused_relu:
                done_by_fusion = i + 1
            for callback in after:
                callback(i)

    def loss(self, start: int = 0, end: int | None = None) -> float:
        """Weighted sum of the losses that layers ``start`` to ``end`` inclusive last computed."""
        end = len(self.nodes) - 1 if end is None else end
        total = 0.0
        for node in self.nodes[start : end + 1]:
            for weight, top in zip(node.layer.loss_weights, node.tops, strict=True):
                if weight:
                    total += float((top.data * top.diff).sum())
        return total

    def _backward(self, start: int, end: int) -> None:
        """Run layers ``start`` down to ``end`` inclusive, backward."""
        if self._memory_plan is not None:
            raise NetError(f"net {self.name!r} shares memory between blobs (optimize_memory): it cannot run backward")
        threads.apply()
        self.device.make_current()
        device_memory.before_run(self, "backward")
        for i in range(start, end - 1, -1):
            for callback in self.callbacks["before_backward"]:
                callback(i)
            if self.nodes[i].needs_backward:
                self._backward_layer(i)
            for callback in self.callbacks["after_backward"]:
                callback(i)

    def _backward_layer(self, i: int) -> None:
        node = self.nodes[i]
        layer = node.layer
        try:
            layer.backward(self._seen_by(layer, node.tops), node.propagate_down, self._seen_by(layer, node.bottoms))
        except CaffeError as error:
            raise layer.located(error) from error
        except MemoryError as error:
            raise device_memory.exhausted(layer, error) from error
        if self.debug_info:
            debug_info.log_backward(self, i)

    def layer_blobs(self) -> Iterable[tuple[Layer, list[tuple[str, Blob]], list[tuple[str, Blob]]]]:
        """Each layer with its (name, blob) bottoms and tops, in the order in which they run."""
        for node in self.nodes:
            bottoms = list(zip(node.bottom_names, node.bottoms, strict=True))
            yield node.layer, bottoms, list(zip(node.top_names, node.tops, strict=True))

    def reshape(self) -> None:
        """Let every layer adapt its tops to the shapes of its bottoms."""
        for node in self.nodes:
            layer = node.layer
            try:
                layer.reshape(self._seen_by(layer, node.bottoms), self._seen_by(layer, node.tops))
            except CaffeError as error:
                raise layer.located(error) from error

    def clear_param_diffs(self) -> None:
        """Set the diffs of all learnable parameters to zero."""
        for blob in self.learnable_params:
            if blob.diff_in_use:
                blob.diff[...] = 0

    # ---- parameters

    def copy_from(self, weights_file: str | os.PathLike[str], strict: bool = False) -> transfer.CopyReport:
        """Copy parameters by layer name from a .caffemodel, or one in HDF5; see :func:`transfer.copy_trained_layers`.

        ``strict`` refuses a file that holds more or less than the net.
        """
        path = os.fspath(weights_file)
        if hdf5_weights.is_hdf5(path):
            return hdf5_weights.copy_into(self, path, strict)
        with caffemodel.open_net(path) as source:
            return transfer.copy_trained_layers(self, source, path, strict)

    def share_with(self, other: Net) -> None:
        """Use the parameters of ``other`` wherever layer names agree."""
        transfer.share_trained_layers(self, other)

    def save(self, path: str | os.PathLike[str], write_diff: bool = False) -> None:
        """Write a .caffemodel (layers and parameters), whole or not at all."""
        transfer.write_net(self, os.fspath(path), write_diff)

    def save_hdf5(self, path: str | os.PathLike[str], write_diff: bool = False) -> None:
        """Write a .caffemodel.h5 (see :mod:`caffe_lite.hdf5_weights`), whole or not at all."""
        weights.write_bytes(path, hdf5_weights.net_bytes(self, write_diff))

    def load_hdf5(self, path: str | os.PathLike[str]) -> transfer.CopyReport:
        """Copy parameters by layer name from a .caffemodel.h5."""
        return hdf5_weights.copy_into(self, path)

    def to_proto(self, write_diff: bool = False) -> Any:
        """The net as a NetParameter with its parameters."""
        return transfer.net_to_proto(self, write_diff)
