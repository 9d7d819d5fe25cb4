"""Layer: the contract of every layer, pycaffe's Python-layer interface for all of them.

``setup`` runs once, ``reshape`` sizes the tops (again before every forward), ``forward`` fills
``top[i].data``, ``backward`` writes ``bottom[i].diff`` where ``propagate_down[i]`` and adds to the
diffs of the parameters where ``param_propagate_down``. A layer writes ``forward`` and ``backward``
once with ``self.xp`` (numpy or cupy), or ``forward_cpu`` and ``forward_gpu`` where a loop must be
compiled. ``Array``, ``Blobs`` and ``Flags`` are for the signatures of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from caffe_lite import filler
from caffe_lite.blob import Blob, BlobVec
from caffe_lite.device import CPU, Device
from caffe_lite.errors import CaffeError, NetError, ShapeError

Array: TypeAlias = Any  # of the layer's device: numpy.ndarray, or cupy.ndarray, which has the same interface
Blobs: TypeAlias = Sequence[Blob]
Flags: TypeAlias = Sequence[bool]  # propagate_down: one for each bottom


class Layer:
    """Base class; see the module for what a subclass writes.

    Attributes set before ``setup``: ``param`` (LayerParameter), ``name``, ``type``, ``phase``
    (0 TRAIN, 1 TEST), ``device``, ``xp``, ``dtype``, ``blobs`` (the parameters), ``where``
    (``file:line:column``); ``param_propagate_down`` (a bool for each parameter) before ``backward``.
    """

    exact_bottoms: int | None = None
    min_bottoms: int | None = None
    max_bottoms: int | None = None
    exact_tops: int | None = None
    min_tops: int | None = None
    max_tops: int | None = None
    equal_bottoms_tops = False  # as many tops as bottoms
    auto_tops = False  # missing tops are made and named "(automatic)"
    in_place = False  # may top[i] be bottom[i]
    learns_nothing = False  # its parameters are statistics: kept in files, without a gradient
    is_input = False  # its tops are the inputs of the net
    on_host = False  # sees NumPy arrays even on a GPU, as user-written Python layers do
    can_fuse_relu = False  # honours fused_relu, set by the net when an in-place ReLU comes next
    is_relu = False  # is max(x, 0), which such a layer can do as it writes its top
    fused_relu = False

    def __init__(
        self, param: Any, phase: int = 0, device: Device = CPU, dtype: Any = "float32", where: str = ""
    ) -> None:
        self.param = param
        self.layer_param = param  # the net's own: user-written layers use self.param as they like
        self.name: str = param.name
        self.type: str = param.type
        self.phase = phase
        self.device = device
        self.xp = device.xp
        self.dtype = np.dtype(dtype)
        self.where = where
        self.blobs = BlobVec(self.dtype, device)
        self.preloaded: list[np.ndarray] = []  # parameter values that the prototxt carries
        self.param_propagate_down: list[bool] = []
        self.loss_weights: list[float] = []

    @classmethod
    def create(cls, param: Any, phase: int, device: Device, dtype: Any, where: str) -> Layer:
        """An instance for ``param``; the Python layer type makes one of the user's class instead."""
        return cls(param, phase, device, dtype, where)

    # ---- what a layer type writes

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """Check the parameters, make the parameter blobs."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Give each top its shape."""
        raise NotImplementedError(f"layer type {self.type} does not define reshape")

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Fill the tops."""
        self._half("forward")(bottom, top)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        """Fill the bottoms' diffs, add to the parameters' diffs."""
        self._half("backward")(top, propagate_down, bottom)

    def forget(self) -> None:
        """Forget what one forward carries over to the next, if anything (a recurrent state)."""

    def state(self) -> Any:
        """What the next forward depends on besides bottoms, parameters and the process's random streams.

        Numbers, texts, lists, dictionaries and NumPy arrays; None if there is nothing. Snapshots keep it.
        """
        return None

    def set_state(self, state: Any) -> None:
        """Go back to a ``state()``; DataError if it is of other data. Before the first forward, or between two."""

    def multiply_adds(self, bottom: Blobs, top: Blobs) -> int:
        """Multiplications of one forward's matrix products, by their definition; 0 where there is none."""
        return 0

    def allow_force_backward(self, bottom_index: int) -> bool:
        """May force_backward ask for the gradient of this bottom?"""
        return True

    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        """Values that this bottom may hold, for tools that have no data; None if any numbers will do."""
        return None

    def gradient_caveat(self, bottom: Blobs) -> str:
        """Why, for these bottoms, Caffe's rule for backward is no derivative of forward; "" where it is one."""
        return ""

    # ---- what it may use

    def check(self, ok: Any, message: str) -> None:
        """Raise NetError ``"<where>: layer '<name>' (<type>): <message>"`` unless ``ok``."""
        if not ok:
            raise NetError(self.explain(message))

    def check_shape(self, ok: Any, message: str) -> None:
        """The same as ``check``, as a ShapeError."""
        if not ok:
            raise ShapeError(self.explain(message))

    def explain(self, message: str) -> str:
        """``message`` preceded by where this layer stands."""
        return f"{self.where + ': ' if self.where else ''}layer {self.name!r} ({self.type}): {message}"

    def canonical_axis(self, blob: Blob, axis: int) -> int:
        """``axis`` of ``blob`` in ``[0, n)``, with this layer named in the error."""
        n = len(blob.shape)
        self.check_shape(-n <= axis < n, f"axis {axis} is outside [{-n}, {n}) of a bottom of shape {blob.shape}")
        return axis % n

    def add_param(self, shape: tuple[int, ...], filler_param: Any = None) -> None:
        """Append a parameter blob of ``shape``: preloaded, or filled (zero without a filler)."""
        index = len(self.blobs)
        self.blobs.add_blob(shape)
        if index < len(self.preloaded):
            values = self.preloaded[index]
            self.check_shape(
                values.shape == tuple(shape), f"parameter {index} in the prototxt has shape {values.shape}, not {shape}"
            )
            self.blobs[-1].data[...] = self.xp.asarray(values, dtype=self.dtype)
        elif filler_param is not None:
            filler.fill(self.blobs[-1].data, filler_param, self.device.rng, self.explain("parameter"))

    # ---- what the net calls

    def set_up(self, bottom: Blobs, top: Blobs) -> None:
        """Counts, in-place rule, setup, first reshape, loss weights: Caffe's Layer::SetUp."""
        self._check_counts(len(bottom), len(top))
        if not self.in_place:
            for b, t in zip(bottom, top):  # noqa: B905 - unequal counts are fine here
                self.check(b is not t, "cannot run in place: give the top a name of its own")
        try:
            self.setup(bottom, top)
            self.reshape(bottom, top)
        except CaffeError as error:
            raise self.located(error) from error
        self._set_loss_weights(top)

    def located(self, error: CaffeError) -> CaffeError:
        """``error`` with this layer named, unless it is already."""
        if f"layer {self.name!r}" in str(error):
            return error
        return type(error)(self.explain(str(error)))

    def _check_counts(self, bottoms: int, tops: int) -> None:
        for kind, count, exact, low, high in (
            ("bottom", bottoms, self.exact_bottoms, self.min_bottoms, self.max_bottoms),
            ("top", tops, self.exact_tops, self.min_tops, self.max_tops),
        ):
            self.check(exact is None or count == exact, f"needs {exact} {kind} blob(s), got {count}")
            self.check(low is None or count >= low, f"needs at least {low} {kind} blob(s), got {count}")
            self.check(high is None or count <= high, f"takes at most {high} {kind} blob(s), got {count}")
        same = not self.equal_bottoms_tops or bottoms == tops
        self.check(same, f"needs as many tops as bottoms, got {bottoms} bottom(s) and {tops} top(s)")

    def default_loss_weight(self, top_index: int) -> float:
        return 0.0

    def _set_loss_weights(self, top: Blobs) -> None:
        given = list(self.layer_param.loss_weight)
        if not given:
            given = [self.default_loss_weight(i) for i in range(len(top))]
        if len(given) != len(top):
            raise NetError(self.explain(f"{len(given)} loss_weight(s) for {len(top)} top blob(s): give one for each"))
        self.loss_weights = given
        for weight, blob in zip(given, top, strict=True):
            if weight:
                blob.diff[...] = weight

    def _half(self, direction: str) -> Any:
        half = f"{direction}_{'gpu' if self.device.is_gpu else 'cpu'}"
        method = getattr(self, half, None)
        if method is None:
            raise NotImplementedError(self.explain(f"has no {half}"))
        return method


class LossLayer(Layer):
    """A layer whose first top is a loss: its loss_weight is 1 unless the prototxt says otherwise.

    ``bottom[1]`` are labels or targets, which force_backward leaves alone.
    """

    exact_bottoms: int | None = 2
    auto_tops = True
    min_tops, max_tops = 1, 1

    def default_loss_weight(self, top_index: int) -> float:
        return 1.0 if top_index == 0 else 0.0

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 1
