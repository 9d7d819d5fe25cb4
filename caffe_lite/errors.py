"""The exceptions of caffe_lite: one hierarchy, each also the builtin that callers expect.

A message answers four questions: where (``file:line:column``, layer, blob, image), what was
expected, what was found, and the likely fix.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CaffeError(RuntimeError):
    """Base of all errors raised on purpose; pycaffe scripts catch it as RuntimeError."""


class PrototxtError(CaffeError, ValueError):
    """A prototxt that cannot be read: syntax, unknown field, bad value."""


class NetError(CaffeError, ValueError):
    """A net that cannot be built or run: unknown bottom, duplicate top, bad parameter."""


class UnknownNameError(NetError, KeyError):
    """A name that the net does not have."""

    __str__ = Exception.__str__  # KeyError would print the repr of the message


class UnknownTypeError(UnknownNameError):
    """A layer, solver, filler or policy name that is not registered."""


class ShapeError(NetError):
    """Blobs whose shapes do not go together."""


class WeightsError(CaffeError, ValueError):
    """A weights or state file that is damaged or does not fit the net."""


class DataError(CaffeError, ValueError):
    """A dataset, image, annotation or proposal that cannot be used."""


class SolverError(CaffeError, ValueError):
    """A solver that cannot be built or must not go on (a loss that became NaN)."""


class DeviceError(CaffeError):
    """No GPU, no CuPy, or a device that cannot do what was asked."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest of ``choices``, or ``""`` if none is near."""
    pool = sorted(choices)
    near = difflib.get_close_matches(name, pool, n=1, cutoff=0.6)
    if not near:  # 'relu' for 'ReLU': letters right, case wrong
        folded = {c.lower(): c for c in pool}
        near = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
        near = [folded[n] for n in near]
    return f"; did you mean {near[0]!r}?" if near else ""
