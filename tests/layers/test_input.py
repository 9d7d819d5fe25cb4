import numpy as np
import pytest

import caffe_lite
from caffe_lite.errors import NetError, ShapeError


@pytest.fixture
def build(device, tmp_path):
    """A net on each device whose Input layer has these tops and shapes."""

    def make(tops, shapes):
        dims = (" ".join(f"dim: {d}" for d in shape) for shape in shapes)
        path = tmp_path / "net.prototxt"
        path.write_text(f"""
            layer {{ name: "in" type: "Input" {" ".join(f'top: "{top}"' for top in tops)}
                    input_param {{ {" ".join(f"shape {{ {d} }}" for d in dims)} }} }}
            layer {{ name: "relu" type: "ReLU" bottom: "{tops[0]}" top: "y" }}
        """)
        return caffe_lite.Net(path, caffe_lite.TEST)

    return make


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [([(2, 3), (4,)], [(2, 3), (4,)]), ([(2, 3)], [(2, 3), (2, 3)]), ([(0, 5)], [(0, 5), (0, 5)]), ([], [(), ()])],
)
def test_shapes(build, shapes, expected):
    net = build(["a", "b"], shapes)
    assert net.inputs == ["a", "b"]
    assert [net.blobs[name].shape for name in "ab"] == expected
    net.forward()


def test_a_shape_given_at_run_time_and_values_stay(build):
    net = build(["a"], [(2,)])
    net.blobs["a"].reshape(3)
    net.blobs["a"].data[...] = [1, -2, 3]
    for _ in range(2):
        net.forward()
        np.testing.assert_array_equal(net.blobs["y"].data, [1, 0, 3])
    np.testing.assert_array_equal(net.blobs["a"].data, [1, -2, 3])


def test_wrong_shapes(build):
    with pytest.raises(NetError, match=r"layer 'in' \(Input\): needs no shape, one .* each of 3; got 2"):
        build(["a", "b", "c"], [(2,), (3,)])
    with pytest.raises(ShapeError, match="layer 'in'"):
        build(["a"], [(2, -1)])
