"""Trained parameters by layer name: what is copied, what is refused, and what files of other programs look like."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import caffe_lite as caffe
from caffe_lite import caffemodel, stored_blobs, transfer, weights, wire
from caffe_lite.errors import WeightsError
from caffe_lite.proto import caffe_pb2

ROOT = Path(__file__).parent.parent
NET = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [1, 3] } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" include { phase: TEST } inner_product_param { num_output: 2 } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 4 bias_term: false } }
"""
W, B = np.arange(6, dtype="f4").reshape(2, 3) + 0.5, np.float32([7, 8])


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    net = caffe.Net(tmp_path / "net.prototxt", caffe.TEST)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = -1
    return net


@pytest.fixture
def write(tmp_path):
    """Write a .caffemodel; its path."""

    def write(content):
        path = tmp_path / "w.caffemodel"
        path.write_bytes(content if isinstance(content, bytes) else content.SerializePartialToString())
        return path

    return write


def trained(**layers):
    """A NetParameter with layers {name: arrays}."""
    param = caffe_pb2.NetParameter(name="n")
    for name, arrays in layers.items():
        layer = param.layer.add(name=name, type="InnerProduct")
        for array in arrays:
            weights.array_to_blob(np.asarray(array), layer.blobs.add())
    return param


def holds(net, w=W, b=B):
    np.testing.assert_array_equal(net.params["a"][0].data, w)
    np.testing.assert_array_equal(net.params["a"][1].data, b)


# ---- the report


def test_the_report_is_a_table(net, write):
    report = net.copy_from(write(trained(a=[W, B], other=[B], nothing=[])))
    holds(net)
    assert (report.copied, report.ignored, report.untouched, report.mismatched) == (["a"], ["other"], ["b"], {})
    assert str(report).splitlines() == [
        "copied      a",
        "ignored     other  in the file only",
        "untouched   b      in the net only",
        "1 copied, 1 ignored, 1 untouched, 0 mismatched",
    ]
    assert (net.params["b"][0].data == -1).all()


def test_strict_refuses_whatever_is_left_over(net, write):
    b = np.ones((4, 2), "f4")
    assert net.copy_from(write(trained(a=[W, B], b=[b])), strict=True).copied == ["a", "b"]
    net.params["a"][0].data[...] = -1
    for param, says in (
        (trained(a=[W, B]), "untouched   b"),
        (trained(a=[W, B], b=[b], c=[b]), "ignored     c"),
        (trained(a=[W, B], b=[b.T]), r"mismatched  b  layer 'b', parameter 0: shape \(2, 4\)"),
    ):
        with pytest.raises(WeightsError, match=rf"w\.caffemodel: does not fit the net exactly(.|\n)*{says}"):
            net.copy_from(write(param), strict=True)
        assert (net.params["a"][0].data == -1).all()


def test_strict_holds_for_hdf5_too(net, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "w.caffemodel.h5", "w") as file:
        file["data/a/0"], file["data/a/1"] = W, B
    with pytest.raises(WeightsError, match="untouched   b"):
        net.copy_from(tmp_path / "w.caffemodel.h5", strict=True)
    assert (net.params["a"][0].data == -1).all()
    assert net.copy_from(tmp_path / "w.caffemodel.h5").untouched == ["b"]


def test_every_difference_is_told_and_nothing_is_written(net, write):
    with pytest.raises(WeightsError) as error:
        net.copy_from(write(trained(a=[W.T, B], b=[B, B])))
    first, second = str(error.value).splitlines()
    assert "layer 'a', parameter 0: shape (3, 2) in the file, (2, 3) in the net" in first
    assert "layer 'b' has 2 parameter blob(s) in the file, 1 in the net" in second
    assert (net.params["a"][1].data == -1).all()


def test_comparing_writes_nothing(net, write):
    path = write(trained(a=[W, B], b=[B]))
    with caffemodel.open_net(path) as source:
        report = transfer.compare_layers(net, source, str(path))
    assert report.copied == ["a"] and list(report.mismatched) == ["b"]
    assert (net.params["a"][0].data == -1).all()


# ---- claims of the file


