"""Does ``backward`` compute the derivative of ``forward``? Central differences say.

The objective is L = sum over the tops of <top, w> with random w, so top.diff = w. For a random
direction v of one bottom or parameter x, <x.diff, v> must equal (L(x + h v) - L(x - h v)) / 2h; with
``exhaustive``, v runs over the single elements of x instead. Build layers and nets in float64: at
float32 the difference drowns in rounding.

Where a maximum is tied or |x| turns at 0 there is no derivative: such a point is a kink. A direction
moves at most 1000 elements by about 1e-5, so kinks are rarely met by chance; a smaller step gets
around one that is near; one that sits at x itself (a tie) is reported in the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from caffe_lite.blob import Blob
from caffe_lite.layer import Layer

STEPS = (1e-5, 1e-6)  # the second is tried where the first disagrees
TOLERANCE = 1e-6
MOVED = 1000  # elements that one direction moves, at most
BEFORE = 0.5  # in the diffs of parameters before a backward: a layer adds to them, one that overwrites them is wrong
FLOOR = 1e-4  # gradients smaller than this are compared absolutely


@dataclass
class Row:
    """One comparison. ``error`` is |analytic - numeric| relative to the size of the gradient."""

    layer: str
    blob: str  # "bottom 0", "param 1", with the element if the check was exhaustive
    analytic: float
    numeric: float
    error: float
    kink: bool  # the slopes on the two sides differ: there is no derivative to compare with
    caveat: str = ""  # why Caffe's rule is no derivative here, if the layer says so

    @property
    def verdict(self) -> str:
        """ "ok", "kink", "by rule" (a faithful rule that is not a gradient) or "WRONG"."""
        if self.error <= TOLERANCE:
            return "ok"
        return "kink" if self.kink else "by rule" if self.caveat else "WRONG"

    def as_dict(self) -> dict[str, Any]:
        """The fields and the verdict, for JSON; None for a number that is NaN or infinite."""
        numbers = {name: getattr(self, name) for name in ("analytic", "numeric", "error")}
        finite = {name: float(value) if np.isfinite(value) else None for name, value in numbers.items()}
        return {**asdict(self), **finite, "kink": bool(self.kink), "verdict": self.verdict}

    def __str__(self) -> str:
        note = ", a kink (tied values?)" if self.kink else ""
        return (
            f"layer {self.layer!r}, {self.blob}: analytic {self.analytic:.9g}, numeric {self.numeric:.9g}, "
            f"relative error {self.error:.1e}{note}"
        )


def check_layer(
    layer: Layer,
    bottoms: Sequence[Blob],
    tops: Sequence[Blob],
    *,
    propagate_down: Sequence[bool] | None = None,
    differentiable_tops: Sequence[bool] | None = None,
    exhaustive: bool = False,
    directions: int = 2,
    seed: int = 0,
) -> list[Row]:
    """Compare the gradients of a layer that is set up, with the values that its bottoms hold.

    Args:
        propagate_down: which bottoms to check; by default those that force_backward may reach.
        differentiable_tops: which tops take part; by default all. Not masks, not class counts.
        exhaustive: every element on its own instead of ``directions`` random directions.

    Returns:
        A row for each bottom or parameter and direction (or element). Data of bottoms and parameters
        are as before, diffs are overwritten.

    Raises:
        ValueError: the blobs are not float64.
    """
    if any(b.dtype != np.float64 for b in [*bottoms, *layer.blobs]):
        raise ValueError(f"layer {layer.name!r}: build it in float64 (dtype='float64') to check its gradients")
    wanted = [layer.allow_force_backward(i) for i in range(len(bottoms))] if propagate_down is None else propagate_down
    weighted = [True] * len(tops) if differentiable_tops is None else differentiable_tops
    if not layer.param_propagate_down:
        layer.param_propagate_down = [True] * len(layer.blobs)

    rng = np.random.default_rng(seed)
    layer.reshape(bottoms, tops)
    probe = _Probe(layer, bottoms, tops)
    kept = [np.array(layer.device.to_host(t.diff)) for t in tops]  # a loss layer's weight lives here
    weights = [_away_from_zero(rng, top.shape) * takes_part for top, takes_part in zip(tops, weighted, strict=True)]
    subjects = [(f"bottom {i}", b) for i, b in enumerate(bottoms) if wanted[i]]
    if not layer.learns_nothing:
        subjects += [(f"param {i}", b) for i, b in enumerate(layer.blobs) if layer.param_propagate_down[i]]

    probe.gradients(weights, wanted)
    gradients = [np.array(layer.device.to_host(blob.diff)) for _, blob in subjects]
    rows = []
    for (name, blob), gradient in zip(subjects, gradients, strict=True):
        for suffix, direction in _directions(blob.shape, exhaustive, directions, rng):
            rows.append(_compare(probe, layer.name, name + suffix, blob, gradient, direction, weights))
    probe.forward()
    for top, diff in zip(tops, kept, strict=True):
        top.diff[...] = layer.xp.asarray(diff)
    return rows


def check_net(
    net: Any, *, layers: Sequence[str] | None = None, jitter: float = 0.1, exhaustive: bool = False, seed: int = 0
) -> list[Row]:
    """:func:`check_layer` for each layer of a float64 Net that has a gradient to check, or for ``layers``.

    Every layer is checked by itself, on copies of the blobs that ``net.forward()`` leaves. Bottoms
    are moved at random by up to ``jitter`` times their standard deviation: what a ReLU wrote is full of
    tied zeros, where a pooling layer has no derivative. On a GPU, Python layers are left out.
    """
    net.run_forward()
    rng = np.random.default_rng(seed)
    rows = []
    for node in net.nodes:
        layer, wanted = node.layer, node.propagate_down
        if not node.needs_backward or not (any(wanted) or any(layer.param_propagate_down)):
            continue
        if (layers is not None and layer.name not in layers) or (layer.on_host and layer.device.is_gpu):
            continue
        bottoms = [_copy(b, rng, jitter if w else 0.0) for b, w in zip(node.bottoms, wanted, strict=True)]
        tops = [Blob(t.shape, t.dtype, t.device) for t in node.tops]
        fused, layer.fused_relu = layer.fused_relu, False
        seed = int(rng.integers(2**31))
        found = check_layer(layer, bottoms, tops, propagate_down=wanted, exhaustive=exhaustive, seed=seed)
        caveat = layer.gradient_caveat(bottoms)
        for row in found:
            row.caveat = caveat
        rows += found
        layer.fused_relu = fused
    return rows


def fill_with_examples(net: Any, seed: int = 0) -> None:
    """Give a net without data something to compute on: inputs, and small random numbers for learned zero parameters."""
    rng = np.random.default_rng(seed)
    fill_inputs(net, rng)
    for blob, spec in zip(net.learnable_params, net.learnable_specs, strict=True):
        if spec.lr_mult and blob.count and not bool(blob.data.any()):
            scale = 1 / np.sqrt(max(1, blob.count // max(1, blob.shape[0] if blob.shape else 1)))
            blob.data[...] = blob.device.xp.asarray(scale * rng.normal(size=blob.shape))


def fill_inputs(net: Any, rng: np.random.Generator) -> None:
    """Give the inputs values that the layers which read them can take, normal random numbers otherwise.

    What they can take they say themselves: ``Layer.example``, labels or regions say.
    """
    net.reshape()
    for name in net.inputs:
        names = {name} | {top for node in net.nodes if node.bottom_names == [name] for top in node.top_names}
        readers = ((n.layer, j, n.bottoms) for n in net.nodes for j, b in enumerate(n.bottom_names) if b in names)
        examples = (layer.example(j, bottoms, rng) for layer, j, bottoms in readers)
        chosen = next((e for e in examples if e is not None), None)
        blob = net.blobs[name]
        blob.data[...] = rng.normal(size=blob.shape) if chosen is None else np.reshape(chosen, blob.shape)


def table(rows: Sequence[Row]) -> str:
    """``rows`` as aligned text, and beneath it the caveats."""
    cells = [("layer", "gradient of", "analytic", "numeric", "error", "")]
    cells += [(r.layer, r.blob, f"{r.analytic:.9g}", f"{r.numeric:.9g}", f"{r.error:.1e}", r.verdict) for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(6)]
    lines = []
    for row in cells:
        left = [row[i].ljust(widths[i]) for i in (0, 1)]
        right = [row[i].rjust(widths[i]) for i in (2, 3, 4)]
        lines.append("  ".join([*left, *right, row[5]]).rstrip())
    notes = {row.layer: row.caveat for row in rows if row.verdict == "by rule"}
    return "\n".join([*lines, *(f"by rule: layer {layer!r}: {caveat}" for layer, caveat in notes.items())])


class _Probe:
    """Runs a layer again and again from the same state: parameters, random stream, memory."""

    def __init__(self, layer: Layer, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        self.layer, self.bottoms, self.tops = layer, bottoms, tops
        self.blobs = [*bottoms, *layer.blobs]
        self.start = [b.data.copy() for b in self.blobs]
        self.random_state = layer.device.rng.bit_generator.state

    def forward(self, moved: Blob | None = None, by: Any = 0) -> list[np.ndarray]:
        """The tops, with ``by`` added to the data of ``moved``."""
        for blob, start in zip(self.blobs, self.start, strict=True):
            blob.data[...] = start + by if blob is moved else start
        self.layer.device.rng.bit_generator.state = self.random_state
        self.layer.forget()
        self.layer.forward(self.bottoms, self.tops)
        return [np.array(self.layer.device.to_host(t.data)) for t in self.tops]

    def gradients(self, weights: list[np.ndarray], propagate_down: Sequence[bool]) -> None:
        """Leave the gradients of <tops, weights> in the diffs."""
        self.forward()
        for top, weight in zip(self.tops, weights, strict=True):
            top.diff[...] = self.layer.xp.asarray(weight)
        for blob in self.layer.blobs:
            blob.diff[...] = BEFORE
        self.layer.backward(self.tops, list(propagate_down), self.bottoms)
        for blob in self.layer.blobs:
            blob.diff[...] -= BEFORE


def _directions(
    shape: tuple[int, ...], exhaustive: bool, count: int, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array of ``shape``) of each direction in which to move."""
    size = int(np.prod(shape))
    if exhaustive:
        for i in range(size):
            direction = np.zeros(size)
            direction[i] = 1
            yield f" at {tuple(int(k) for k in np.unravel_index(i, shape))}", direction.reshape(shape)
        return
    for _ in range(count if size else 0):
        direction = np.zeros(size)
        moved = rng.permutation(size)[:MOVED]
        direction[moved] = _away_from_zero(rng, moved.shape)
        yield "", direction.reshape(shape)


