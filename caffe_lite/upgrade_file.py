"""Bring a file to the schema of today: what Caffe's tools upgrade_net_proto_text, upgrade_net_proto_binary and
upgrade_solver_proto_text do.

Differs from Caffe's: a file is never written over itself, since a prototxt loses its comments.
"""

from __future__ import annotations

import os
from typing import Any

from caffe_lite import caffemodel, prototxt
from caffe_lite.atomic import atomic_write
from caffe_lite.errors import CaffeError, PrototxtError
from caffe_lite.proto import caffe_pb2
from caffe_lite.prototxt_tokens import scan
from caffe_lite.upgrade import UpgradeReport, upgrade_net, upgrade_solver

KINDS = ("net text", "net binary", "solver text")
_HEAD = 4096  # bytes that are looked at to tell text from binary


def detect_kind(path: str | os.PathLike[str]) -> str:
    """One of KINDS, by the content of a file: is it text, and does it begin as a solver does?

    Raises:
        PrototxtError: the file cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise PrototxtError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from error
    if any(byte < 32 and byte not in b"\t\n\v\f\r" for byte in head):
        return "net binary"
    first = scan(head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace"), 0).text
    solver, net = caffe_pb2.SolverParameter.DESCRIPTOR.fields_by_name, caffe_pb2.NetParameter.DESCRIPTOR.fields_by_name
    return "solver text" if first in solver and first not in net else "net text"


def upgrade_file(
    source: str | os.PathLike[str], target: str | os.PathLike[str], kind: str | None = None
) -> UpgradeReport:
    """Write the file ``source`` of ``kind`` (by default :func:`detect_kind`'s) in today's form to ``target``.

    ``target`` is replaced whole or not at all, and written even if nothing had to change, as by Caffe's tools.

    Raises:
        PrototxtError, WeightsError: ``source`` cannot be read, or is of another kind.
        NetError, SolverError: it contradicts itself.
        CaffeError: ``target`` is ``source``, or cannot be written.
    """
    kind = detect_kind(source) if kind is None else kind
    report = UpgradeReport()
    content = _upgraded(source, kind, report)
    if os.path.exists(target) and os.path.samefile(source, target):
        raise CaffeError(f"{os.fspath(target)}: would be written over itself, and lose its comments; name another file")
    if kind == "net binary":
        caffemodel.write_net(target, content)
        return report
    try:
        with atomic_write(target, "w") as stream:
            stream.write(prototxt.write(content))
    except OSError as error:
        raise CaffeError(f"{os.fspath(target)}: cannot be written: {error.strerror or error}") from error
    return report


def _upgraded(path: str | os.PathLike[str], kind: str, report: UpgradeReport) -> Any:
    """The up-to-date message in a file."""
    if kind == "net binary":
        return caffemodel.read_net(path, report)
    read, upgrade = (prototxt.read_net, upgrade_net) if kind == "net text" else (prototxt.read_solver, upgrade_solver)
    param, positions = read(path)
    upgrade(param, positions, report)
    return param