def test_two_layers_of_one_name_with_parameters(net, write):
    param = trained(a=[W, B])
    param.layer.add().CopyFrom(param.layer[0])
    with pytest.raises(WeightsError, match="two layers named 'a' have parameters"):
        net.copy_from(write(param))
    del param.layer[1].blobs[:]  # as two data layers, one for each phase
    net.copy_from(write(trained(b=[np.ones((4, 2))])))


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        ({"shape": {"dim": [2, 3]}, "data": range(5)}, "shape (2, 3) needs 6 values and has 5 values"),
        ({"shape": {"dim": [2, 3]}}, "needs 6 values and has 0 values"),
        ({"shape": {"dim": [-2, -3]}, "data": range(6)}, "negative axis"),
        ({"shape": {"dim": [1 << 62, 1 << 62]}, "data": range(6)}, "has 6 values"),
        ({"shape": {"dim": [1 << 32, 1 << 32]}}, "has 0 values"),  # a product that is 0 in 64 bits
        ({"num": -1, "channels": -6, "height": 1, "width": 1, "data": range(6)}, "negative axis"),
    ],
)
@pytest.mark.parametrize("name", ["a", "not in the net"])
def test_shapes_that_lie(net, write, name, blob, says):
    param = trained(b=[np.ones((4, 2))])
    param.layer.add(name=name, blobs=[caffe_pb2.BlobProto(**blob), caffe_pb2.BlobProto()])
    with pytest.raises(WeightsError) as error:
        net.copy_from(write(param))
    assert f"layer {name!r}, parameter 0: a blob" in str(error.value) and says in str(error.value)
    assert (net.params["b"][0].data == -1).all()


def test_names_that_are_no_text(net, write):
    content = trained(xyz=[W]).SerializeToString().replace(b"xyz", b"x\xffz")
    with pytest.raises(WeightsError, match=r"layer\[0\]\.name is not UTF-8 text: b'x\\xffz'"):
        net.copy_from(write(content))


def test_a_file_of_everything_but_values(write, monkeypatch):
    monkeypatch.setattr(stored_blobs, "MAX_STRUCTURE", 3000)
    weights.read_net(write(trained(a=[np.zeros(5000)])))
    with pytest.raises(WeightsError, match="are not the values of blobs"):
        weights.read_net(write(wire.delimited(100, b"") * 1500))
    with pytest.raises(WeightsError, match=r"not a \.solverstate: more than"):
        weights.read_state(write(wire.delimited(3, b"") * 1500))


# ---- encodings of other programs


def field(number, wire_type, value):
    return wire.tag(number, wire_type) + (wire.varint(len(value)) if wire_type == 2 else b"") + value


def layer_a(w_blob):
    b_blob = caffe_pb2.BlobProto(shape={"dim": [2]}, data=B.tolist()).SerializeToString()
    return field(100, 2, field(1, 2, b"a") + field(7, 2, w_blob) + field(7, 2, b_blob))


SHAPE = field(7, 2, field(1, 2, b"\x02\x03"))
F4 = [bytes(W.ravel()[i : i + 1]) for i in range(6)]
F8 = W.astype("f8").tobytes()


@pytest.mark.parametrize(
    "blob",
    [
        field(5, 2, W.tobytes()) + SHAPE,
        SHAPE + field(5, 2, W.tobytes()),
        SHAPE + field(5, 2, W.tobytes()[:8]) + field(5, 2, b"") + field(5, 2, W.tobytes()[8:]),
        SHAPE + b"".join(field(5, 5, value) for value in F4),
        field(5, 5, F4[0]) + field(5, 5, F4[1]) + SHAPE + field(5, 2, W.tobytes()[8:20]) + field(5, 5, F4[5]),
        field(7, 2, field(1, 0, b"\x02") + field(1, 0, b"\x03")) + field(5, 2, W.tobytes()),  # dim not packed
        SHAPE + field(8, 2, F8),
        SHAPE + b"".join(field(8, 1, F8[i : i + 8]) for i in range(0, 48, 8)),
        SHAPE + field(8, 2, F8) + field(5, 2, bytes(4)),  # both: Caffe takes the float64
        SHAPE + field(5, 2, W.tobytes()) + field(6, 2, bytes(24)) + field(9, 2, bytes(48)),  # gradients
        SHAPE + field(5, 2, W.tobytes()) + field(77, 0, b"\x05") + field(78, 3, field(1, 0, b"\x01") + wire.tag(78, 4)),
        SHAPE + field(5, 0, b"\x05") + field(5, 2, W.tobytes()),  # a field of the wrong type is an unknown one
        b"".join(wire.tag(i, 0) + bytes([n]) for i, n in ((1, 1), (2, 1), (3, 2), (4, 3))) + field(5, 2, W.tobytes()),
    ],
)  # fmt: skip
def test_values_in_every_encoding(net, write, blob):
    path = write(layer_a(blob))
    net.copy_from(path)
    holds(net)
    layer = weights.read_net(path).layer[0]
    np.testing.assert_array_equal(weights.blob_to_array(layer.blobs[0]).reshape(2, 3), W)
    assert layer == caffe_pb2.NetParameter.FromString(path.read_bytes()).layer[0]


def test_values_one_by_one_up_to_the_end_of_the_file(net, write):
    values = np.arange(8, dtype="f4")
    one_by_one = b"".join(field(5, 5, value.tobytes()) for value in values)
    shape = field(7, 2, field(1, 2, b"\x04\x02"))
    net.copy_from(write(field(100, 2, field(1, 2, b"b") + field(7, 2, shape + one_by_one))))
    np.testing.assert_array_equal(net.params["b"][0].data.ravel(), values)


