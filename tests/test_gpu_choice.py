"""The way that a GPU takes for a convolution: counted by hand for some, and what holds for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffe_lite import gpu_choice
from caffe_lite.gpu_choice import choose
from caffe_lite.im2col import Geometry

MODES = ("float64", "float32", "tf32", "bf16")


def geometry(height: int, width: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> Geometry:
    """Padded such that stride 1 keeps the size of an odd kernel."""
    pad = dilation * (kernel - 1) // 2
    pairs = ((n, n) for n in (kernel, stride, pad, dilation))
    return Geometry((height, width), *pairs)


@pytest.mark.parametrize(
    ("channels", "kernels", "size", "images", "mode", "expected"),
    [
        (64, 64, (600, 1000), 1, "float32", ("winograd", 4)),  # VGG16's conv1_2
        (512, 512, (38, 63), 1, "float32", ("winograd", 4)),  # its conv5
        (512, 512, (38, 63), 1, "float64", ("winograd", 4)),
        (256, 256, (150, 250), 1, "tf32", ("winograd", 2)),
        (256, 256, (150, 250), 1, "bf16", ("winograd", 2)),
        (3, 64, (600, 1000), 1, "float32", ("implicit", 0)),  # u, v and m are for many channels
        (3, 64, (600, 1000), 1, "tf32", ("implicit", 0)),  # the matrix of patches costs more than it saves
        (128, 256, (150, 250), 1, "bf16", ("im2col", 0)),  # products are cheap, so patches are the least to write
        (512, 512, (14, 14), 2, "float32", ("winograd", 2)),  # u is most of the work: 16 C K, not 36
        (512, 512, (7, 7), 1, "float32", ("im2col", 0)),  # 8 blocks would not fill a device
        (16, 32, (30, 25), 1, "float32", ("implicit", 0)),  # one launch is all that it costs
    ],
)
def test_known_layers(
    channels: int, kernels: int, size: tuple[int, int], images: int, mode: str, expected: tuple[str, int]
) -> None:
    way = choose(geometry(*size), images, channels, kernels, mode)
    assert (way.path, way.tile) == expected, way.reason


def test_work_by_hand() -> None:
    """10 x 12 pixels, 2 images, 6 channels, 5 kernels."""
    g = geometry(10, 12)
    products = 5 * 6 * 9 * 240
    assert gpu_choice.implicit(g, 2, 6, 5, "bf16") == pytest.approx(10e6 + products / 8 * 128 / 2)  # 2 blocks
    assert gpu_choice.im2col(g, 2, 6, 5, "tf32") == pytest.approx(50e6 + products / 50 + 2 * 4 * 54 * 240)
    tiles = 2 * 3 * 3  # of 4 x 4
    scratch = 36 * (30 + 11 * tiles)
    assert gpu_choice.winograd(4, tiles, 6, 5, "float64") == pytest.approx(40e6 + 36 * 30 * tiles / 4 + 16 * scratch)


sizes = st.integers(1, 600)


@given(
    st.builds(geometry, sizes, sizes, st.sampled_from([1, 3, 5]), st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(1, 40), st.integers(0, 700), st.integers(1, 700)),
    st.sampled_from(MODES),
)
def test_every_choice_is_possible(g: Geometry, counts: tuple[int, int, int], mode: str) -> None:
    """Winograd for 3 x 3 with stride and dilation 1 alone, with tiles of 2 in reduced precision."""
    way = choose(g, *counts, mode)
    assert way.path in ("implicit", "im2col", "winograd") and (way.tile > 0) == (way.path == "winograd")
    if way.tile:
        assert (g.kernel, g.stride, g.dilation) == ((3, 3), (1, 1), (1, 1))
        assert way.tile == 2 or mode in ("float32", "float64")


def test_no_images_are_no_work() -> None:
    assert choose(geometry(8, 8), 0, 3, 4, "tf32").path == "implicit"
