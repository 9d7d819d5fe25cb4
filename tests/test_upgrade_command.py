"""``caffe-lite upgrade`` and the commands with Caffe's names: what they write, print and refuse."""

from __future__ import annotations

import os

import numpy as np
import pytest

from caffe_lite import cli, prototxt, upgrade_file, weights
from caffe_lite.errors import CaffeError
from caffe_lite.proto import caffe_pb2

OLD_NET = "# a comment\nname: 'n' layers { name: 'r' type: RELU bottom: 'x' top: 'y' }"
NEW_NET = 'name: "n"\nlayer {\n  name: "r"\n  type: "ReLU"\n  bottom: "x"\n  top: "y"\n}\n'
OLD_SOLVER = "net: 'n.prototxt' solver_type: ADAM"


def old_weights():
    net = caffe_pb2.NetParameter(name="n")
    layer = net.layers.add(name="ip", type=caffe_pb2.V1LayerParameter.INNER_PRODUCT)
    weights.array_to_blob(np.arange(6, dtype="f4").reshape(2, 3), layer.blobs.add())
    return net


@pytest.mark.parametrize("command", ["upgrade", "upgrade_net_proto_text"])
def test_a_net_in_text(command, tmp_path, capsys):
    (tmp_path / "in").write_text(OLD_NET)
    (tmp_path / "out").write_text("what stood here")
    assert cli.main([command, str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_text() == NEW_NET
    assert "upgraded layers of 2014" in capsys.readouterr().out
    assert cli.main([command, str(tmp_path / "out"), str(tmp_path / "again")]) == 0
    assert (tmp_path / "again").read_text() == NEW_NET
    assert "is up to date already" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["upgrade", "upgrade_net_proto_binary"])
def test_weights(command, tmp_path, capsys):
    (tmp_path / "in").write_bytes(old_weights().SerializeToString())
    assert cli.main([command, str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    net = caffe_pb2.NetParameter.FromString((tmp_path / "out").read_bytes())
    assert not net.layers and (net.layer[0].name, net.layer[0].type) == ("ip", "InnerProduct")
    assert list(net.layer[0].blobs[0].data) == [0, 1, 2, 3, 4, 5] and net.layer[0].blobs[0].shape.dim == [2, 3]


@pytest.mark.parametrize("command", ["upgrade", "upgrade_solver_proto_text"])
def test_a_solver(command, tmp_path, capsys):
    (tmp_path / "in").write_text(OLD_SOLVER)
    assert cli.main([command, str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    solver, _ = prototxt.read_solver(tmp_path / "out")
    assert solver == caffe_pb2.SolverParameter(net="n.prototxt", type="Adam")
    assert "upgraded solver_type" in capsys.readouterr().out


def test_what_is_left_out_is_printed_and_is_a_failure(tmp_path, capsys):
    (tmp_path / "in").write_text("layers { layer { name: 'r' type: 'relu' num_output: 3 } }")
    assert cli.main(["upgrade", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "in:1:41: layer 'r' (relu): this type has no num_output; left out" in capsys.readouterr().out
    assert prototxt.read_net(tmp_path / "out")[0].layer[0].type == "ReLU"


def test_a_file_is_not_written_over_itself(tmp_path, capsys):
    (tmp_path / "in").write_text(OLD_NET)
    os.symlink(tmp_path / "in", tmp_path / "link")
    for target in ("in", "link"):
        assert cli.main(["upgrade", str(tmp_path / "in"), str(tmp_path / target)]) == 1
        assert "would be written over itself" in capsys.readouterr().err
    assert (tmp_path / "in").read_text() == OLD_NET


@pytest.mark.parametrize(
    ("command", "content", "says"),
    [
        ("upgrade_net_proto_text", old_weights().SerializeToString(), "in:"),
        ("upgrade_net_proto_binary", OLD_NET.encode(), "a text file"),
        ("upgrade_solver_proto_text", OLD_NET.encode(), "SolverParameter has no field 'name'"),
        ("upgrade", b"layers { } layer { }", "same form"),
    ],
)
def test_what_cannot_be_upgraded_leaves_nothing(command, content, says, tmp_path, capsys):
    (tmp_path / "in").write_bytes(content)
    assert cli.main([command, str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert says in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["in"]


def test_unwritable_and_missing_files(tmp_path, capsys):
    (tmp_path / "in").write_text(OLD_NET)
    assert cli.main(["upgrade", str(tmp_path / "in"), str(tmp_path / "nowhere" / "out")]) == 1
    assert "cannot be written: No such file" in capsys.readouterr().err
    assert cli.main(["upgrade", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 1
    assert "cannot be read: No such file" in capsys.readouterr().err
    with pytest.raises(CaffeError, match="cannot be read"):
        upgrade_file.detect_kind(tmp_path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"# c\nlayer { }", "net text"),
        (b"\xef\xbb\xbfbase_lr: 1", "solver text"),
        (b"debug_info: true layer { }", "net text"),  # both kinds have this field
        ("name: '\u7f51'".encode(), "net text"),
        (b"\n\x01n", "net binary"),
    ],
)
def test_kinds_are_told_by_content(content, kind, tmp_path):
    (tmp_path / "x").write_bytes(content)
    assert upgrade_file.detect_kind(tmp_path / "x") == kind and kind in upgrade_file.KINDS