def test_large_blobs_in_pieces(net, write, monkeypatch):
    monkeypatch.setattr(stored_blobs, "_PIECE", 8)
    monkeypatch.setattr(wire.FileContent, "WINDOW", 3)
    for blob in (
        SHAPE + field(5, 2, W.tobytes()),
        SHAPE + b"".join(field(5, 5, v) for v in F4),
        SHAPE + field(8, 2, F8),
    ):
        for blobs in net.params["a"]:
            blobs.data[...] = -1
        net.copy_from(write(layer_a(blob)))
        holds(net)


def test_legacy_shapes_are_compared_from_the_right(net, write):
    old = caffe_pb2.NetParameter()
    layer = old.layers.add(layer={"name": "a", "type": "innerproduct"})
    layer.layer.blobs.add(num=1, channels=1, height=2, width=3, data=W.ravel().tolist())
    layer.layer.blobs.add(num=1, channels=1, height=1, width=2, data=B.tolist())
    net.copy_from(write(old))
    holds(net)
    layer.layer.blobs[0].num = 2
    layer.layer.blobs[0].height = 1
    with pytest.raises(WeightsError, match=r"shape \(2, 1, 1, 3\) in the file, \(2, 3\) in the net"):
        net.copy_from(write(old))


@pytest.mark.parametrize(
    "foreign",
    [
        field(148, 2, b"\x08\x07\x10\x07"),  # ROIPooling of a fork, where Caffe has Clip, whose min is required
        field(147, 2, b"\x08\x07\x10\x07\x1d\x00\x00\x80\x3d"),  # the same where Caffe has Swish
        field(143, 2, b"\x08\x07"),  # Input
        field(106, 2, b"\xff\xff\xff"),  # no message at all, where Caffe has Convolution
        field(148, 5, b"\0\0\0\0"),
        field(5148, 2, b"\x0d\x00\x00\x80\x3f"),
        field(3, 0, b"\x01"),  # a number where Caffe has a text
    ],
)
def test_fields_of_forks_confuse_nothing(net, write, foreign, caplog, tmp_path):
    fork = field(100, 2, field(1, 2, b"roi_pool5") + field(2, 2, b"ROIPooling") + foreign)
    path = write(fork + layer_a(SHAPE + field(5, 2, W.tobytes())) + fork)
    report = net.copy_from(path)
    holds(net)
    assert len(report.notes) == 2 and len(caplog.records) == 2
    assert "roi_pool5" in report.notes[0] or "cannot be decoded" in report.notes[0]
    weights.write_net(tmp_path / "again.caffemodel", weights.read_net(path))
    holds_again = weights.read_net(tmp_path / "again.caffemodel").layer[1]
    np.testing.assert_array_equal(weights.blob_to_array(holds_again.blobs[0]), W)


# ---- memory


def test_writing_layer_by_layer_gives_the_same_bytes(net, tmp_path):
    for write_diff in (False, True):
        net.save(tmp_path / "w.caffemodel", write_diff)
        assert (tmp_path / "w.caffemodel").read_bytes() == net.to_proto(write_diff).SerializeToString()
    double = caffe.Net(tmp_path / "net.prototxt", caffe.TEST, dtype="float64")
    double.save(tmp_path / "d.caffemodel")
    assert (tmp_path / "d.caffemodel").read_bytes() == double.to_proto().SerializeToString()


LOADING = """
    import resource, sys
    import caffe_lite as caffe

    def peak():  # bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    net = caffe.Net(sys.argv[1], caffe.TEST)
    before = peak()
    net.copy_from(sys.argv[2])
    after_loading = peak()
    net.save(sys.argv[2] + ".again")
    print(after_loading - before, peak() - after_loading)
"""


def test_memory_while_loading_and_saving(tmp_path):
    pytest.importorskip("resource")
    outputs = 4096
    text = f"""layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: [1, 4096] }} }} }}
               layer {{ name: "fc" type: "InnerProduct" bottom: "x" top: "y"
                        inner_product_param {{ num_output: {outputs} bias_term: false }} }}"""
    (tmp_path / "net.prototxt").write_text(text)
    param = trained(fc=[np.ones((outputs, 4096), "f4")])
    weights.write_net(tmp_path / "w.caffemodel", param)
    size = (tmp_path / "w.caffemodel").stat().st_size
    files = [str(tmp_path / name) for name in ("net.prototxt", "w.caffemodel")]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOADING), *files],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    loading, saving = (int(word) for word in done.stdout.split())
    assert loading < 1.3 * size  # the parameters themselves are 1.0
    assert saving < 0.3 * size
    assert (tmp_path / "w.caffemodel.again").stat().st_size > size
