"""Caffe's messages, as pycaffe's ``caffe_pb2`` offers them.

Every message, enum and enum value of ``caffe.proto`` is a global of this module:
``NetParameter``, ``Phase``, ``TRAIN``; nested ones hang on their message: ``PoolingParameter.MAX``.
Descriptors have the names that protoc gives them: ``_NETPARAMETER``, ``_V1LAYERPARAMETER_LAYERTYPE``.
The classes are made at import from ``caffe.proto``, in a descriptor pool of their own: a process
may also hold pycaffe's, or another framework's, ``caffe_pb2`` under the same names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from caffe_lite.proto.schema import parse_proto

_SCHEMA = Path(__file__).with_name("caffe.proto")


def _build(namespace: dict[str, Any]) -> Any:
    """Put every top-level message and enum into ``namespace``; returns the file's descriptor."""
    pool = descriptor_pool.DescriptorPool()
    schema = parse_proto(_SCHEMA.read_text(encoding="utf-8"), "caffe_lite/proto/caffe.proto")
    pool.AddSerializedFile(schema.SerializeToString())
    descriptor = pool.FindFileByName(schema.name)
    for name, enum in descriptor.enum_types_by_name.items():
        namespace[name] = EnumTypeWrapper(enum)
        namespace.update((value.name, value.number) for value in enum.values)
    for name, message in descriptor.message_types_by_name.items():
        namespace[name] = message_factory.GetMessageClass(message)
        namespace[name].__module__ = __name__  # so that copy and multiprocessing find the class again
        namespace[f"_{name.upper()}"] = message
        for enum_name, enum in message.enum_types_by_name.items():
            namespace[f"_{name.upper()}_{enum_name.upper()}"] = enum
    return descriptor


DESCRIPTOR = _build(globals())
