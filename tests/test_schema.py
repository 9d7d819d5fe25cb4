"""caffe.proto is Caffe's schema, field for field: compared with a table made from Caffe's own descriptors."""

from __future__ import annotations

import copy
import csv
import pickle
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from caffe_lite.proto import caffe_pb2, schema

TABLE = Path(__file__).parent / "golden" / "caffe_schema.tsv"
Field = descriptor_pb2.FieldDescriptorProto


def read_table():
    """The rows of the table by (message, name); where Caffe and its forks differ, the row of Caffe 1.0."""
    rows = {}
    with open(TABLE, newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            key = row["message"], row["field"]
            if key not in rows or "bvlc" in row["present_in"].split(","):
                rows[key] = row
    return rows


def described():
    """The same of our schema: (message, name) -> (descriptor, descriptor as protobuf message)."""
    file = descriptor_pb2.FileDescriptorProto()
    caffe_pb2.DESCRIPTOR.CopyToProto(file)
    fields, values = {}, {}

    def enum(proto, scope):
        values.update({(scope + proto.name, v.name): v.number for v in proto.value})

    for proto in file.enum_type:
        enum(proto, "")
    for message in file.message_type:
        for proto in message.enum_type:
            enum(proto, message.name + ".")
        for proto in message.field:
            descriptor = caffe_pb2.DESCRIPTOR.message_types_by_name[message.name].fields_by_name[proto.name]
            fields[message.name, proto.name] = descriptor, proto
    return fields, values


ROWS = read_table()
FIELDS, VALUES = described()


def test_the_same_fields_and_enum_values_and_no_others():
    assert {key for key, row in ROWS.items() if row["kind"] == "field"} == set(FIELDS)
    assert {key: int(row["number"]) for key, row in ROWS.items() if row["kind"] == "enum_value"} == VALUES
    assert len(FIELDS) == 430 and len(VALUES) == 111


@pytest.mark.parametrize("message", sorted({m for m, _ in FIELDS}))
def test_number_label_type_packed_of_every_field(message):
    for (owner, name), (_, proto) in FIELDS.items():
        if owner != message:
            continue
        row = ROWS[owner, name]
        kind = Field.Type.Name(proto.type).removeprefix("TYPE_").lower()
        if proto.type_name:
            kind += ":" + proto.type_name.removeprefix(".caffe.")
        label = Field.Label.Name(proto.label).removeprefix("LABEL_").lower()
        assert (proto.number, label, kind) == (int(row["number"]), row["label"], row["type"]), name
        assert proto.options.packed == (row["packed"] == "true"), name


def test_default_of_every_field():
    for key, (descriptor, proto) in FIELDS.items():
        text = ROWS[key]["default"]
        assert descriptor.has_default_value == (text != ""), key
        if not text:
            continue
        if proto.type == Field.TYPE_ENUM:
            assert descriptor.enum_type.values_by_number[descriptor.default_value].name == text, key
        elif proto.type == Field.TYPE_FLOAT:
            assert np.float32(descriptor.default_value) == np.float32(text), key
        else:
            assert str(descriptor.default_value).lower() == text.lower(), key


def test_globals_are_those_of_pycaffe():
    assert (caffe_pb2.TRAIN, caffe_pb2.TEST) == (0, 1)
    assert caffe_pb2.Phase.Name(1) == "TEST" and caffe_pb2.Phase.Value("TRAIN") == 0
    assert caffe_pb2.PoolingParameter.AVE == caffe_pb2.PoolingParameter.PoolMethod.Value("AVE") == 1
    assert caffe_pb2.V1LayerParameter.DECONVOLUTION == 39
    layer = caffe_pb2.NetParameter().layer.add(convolution_param={"pad": [3]})
    assert type(layer) is caffe_pb2.LayerParameter and layer.lrn_param.beta == 0.75
    for made in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert made == layer and type(made) is caffe_pb2.LayerParameter


def test_descriptors_have_protocs_names():
    assert caffe_pb2._POOLINGPARAMETER is caffe_pb2.PoolingParameter.DESCRIPTOR
    assert caffe_pb2._V1LAYERPARAMETER_LAYERTYPE.values_by_name["CONVOLUTION"].number == 4


def test_another_caffe_pb2_in_the_process_does_not_clash():
    text = "package caffe; message NetParameter { optional int32 x = 1; }"
    other = schema.parse_proto(text, "caffe.proto")
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(other.SerializeToString())
    theirs = message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))
    assert theirs(x=3).x == 3 and caffe_pb2.NetParameter(name="ours").name == "ours"


def test_a_message_added_to_the_schema_is_usable_at_once():
    text = """
        syntax = "proto2";  // a comment
        package p; /* another
        one */
        message Outer {
          message Inner { required sint64 a = 1 [deprecated = true]; }
          enum Kind { LOW = -1; HIGH = 0x10; }
          repeated Inner inner = 1;
          optional Kind kind = 2 [default = HIGH];
          repeated double packed = 3 [packed = true, deprecated = false];
          optional string optional = 4 [default = "a // b"];
        }"""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(schema.parse_proto(text, "p.proto").SerializeToString())
    outer = message_factory.GetMessageClass(pool.FindMessageTypeByName("p.Outer"))(inner=[{"a": -7}], packed=[1, 2])
    assert (outer.kind, outer.optional, outer.inner[0].a) == (16, "a // b", -7)
    assert type(outer).FromString(outer.SerializeToString()) == outer
    assert outer.Kind.Value("LOW") == -1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('syntax = "proto3";', ":1: only proto2"),
        ("message A {\n optional B b = 1;\n}", ":2: field b has the unknown type B"),
        ("message A {\n\n optional int32 b 1; }", ":3: expected =, got 1"),
        ("message A { optional int32 b = x; }", ":1: expected a number, got x"),
        ("message A { optional int32 b = 1 [lazy = true]; }", ":1: option lazy = true is not understood"),
        ("message A { oneof x { } }", ":1: expected a field, enum or message in A, got oneof"),
        ("message A {", ":1: expected more, got the end of the file"),
        ("message A { § }", ":1: unexpected '§'"),
    ],
)
def test_what_the_schema_reader_does_not_understand_has_a_place(text, place):
    with pytest.raises(schema.SchemaError) as error:
        schema.parse_proto(text, "x.proto")
    assert str(error.value).startswith("x.proto" + place)