def _away_from_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)


def _compare(
    probe: _Probe,
    layer_name: str,
    name: str,
    blob: Blob,
    gradient: np.ndarray,
    direction: np.ndarray,
    weights: list[np.ndarray],
) -> Row:
    analytic = float(np.vdot(gradient, direction))
    scale = max(float(np.linalg.norm(gradient * (direction != 0))), FLOOR)
    here = probe.forward()
    row = None
    for step in STEPS:
        move = probe.layer.xp.asarray(step * direction)
        ahead, behind = probe.forward(blob, move), probe.forward(blob, -move)
        right = _dot(weights, ahead, here) / step
        left = _dot(weights, here, behind) / step
        numeric = (right + left) / 2
        error = abs(analytic - numeric) / max(abs(analytic), abs(numeric), scale)
        turns = (np.abs(a + b - 2 * t).max(initial=0) for a, b, t in zip(ahead, behind, here, strict=True))
        bent = max(turns, default=0) > 0.02 * step
        if row is None or not error >= row.error:
            row = Row(layer_name, name, analytic, numeric, error, bent)
        if error <= TOLERANCE:
            row.kink = False
            break
    assert row is not None
    return row


def _dot(weights: list[np.ndarray], after: list[np.ndarray], before: list[np.ndarray]) -> float:
    # Differences first: subtracting two sums instead would lose digits.
    return sum(float(np.vdot(w, a - b)) for w, a, b in zip(weights, after, before, strict=True) if w.any())


def _copy(blob: Blob, rng: np.random.Generator, jitter: float) -> Blob:
    copy = Blob(blob.shape, blob.dtype, blob.device)
    values = blob.device.to_host(blob.data)
    spread = float(values.std()) if values.size else 0.0
    copy.data[...] = blob.device.xp.asarray(values + jitter * spread * rng.uniform(-1, 1, blob.shape))
    return copy
