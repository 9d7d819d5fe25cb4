"""Bottoms whose shapes hypothesis draws, for a LayerCase: forward against ``expected``, and the gradient::

class TestReLU(LayerCase):
    ...
    @any_shape(n=st.integers(0, 4), c=st.integers(1, 5))
    def test_any_shape(self, rng, n, c):
        return [rng.normal(size=(n, c))]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def any_shape(**sizes: st.SearchStrategy[Any]) -> Callable[[Callable[..., list[np.ndarray]]], Callable[..., None]]:
    """Turn a method ``(self, rng, **sizes) -> bottoms`` into a test of every variant of the layer on each device.

    The draws are the same in every run: central differences that meet a kink by chance would make it flaky.
    """

    def decorate(bottoms: Callable[..., list[np.ndarray]]) -> Callable[..., None]:
        @settings(
            max_examples=12,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )
        @given(seed=st.integers(0, 2**31), drawn=st.fixed_dictionaries(sizes))
        def test(self: Any, device: Any, seed: int, drawn: dict[str, Any]) -> None:
            arrays = bottoms(self, np.random.default_rng(seed), **drawn)
            self._cases = lambda: {"drawn": arrays}
            for variant in self._layers():
                self.test_forward(device, variant, "drawn", "float64")
                if self.test_gradient is not None:
                    self.test_gradient(device, variant, "drawn")

        return test

    return decorate
