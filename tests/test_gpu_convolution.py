"""Convolution on a GPU, every way to compute it, against its definition; its kernels are run on the host where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from caffe_lite import gpu_columns, gpu_tiles, gpu_winograd
from caffe_lite.device import CPU
from caffe_lite.im2col import Geometry
from tests.conftest import DEVICES
from tests.convolution_reference import convolve
from tests.layers.layer_case import LayerCase
from tests.layers.test_convolution import ConvolutionCase

pytestmark = pytest.mark.skipif(DEVICES == ["cpu"], reason="neither a GPU nor g++ to run its kernels on the host")


class GpuCase(ConvolutionCase):
    def test_path(self, variant):
        """Is what the GPU's table says it is."""


class TestWinogradOnGpu(GpuCase):
    layer = {
        "pad 1": 'type: "Convolution" convolution_param { num_output: 33 kernel_size: 3 pad: 1 }',
        "pad 0, group": """type: "Convolution"
            convolution_param { num_output: 64 group: 2 kernel_size: 3 bias_term: false }""",
        "pad 2 and 3": 'type: "Convolution" convolution_param { num_output: 32 kernel_size: 3 pad: 2 pad: 3 }',
    }

    def bottoms(self, rng):
        return {"images": [rng.normal(size=(2, 64, 15, 18)) / 8]}
