"""The prototxt reader: equal to google.protobuf.text_format on what that accepts, strict, and exact about places."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite import prototxt
from caffe_lite.errors import PrototxtError
from caffe_lite.proto import caffe_pb2

HERE = Path(__file__).parent
FILES = sorted([*HERE.glob("golden/**/*.prototxt"), *HERE.parent.glob("models/**/*.prototxt")])
QUICK = settings(derandomize=True, deadline=None, max_examples=150)


def net(text):
    message = caffe_pb2.NetParameter()
    prototxt.parse(text, message, "n.prototxt")
    return message


def layer(text):
    return net("layer { " + text + " }").layer[0]


# ---- the oracle

RANGES = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1), "int64": (-(2**63), 2**63 - 1)}
SCALARS = {
    **{name: st.integers(low, high) for name, (low, high) in RANGES.items()},
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "string": st.text(max_size=12),
    "bytes": st.binary(max_size=12),
}


@st.composite
def messages(draw, message_class=caffe_pb2.NetParameter):
    message = message_class()
    fill(draw, message)
    return message


def fill(draw, message):
    """Give values to some fields of ``message``, required ones included."""
    known = prototxt._fields_of(message.DESCRIPTOR)
    chosen = draw(st.lists(st.sampled_from(sorted(known)), max_size=4, unique=True))
    for name in [*chosen, *(f.name for f in known.values() if f.required and f.name not in chosen)]:
        field = known[name]
        for _ in range(draw(st.integers(1, 3)) if field.repeated else 1):
            if field.message is not None:
                part = getattr(message, name)
                part = part.add() if field.repeated else part
                if not field.repeated:
                    part.SetInParent()
                fill(draw, part)
                continue
            choices = st.sampled_from(sorted(field.enum.values_by_number)) if field.enum else SCALARS[field.type]
            if field.repeated:
                getattr(message, name).append(draw(choices))
            else:
                setattr(message, name, draw(choices))


@QUICK
@given(messages(), st.booleans(), st.booleans(), st.booleans())
def test_reads_whatever_protobuf_writes(message, one_line, short, utf8):
    text = text_format.MessageToString(message, as_one_line=one_line, use_short_repeated_primitives=short, as_utf8=utf8)
    assert net(text) == message


@QUICK
@given(messages(caffe_pb2.SolverParameter))
def test_protobuf_reads_whatever_we_write(message):
    assert text_format.Parse(prototxt.write(message), caffe_pb2.SolverParameter()) == message


SEED_TEXT = """name: "x" layer { name: 'a' top: "b\\n" phase: TEST loss_weight: [1.5, -2e3f] include < stage: "s" > }
input_shape { dim: 0x1f dim: 017, dim: -3; } force_backward: true layer: { clip_param { min: -1 max: inf } }"""


PIECES = st.text("{}<>[]:;,\"'-.0e1xft#\\ \n_a", max_size=2)


@QUICK
@given(st.lists(st.tuples(st.integers(0, len(SEED_TEXT)), st.integers(0, 3), PIECES), max_size=3))
def test_a_damaged_text_is_refused_or_read_as_protobuf_reads_it(edits):
    text = SEED_TEXT
    for position, removed, added in edits:
        text = text[:position] + added + text[position + removed :]
    try:
        ours = net(text)
    except PrototxtError as error:
        assert str(error).startswith("n.prototxt:")
        return
    assert text_format.Parse(text, caffe_pb2.NetParameter()) == ours


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_files_are_read_as_protobuf_reads_them(path):
    read = prototxt.read_solver if "solver" in path.name else prototxt.read_net
    message, _ = read(path)
    assert message == text_format.Parse(path.read_text(), type(message)())


# ---- the language


@pytest.mark.parametrize(
    "text",
    [
        "layer { name: 'a' } layer { name: 'b' }",
        "layer: { name: 'a' }; layer: { name: 'b' },",
        "layer < name: 'a' > layer: < name: 'b', >",
        "layer [ { name: 'a' }, < name: 'b' > ]",
        "layer: [{name:'a'},{name:'b'}]",
        "\ufefflayer{name:'a'}layer{name:'b'}# the end",
        "# first\nlayer {# second\n name : # third\n 'a'}\r\nlayer\n{\nname\n:\n\"b\"\n}",
    ],
)
def test_ways_to_write_a_message(text, tmp_path):
    (tmp_path / "n.prototxt").write_text(text, encoding="utf-8")
    read, _ = prototxt.read_net(tmp_path / "n.prototxt")
    assert [part.name for part in read.layer] == ["a", "b"]


def test_numbers():
    whole = net("input_dim: [1, -2, 0x1F, -0X10, 017, 0, -0]  input_dim: 7").input_dim
    assert list(whole) == [1, -2, 31, -16, 15, 0, 0, 7]
    assert net("input_dim: []").input_dim == []
    text = "loss_weight: [1, -.5, 2., 3f, 4.5F, 1e3, 1E-2f, inf, -INF, Infinity, 1e99, nan, -nan]"
    floats = list(layer(text).loss_weight)
    assert floats[:6] == [1, -0.5, 2, 3, 4.5, 1000]
    assert floats[6] == pytest.approx(0.01) and floats[7:11] == [math.inf, -math.inf, math.inf, math.inf]
    assert all(map(math.isnan, floats[11:]))
    assert math.copysign(1, layer("loss_weight: -0").loss_weight[0]) == -1


def test_booleans_and_enums():
    assert list(layer("propagate_down: [true, True, t, 1, false, False, f, 0, 0x1]").propagate_down) == [True] * 4 + [
        False
    ] * 4 + [True]
    assert layer("phase: TEST").phase == layer("phase: 1").phase == 1


def test_strings():
    assert (
        net(r"""name: "a" 'b'  # and
        "c\n\t\\\"\'\x41\101\u00e9\U0001F600é" """).name
        == "abc\n\t\\\"'AAé😀é"
    )
    message = caffe_pb2.Datum()
    prototxt.parse(r"data: '\377\x0\000a'", message)
    assert message.data == b"\xff\x00\x00a"


def test_an_empty_file_is_an_empty_message():
    assert net("") == net(" # nothing\n") == caffe_pb2.NetParameter()


# ---- errors: the place, and what to do

ERRORS = [
    ('name: "n"\nlayer {\n  nam: "a"\n}', "3:3", "LayerParameter has no field 'nam'; did you mean 'name'?"),
    ("layer { kernel_size: 3 }", "1:9", "it belongs inside convolution_param or pooling_param { }"),
    ("layer { lr_mult: 1 }", "1:9", "it belongs inside param { }"),
    ("base_lr: 0.1", "1:1", "it is a field of SolverParameter"),
    ("name: 'a'\nname: 'b'", "2:1", "name is given twice, first at n.prototxt:1:1"),
    ("state { } state { }", "1:11", "state is given twice, first at n.prototxt:1:1"),
    ("layer { phase: TRIAN }", "1:16", "phase takes TRAIN, TEST; got 'TRIAN'; did you mean 'TRAIN'?"),
    ("layer { phase: 'TRAIN' }", "1:16", "write TRAIN without quotes"),
    ("layer { phase: 2 }", "1:16", "got '2'"),
    ("layers { type: CONVOLUTIONS }", "1:16", "did you mean 'CONVOLUTION'?"),
    ("input_dim: 2147483648", "1:12", "int32, -2147483648 to 2147483647; got 2147483648"),
    ("input_shape { dim: 9223372036854775808 }", "1:20", "int64"),
    ("input_dim: " + "9" * 5000, "1:12", "takes a whole number"),
    ("layer { convolution_param { num_output: -1 } }", "1:41", "uint32, 0 to 4294967295; got -1"),
    ("input_dim: 3.0", "1:12", "takes a whole number (int32), got '3.0'"),
    ("input_dim: 08", "1:12", "takes a whole number"),
    ("input_dim: 12px", "1:12", "got '12px'"),
    ("input_dim: [1 2]", "1:15", "expected ',' or ']'"),
    ("input_dim: [1, ]", "1:16", "takes a whole number"),
    ("layer { loss_weight: 0x10 }", "1:22", "takes a number (float), got '0x10'"),
    ("layer { loss_weight: '1' }", "1:22", "takes a number (float), got '1'"),
    ("force_backward: 2", "1:17", "takes true or false, got '2'"),
    ("force_backward: yes", "1:17", "takes true or false, got 'yes'"),
    ("name: net", "1:7", 'write name: "net"'),
    ("name: 'a\nb'", "1:7", "not closed on its line"),
    ("name: \"a' ", "1:7", "not closed on its line"),
    (r"name: 'a\q'", "1:7", r"unknown escape \q"),
    (r"name: '\ud800'", "1:7", "unknown escape"),
    (r"name: '\400'", "1:7", r"unknown escape \400"),
    (r"name: '\xff'", "1:7", "do not give UTF-8"),
    ("name 'a'", "1:6", "expected ':' after name"),
    ("name: ['a']", "1:7", "takes one value and not a list"),
    ("layer: 3", "1:8", "layer is a LayerParameter: expected '{', got '3'"),
    ("layer {\n top: 'a'", "2:10", "the file ends inside layer[0], opened at n.prototxt:1:1: expected '}'"),
    ("layer { } }", "1:11", "'}' closes nothing"),
    ("layer < }", "1:9", "'}' closes nothing"),
    ("[a.b] { }", "1:1", "not part of Caffe's schema"),
    ("layer { clip_param { min: 1 } }", "1:9", "ClipParameter needs max"),
    ("3: 4", "1:1", "expected the name of a field"),
    ("name: 'a';;", "1:11", "expected the name of a field"),
]


@pytest.mark.parametrize(("text", "place", "says"), ERRORS, ids=[t[0][:30] for t in ERRORS])
def test_errors_say_where_and_what(text, place, says):
    with pytest.raises(PrototxtError) as error:
        net(text)
    assert str(error.value).startswith(f"n.prototxt:{place}: ")
    assert says in str(error.value)
    if "escape" not in says and "needs" not in says:  # refused by protobuf's C++ reader, which is Caffe's
        with pytest.raises(text_format.ParseError):
            text_format.Parse(text, caffe_pb2.NetParameter())


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(PrototxtError, match=r"nowhere\.prototxt: cannot be read: No such file"):
        prototxt.read_net(tmp_path / "nowhere.prototxt")
    with pytest.raises(PrototxtError, match="cannot be read"):
        prototxt.read_solver(tmp_path)
    bad = tmp_path / "latin.prototxt"
    bad.write_bytes(b"# one\nname: 'caf\xe9'\n")
    with pytest.raises(PrototxtError, match=r"latin\.prototxt:2:11: not UTF-8 text \(byte 0xe9\)"):
        prototxt.read_net(bad)
    bad.write_bytes(b"\x0a\x00\xff")
    with pytest.raises(PrototxtError, match="looks like a binary file"):
        prototxt.read_net(bad)


def test_size_and_depth_are_capped(monkeypatch, tmp_path):
    monkeypatch.setattr(prototxt, "MAX_BYTES", 1 << 20)
    (tmp_path / "n.prototxt").write_text("#" * ((1 << 20) + 1))
    with pytest.raises(PrototxtError, match=r"n\.prototxt: larger than 1 MiB"):
        prototxt.read_net(tmp_path / "n.prototxt")
    with pytest.raises(PrototxtError, match="larger than 1 MiB"):
        net(" " * ((1 << 20) + 1))
    monkeypatch.setattr(prototxt, "MAX_DEPTH", 2)
    assert net("layer { convolution_param { } }")
    with pytest.raises(PrototxtError, match="1:45: nested more than 2 deep"):
        net("layer { convolution_param { weight_filler : { } } }")


# ---- positions


def test_positions_of_fields_elements_and_what_is_not_there():
    text = 'name: "n"\n\nlayer {\n  bottom: "a" bottom: "b"\n  param [ { }, { lr_mult: 2 } ]\n}\n  layer { }'
    message = caffe_pb2.NetParameter()
    at = prototxt.parse(text, message, "n.prototxt").at
    assert at(("name",)) == "n.prototxt:1:1"
    assert at(("layer", 0)) == "n.prototxt:3:1" and at(("layer", 1)) == "n.prototxt:7:3"
    assert at(("layer", 0, "bottom", 1)) == "n.prototxt:4:15"
    assert at(("layer", 0, "param", 1)) == "n.prototxt:5:16"
    assert at(("layer", 0, "param", 1, "lr_mult")) == "n.prototxt:5:18"
    assert at(("layer", 1, "type")) == "n.prototxt:7:3"  # not given: the layer
    assert at(("state", "phase")) == "n.prototxt"  # nothing of it is given: the file


def test_an_escaped_end_of_line_does_not_go_on():
    for text in ("name: 'a\\\nb'", "name: 'a\\"):
        with pytest.raises(PrototxtError, match=r":1:7: name: the string is not closed on its line"):
            prototxt.parse(text, caffe_pb2.NetParameter())
