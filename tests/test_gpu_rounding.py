"""tf32 and bf16 round convolutions as much as docs/gpu.md says, and no less: in units of the mode's roundoff."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import rounding
from caffe_lite.device import COMPUTE, Device

ROUNDOFF = {"float32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-8}  # half the distance of numbers near 1
DOCS = Path(__file__).resolve().parents[1] / "docs" / "gpu.md"
MOST = {  # roundoffs that the largest error has at most, as a part of the largest value: float32; tf32 and bf16
    "implicit": (60, 0),
    "im2col": (20, 2),
    "F(2x2, 3x3)": (25, 2.5),
    "F(4x4, 3x3)": (130, 12),
}


@pytest.fixture(scope="module")
def cases() -> list[rounding.Case]:
    return [rounding.Case(64, 48, 22, 31), rounding.Case(512, 24, 11, 14)]


@pytest.mark.parametrize(("way", "compute"), [(w, c) for w in MOST for c in COMPUTE if MOST[w][c != "float32"]])
def test_errors_on_vgg_like_data(gpu: Device, cases: list[rounding.Case], way: str, compute: str) -> None:
    """In float32 sums round, too; in the others factors do, so errors are near a roundoff: not far below, either."""
    for case in cases:
        for product, error in zip(rounding.PRODUCTS, case.errors(way, compute, gpu), strict=True):
            roundoffs = error / ROUNDOFF[compute]
            assert 0.25 <= roundoffs <= MOST[way][compute != "float32"], f"{product}: {roundoffs:.2f} roundoffs"


def test_the_small_tile_rounds_less(gpu: Device, cases: list[rounding.Case]) -> None:
    """What the choice between the tiles rests on: F(4x4, 3x3) in tf32 errs 2.5 times as much, or more."""
    small, large = (cases[0].errors(way, "tf32", gpu) for way in ("F(2x2, 3x3)", "F(4x4, 3x3)"))
    assert all(b > 2.5 * a for a, b in zip(small, large, strict=True))


def test_the_documented_errors_are_within_the_bounds() -> None:
    rows = re.findall(r"^\| (\S+|F\(.*?\)) \| (\w+) \| (\S+) \| (\S+) \| (\S+) \|", DOCS.read_text(), re.MULTILINE)
    assert len(rows) == sum(1 + 2 * bool(rest) for _, rest in MOST.values())
    for way, compute, *errors in rows:
        most = MOST[way][compute != "float32"] * ROUNDOFF[compute]
        assert all(0.25 * ROUNDOFF[compute] <= float(error) <= most for error in errors)
