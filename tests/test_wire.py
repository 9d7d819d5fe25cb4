"""Protobuf's wire format, against protobuf's own encoder and the rules of the format."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite import wire
from caffe_lite.proto import caffe_pb2

CONTENT = caffe_pb2.SolverParameter(
    net="n", base_lr=1, stepvalue=[1, 300], random_seed=-1, test_state=[caffe_pb2.NetState(level=-5)]
).SerializeToString()


def contents(data):
    return wire.BytesContent(data), wire.FileContent(io.BytesIO(data), len(data))


def parts(data):
    """[(number, wire type, value's bytes)], the same from memory and from a file."""
    seen = [[(f.number, f.wire_type, data[f.start : f.end]) for f in wire.fields(c)] for c in contents(data)]
    assert seen[0] == seen[1]
    return seen[0]


def test_fields_of_a_message(monkeypatch):
    monkeypatch.setattr(wire.FileContent, "WINDOW", 3)
    minus_one = b"\xff" * 9 + b"\x01"  # negative numbers are 64 bits wide
    assert parts(CONTENT) == [
        (5, 5, b"\0\0\x80\x3f"),
        (20, 0, minus_one),
        (24, 2, b"n"),
        (27, 2, b"\x10" + b"\xfb" + b"\xff" * 8 + b"\x01"),
        (34, 0, b"\x01"),
        (34, 0, b"\xac\x02"),
    ]


@given(st.integers(0, (1 << 64) - 1))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_varints(value):
    assert parts(wire.tag(1, 0) + wire.varint(value)) == [(1, 0, wire.varint(value))]
    if value < 1 << 63:
        assert wire.tag(20, 0) + wire.varint(value) == caffe_pb2.SolverParameter(random_seed=value).SerializeToString()


def test_groups():
    inner = wire.delimited(1, b"abc") + wire.tag(2, 3) + wire.tag(2, 4)
    data = wire.tag(9, 3) + inner + wire.tag(9, 4) + wire.delimited(3, b"x")
    assert parts(data) == [(9, 3, inner + wire.tag(9, 4)), (3, 2, b"x")]


def deep(depth):
    return wire.tag(1, 3) * depth + wire.tag(1, 4) * depth


def test_depth_of_groups():
    assert len(parts(deep(wire.MAX_DEPTH))) == 1
    with pytest.raises(wire.WireError, match="nested more than 100 deep"):
        parts(deep(wire.MAX_DEPTH + 1))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x00\x01", "field number 0"),
        (b"\xff\xff\xff\xff\xff\x01", "field number"),  # more than 29 bits
        (b"\x0f", "wire type 7"),
        (b"\x0c", "wire type 4"),  # the end of a group that nothing opened
        (b"\x0b\x14", "the end of group 2, which is not open"),
        (b"\x08" + b"\xff" * 10, "more than ten bytes"),
    ],
)
def test_what_no_message_has(data, says):
    with pytest.raises(wire.WireError, match=says):
        parts(data)


@pytest.mark.parametrize(
    ("data", "needed"), [(b"\x08", 2), (b"\x0a\x05abc", 7), (b"\x0d\0", 5), (b"\x09", 9), (b"\x0b", 2)]
)
def test_what_ends_too_early(data, needed):
    with pytest.raises(wire.Truncated) as error:
        parts(data)
    assert error.value.needed == needed


def test_runs_of_unpacked_values():
    one, other = wire.tag(5, 5) + b"abcd", wire.tag(6, 5) + b"abcd"
    for data, expected in ((one * 3, 3), (one * 3 + other, 3), (one + other + one, 1), (one * 3 + b"\x2d\0\0", 3)):
        for content in contents(data):
            assert wire.unpacked_run(content, next(wire.fields(content)), len(data)) == expected
    content = wire.BytesContent(one * 300_000)  # more than are looked at in one go
    assert wire.unpacked_run(content, next(wire.fields(content)), len(content)) == 300_000


def test_a_file_that_became_shorter():
    content = wire.FileContent(io.BytesIO(b"abc"), 10)
    with pytest.raises(wire.Truncated):
        content.read_into(1, memoryview(bytearray(5)))
    with pytest.raises(wire.Truncated):
        content.byte(7)
