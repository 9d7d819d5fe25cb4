"""Recurrent: what LSTM and RNN share. Not a layer type of its own.

Behaves as Caffe's RecurrentLayer, with the products written over time instead of a net unrolled in time.
T steps of time, N streams, I inputs, D = num_output, S inputs that do not change:
    bottom[0]  x         (T, N, ...)   I = product of the axes after the second
    bottom[1]  cont      (T, N)        0 where a sequence begins, 1 where one goes on
    bottom[2]  x_static  (N, ...)      optional, one for each stream; S = product of the axes after the first
    top[0]               (T, N, D)
    expose_hidden: true adds a bottom and a top, (1, N, D), for each state: its value before the first step and
    after the last.
What enters step t is z_t = W_x x_t + b + W_static x_static + W_h (cont_t h_(t-1)); the step itself is the subclass's.
Parameters: W_x (Z, I), b (Z,), [W_static (Z, S)], W_h (Z, D), and the subclass's.

Without expose_hidden each forward goes on from the states that the one before left (zeros at first), and gradients
stop there. T is fixed by setup; N may change.

Differs from Caffe: with expose_hidden, gradients pass through the states (there they are dropped in silence); where
N changes the states are zeros; x may have two axes, x_static one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from caffe_lite.blob import Blob
from caffe_lite.errors import DataError
from caffe_lite.gemm import multiply
from caffe_lite.layer import Array, Blobs, Flags, Layer


class Recurrent(Layer):
    min_bottoms, min_tops = 2, 1
    state_names: tuple[str, ...] = ("h",)  # h first: it is what W_h multiplies
    gates = 1  # Z = gates * D

    # ---- what a subclass writes, besides the two above

    def add_output_params(self) -> None:
        """Append the parameters that follow W_h."""

    def step(self, t: int, z: Array, cont: Array, states: list[Array]) -> None:
        """From z (N, Z), which may be overwritten and is kept, write states[k][t + 1]; states[k] is (T + 1, N, D)."""
        raise NotImplementedError

    def step_backward(
        self, t: int, z: Array, cont: Array, states: list[Array], d_states: list[Array], dz: Array
    ) -> None:
        """From d_states (N, D), the gradients of states[k][t + 1], write dz (N, Z) and those of states[k][t].

        Of d_states[0], which reaches the step before through W_h only, nothing is to be written.
        """
        raise NotImplementedError

    def output(self, h: Array, y: Array) -> None:
        """y (T, N, D) from h (T, N, D)."""
        y[...] = h

    def output_backward(self, dy: Array, y: Array, h: Array) -> Array:
        """The gradient of h from that of y; adds to the gradients of the output's parameters."""
        return dy

    # ---- Layer

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.recurrent_param
        self.check(p.num_output > 0, f"num_output must be > 0, got {p.num_output}")
        exposed = len(self.state_names) if p.expose_hidden else 0
        names = ", ".join(("x", "cont", *(f"{name}_0" for name in self.state_names[:exposed])))
        wanted = f"needs {2 + exposed} bottoms ({names}), or {3 + exposed} with x_static after cont, got {len(bottom)}"
        self.check(len(bottom) - exposed in (2, 3), wanted)
        self.check(len(top) == 1 + exposed, f"needs {1 + exposed} top blob(s), got {len(top)}")
        shape = bottom[0].shape
        timed = len(shape) >= 2 and shape[0] > 0
        self.check_shape(timed, f"x (bottom 0) must have shape (T, N, ...) with T > 0, got {shape}")
        self.first_state = len(bottom) - exposed if exposed else None
        self.has_static = len(bottom) - exposed == 3
        self.steps, self.dim = shape[0], p.num_output
        z = self.gates * self.dim
        self.inputs = math.prod(shape[2:])
        self.add_param((z, self.inputs), p.weight_filler)
        self.add_param((z,), p.bias_filler)
        if self.has_static:
            static = bottom[2].shape
            self.check_shape(len(static) >= 1, "x_static (bottom 2) must have shape (N, ...), got ()")
            self.static_inputs = math.prod(static[1:])
            self.add_param((z, self.static_inputs), p.weight_filler)
        self.w_h = len(self.blobs)
        self.add_param((z, self.dim), p.weight_filler)
        self.add_output_params()
        self.streams = -1
        # Forward saves for backward what enters the steps, the states, and h as W_h sees it.
        self.z = Blob((), self.dtype, self.device)
        self.states = [Blob((), self.dtype, self.device) for _ in self.state_names]
        self.h_kept = Blob((), self.dtype, self.device)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 1

    def example(self, bottom_index: int, bottom: Blobs, rng: np.random.Generator) -> np.ndarray | None:
        return rng.integers(0, 2, bottom[1].shape) if bottom_index == 1 else None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        fixed = len(shape) >= 2 and shape[0] == self.steps and math.prod(shape[2:]) == self.inputs
        built_for = f"({self.steps}, N, ...) with {self.inputs} inputs"
        self.check_shape(fixed, f"x (bottom 0) has shape {shape}; the layer is built for {built_for}")
        n = shape[1]
        cont = bottom[1].shape
        self.check_shape(cont == (self.steps, n), f"cont (bottom 1) must have shape {(self.steps, n)}, got {cont}")
        if self.has_static:
            static = bottom[2].shape
            fits = len(static) >= 1 and static[0] == n and math.prod(static[1:]) == self.static_inputs
            wanted = f"({n}, ...) with {self.static_inputs} inputs"
            self.check_shape(fits, f"x_static (bottom 2) must have shape {wanted}, got {static}")
        for i in range(self.first_state or len(bottom), len(bottom)):
            wanted = f"a state (bottom {i}) must have shape {(1, n, self.dim)}, got {bottom[i].shape}"
            self.check_shape(bottom[i].shape == (1, n, self.dim), wanted)
        top[0].reshape(self.steps, n, self.dim)
        for blob in top[1:]:
            blob.reshape(1, n, self.dim)
        if n != self.streams:
            self._begin(n)

    def _begin(self, streams: int) -> None:
        """Make room for ``streams`` sequences, with states of zero."""
        self.streams = streams
        self.z.reshape(self.steps, streams, self.gates * self.dim)
        self.h_kept.reshape(self.steps, streams, self.dim)
        for state in self.states:
            state.reshape(self.steps + 1, streams, self.dim)
        self.forget()

    def multiply_adds(self, bottom: Blobs, top: Blobs) -> int:
        weights = [blob.count for blob in self.blobs if len(blob.shape) == 2]
        if self.has_static:  # applied once for a stream, not at each step
            static = weights.pop(1)
            return self.streams * (self.steps * sum(weights) + static)
        return self.streams * self.steps * sum(weights)

    def forget(self) -> None:
        """Forget: the next forward starts from states of zero."""
        for state in self.states:
            state.data[...] = 0

    def state(self) -> dict[str, Any] | None:
        """The states (N, D) that the next forward goes on from; None if they come from the bottoms."""
        if self.first_state is not None:
            return None
        last = (self.device.to_host(s.data)[self.steps].copy() for s in self.states)
        return dict(zip(self.state_names, last, strict=True))

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from ``state()``.

        Raises:
            DataError: it is of a layer of another kind or size; this one is unchanged.
        """
        shapes = {name: np.shape(values) for name, values in state.items()}
        n = next(iter(shapes.values()), (0,))[0]
        if set(shapes) != set(self.state_names) or set(shapes.values()) != {(n, self.dim)}:
            wanted = f"{', '.join(self.state_names)} of shape (N, {self.dim})"
            raise DataError(self.explain(f"the saved state cannot be used: needs {wanted}, got {shapes}"))
        self._begin(n)
        for name, blob in zip(self.state_names, self.states, strict=True):
            blob.data[self.steps] = self.xp.asarray(state[name], dtype=self.dtype)

    def _flat(self, array: Array) -> Array:
        """The first two axes as one."""
        return array.reshape(self.steps * self.streams, array.shape[-1])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        xp, z, kept = self.xp, self.z.data, self.h_kept.data
        states = [s.data for s in self.states]
        for k, state in enumerate(states):
            state[0] = state[self.steps] if self.first_state is None else bottom[self.first_state + k].data[0]
        multiply(self.device, self._matrix(bottom[0], self.inputs), self.blobs[0].data.T, self._flat(z))
        z += self.blobs[1].data
        if self.has_static:
            x_static = bottom[2].data.reshape(self.streams, self.static_inputs)
            product = self.device.workspace("recurrent", z.shape[1:], self.dtype)
            multiply(self.device, x_static, self.blobs[2].data.T, product)
            z += product
        w_h, cont = self.blobs[self.w_h].data.T, bottom[1].data
        for t in range(self.steps):
            xp.multiply(states[0][t], cont[t][:, None], out=kept[t])
            multiply(self.device, kept[t], w_h, z[t], add=True)
            self.step(t, z[t], cont[t], states)
        self.output(states[0][1:], top[0].data)
        for blob, state in zip(top[1:], states, strict=False):
            blob.data[0] = state[self.steps]

    def _matrix(self, blob: Blob, inputs: int, part: str = "data") -> Array:
        return getattr(blob, part).reshape(self.steps * self.streams, inputs)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        self.check(not propagate_down[1], "cont (bottom 1) has no gradient: write propagate_down: false")
        z, cont = self.z.data, bottom[1].data
        states = [s.data for s in self.states]
        d_h = self.output_backward(top[0].diff, top[0].data, states[0][1:])
        w_h = self.blobs[self.w_h].data
        dz = self.device.workspace("recurrent_dz", z.shape, self.dtype)
        d_states = list(self.device.workspace("recurrent", (len(states), self.streams, self.dim), self.dtype))
        for k, d in enumerate(d_states):
            exposed = self.first_state is not None and top[1 + k].diff_in_use
            d[...] = top[1 + k].diff[0] if exposed else 0
        for t in reversed(range(self.steps)):
            d_states[0] += d_h[t]
            self.step_backward(t, z[t], cont[t], states, d_states, dz[t])
            multiply(self.device, dz[t], w_h, d_states[0])
            d_states[0] *= cont[t][:, None]
        self._input_gradients(dz, bottom, propagate_down)
        if self.first_state is not None:
            for i, d in enumerate(d_states, self.first_state):
                if propagate_down[i]:
                    bottom[i].diff[0] = d

    def _input_gradients(self, dz: Array, bottom: Blobs, propagate_down: Flags) -> None:
        """Of W_x, b, W_static, W_h, x and x_static, from dz (T, N, Z)."""
        flat = self._flat(dz)
        self.add_gradient(0, flat, self._matrix(bottom[0], self.inputs))
        self.add_gradient(1, flat)
        self.add_gradient(self.w_h, flat, self._flat(self.h_kept.data))
        if propagate_down[0]:
            multiply(self.device, flat, self.blobs[0].data, self._matrix(bottom[0], self.inputs, "diff"))
        if not self.has_static:
            return
        total = dz.sum(axis=0)
        self.add_gradient(2, total, bottom[2].data.reshape(self.streams, self.static_inputs))
        if propagate_down[2]:
            dx = bottom[2].diff.reshape(self.streams, self.static_inputs)
            multiply(self.device, total, self.blobs[2].data, dx)

    def add_gradient(self, index: int, dy: Array, x: Array | None = None) -> None:
        """Add to parameter ``index`` of y = W x (dy^T x) or, without x, of a bias (the sum of dy), if it is wanted."""
        if self.param_propagate_down[index]:
            diff = self.blobs[index].diff
            if x is None:
                diff += dy.sum(axis=0)
            else:
                multiply(self.device, dy.T, x, diff, add=True)
