"""Read and write prototxt: protobuf's text format, strictly, with the place of every error.

The language is protobuf's for proto2 messages: ``name: value`` and ``name { ... }`` (also
``name: { ... }`` and ``< ... >``), lists ``[1, 2]``, an optional ``,`` or ``;`` after a field,
``#`` comments, adjacent strings that join, decimal, octal and hexadecimal integers, floats with an
``f``, ``inf`` and ``nan``, enums by name or number. What Caffe refuses is refused here too: an
unknown field, a field given twice that is not repeated, a value that does not fit its type. The
reader is our own because google.protobuf's knows neither the file's name nor the near miss.
"""

from __future__ import annotations

import bisect
import functools
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from caffe_lite import prototxt_tokens as tokens
from caffe_lite.errors import PrototxtError, did_you_mean
from caffe_lite.proto import caffe_pb2
from caffe_lite.prototxt_tokens import Token, scan

MAX_BYTES = 16 << 20  # weights belong in a .caffemodel; the nets of the largest models in text have not 1 MiB
MAX_DEPTH = 100

FieldPath = tuple  # of field names and, after a repeated one, an index: ("layer", 3, "param", 0)


class Positions:
    """Where in a file each field stands.

    Known for every field that was given; in repeated numbers for the first only.
    """

    def __init__(self, filename: str, text: str, offsets: dict[FieldPath, int]):
        self.filename = filename
        self._text = text
        self._offsets = offsets

    def at(self, path: FieldPath) -> str:
        """``"file:line:column"`` (from 1) of a field; of what encloses it if that is all that is known."""
        while path and path not in self._offsets:
            path = path[:-1]
        return self.locate(self._offsets[path]) if path else self.filename

    def locate(self, offset: int) -> str:
        """``"file:line:column"`` of a character of the text."""
        line, column = _line_column(self._line_starts, offset)
        return f"{self.filename}:{line}:{column}"

    @functools.cached_property
    def _line_starts(self) -> list[int]:
        return _line_starts(self._text)

    def moved(self, rule: Callable[[FieldPath], FieldPath | None]) -> Positions:
        """The positions of a changed message: what stood at ``path`` is now at ``rule(path)``, nowhere if None."""
        places = ((rule(path), at) for path, at in self._offsets.items())
        return Positions(self.filename, self._text, {path: at for path, at in places if path is not None})


def read_net(path: str | os.PathLike[str]) -> tuple[Any, Positions]:
    """The NetParameter in a prototxt file, not upgraded, and where each field stands.

    Raises:
        PrototxtError: the file is missing, too large, not UTF-8, or not a net.
    """
    return _read(path, caffe_pb2.NetParameter())


def read_solver(path: str | os.PathLike[str]) -> tuple[Any, Positions]:
    """The SolverParameter in a prototxt file, not upgraded, and where each field stands.

    Raises:
        PrototxtError: the file is missing, too large, not UTF-8, or not a solver.
    """
    return _read(path, caffe_pb2.SolverParameter())


def _read(path: str | os.PathLike[str], message: Any) -> tuple[Any, Positions]:
    path = os.fspath(path)
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise PrototxtError(f"{path}: cannot be read: {error.strerror or error}") from error
    _check_size(path, len(content))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        hint = "; this looks like a binary file, expected a prototxt" if b"\0" in content else ""
        byte = f"0x{content[error.start]:02x}"
        raise PrototxtError(f"{path}:{line}:{column}: not UTF-8 text (byte {byte}){hint}") from error
    return message, parse(text, message, path)


def parse(text: str, message: Any, filename: str = "<string>") -> Positions:
    """Fill the empty ``message`` from prototxt ``text``; returns where each field stands.

    Raises:
        PrototxtError: at the first mistake, as ``file:line:column: what was expected and found``.
    """
    _check_size(filename, len(text))
    parser = _Parser(text, filename)
    parser.fields(message, (), end="", opened_at=0)
    return parser.positions


def write(message: Any) -> str:
    """``message`` as prototxt, which ``parse`` reads back to an equal message."""
    from google.protobuf import text_format  # slow to import, seldom needed

    return text_format.MessageToString(message, as_utf8=True)


def _check_size(filename: str, size: int) -> None:
    if size > MAX_BYTES:
        raise PrototxtError(
            f"{filename}: larger than {MAX_BYTES >> 20} MiB, the limit for a prototxt; weights belong in a .caffemodel"
        )


def _line_starts(text: str) -> list[int]:
    return [0, *(match.end() for match in re.finditer("\n", text))]


def _line_column(starts: list[int], offset: int) -> tuple[int, int]:
    line = bisect.bisect_right(starts, offset)
    return line, offset - starts[line - 1] + 1


# ---- the fields of a message, in a form that is the same in every version of protobuf


class _Field(NamedTuple):
    name: str
    type: str  # int32, float, string, ..., enum, message
    repeated: bool
    required: bool
    enum: Any  # its EnumDescriptor, or None
    message: Any  # its Descriptor, or None


@functools.cache
def _fields_of(descriptor: Any) -> dict[str, _Field]:
    return {
        field.name: _Field(
            name=field.name,
            type=FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower(),
            repeated=_has_label(field, "repeated"),
            required=_has_label(field, "required"),
            enum=field.enum_type,
            message=field.message_type,
        )
        for field in descriptor.fields
    }


def _has_label(field: Any, label: str) -> bool:
    if hasattr(field, "is_repeated"):  # protobuf 6.31 and later; 7 has no field.label
        return getattr(field, f"is_{label}")
    return field.label == getattr(field, f"LABEL_{label.upper()}")


_BOOLS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
_RANGES = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "uint32": (0, (1 << 32) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint64": (0, (1 << 64) - 1),
}


class _Parser:
    """Recursive descent with one token of look-ahead."""

    def __init__(self, text: str, filename: str):
        self.text = text
        self.offsets: dict[FieldPath, int] = {}
        self.positions = Positions(filename, text, self.offsets)
        self.depth = 0
        self.token = scan(text, 0)

    def next(self) -> Token:
        token = self.token
        self.token = scan(self.text, token.offset + len(token.text))
        return token

    def take(self, marks: str) -> bool:
        """Step over the next token if it is one of the characters ``marks``."""
        if self.token.kind == "mark" and self.token.text in marks:
            self.next()
            return True
        return False

    def fail(self, message: str, offset: int | None = None) -> NoReturn:
        where = self.positions.locate(self.token.offset if offset is None else offset)
        raise PrototxtError(f"{where}: {message}")

    # ---- messages

    def fields(self, message: Any, path: FieldPath, end: str, opened_at: int) -> None:
        """Everything up to ``end`` ("}", ">", or "" for the end of the file) into ``message``."""
        descriptor = message.DESCRIPTOR
        known = _fields_of(descriptor)
        counts: dict[str, int] = {}
        while not (self.token.text == end and self.token.kind in ("mark", "end")):
            token = self.token
            if token.kind == "end":
                opened = self.positions.locate(opened_at)
                self.fail(f"the file ends inside {path_text(path)}, opened at {opened}: expected {end!r}")
            if token.kind != "word":
                self.fail(self._no_name(token, descriptor))
            field = known.get(token.text)
            if field is None:
                self.fail(f"{descriptor.name} has no field {token.text!r}{_near_field(token.text, descriptor)}")
            count = counts.get(field.name, 0)
            if count and not field.repeated:
                first = self.positions.at((*path, field.name))
                self.fail(f"{field.name} is given twice, first at {first}; {descriptor.name} takes it once")
            self.next()
            counts[field.name] = count + self.field(message, field, path, count, token.offset)
            self.take(",;")
        for field in known.values():
            if field.required and field.name not in counts:
                self.fail(f"{path_text(path)}: {descriptor.name} needs {field.name}", opened_at)
        self.next()

    def _no_name(self, token: Token, descriptor: Any) -> str:
        if token.kind == "mark" and token.text in "}>":
            return f"{token.text!r} closes nothing that is open here"
        if token.kind == "mark" and token.text == "[":
            return "extensions and Any ([...] as a field name) are not part of Caffe's schema"
        return f"expected the name of a field of {descriptor.name}, got {token}"

    def field(self, message: Any, field: _Field, path: FieldPath, count: int, offset: int) -> int:
        """The value or list of values after a field's name; returns how many there were."""
        path = (*path, field.name)
        self.offsets.setdefault(path, offset)
        colon = self.take(":")
        if not colon and field.message is None:
            self.fail(f"expected ':' after {field.name}, got {self.token}")
        if not (self.token.kind == "mark" and self.token.text == "["):
            self.value(message, field, path, count, offset)
            return 1
        if not field.repeated:
            self.fail(f"{field.name} is not repeated, so it takes one value and not a list")
        self.next()
        given = 0
        while not self.take("]"):
            if given and not self.take(","):
                self.fail(f"expected ',' or ']' in the list of {field.name}, got {self.token}")
            self.value(message, field, path, count + given, self.token.offset)
            given += 1
        return given

    def value(self, message: Any, field: _Field, path: FieldPath, index: int, offset: int) -> None:
        if field.message is not None:
            opening = self.token
            if not self.take("{<"):
                self.fail(f"{field.name} is a {field.message.name}: expected '{{', got {self.token}")
            self.depth += 1
            if self.depth > MAX_DEPTH:
                self.fail(f"nested more than {MAX_DEPTH} deep", opening.offset)
            if field.repeated:
                path = (*path, index)
                self.offsets[path] = offset
                part = getattr(message, field.name).add()
            else:
                part = getattr(message, field.name)
                part.SetInParent()
            self.fields(part, path, "}" if opening.text == "{" else ">", offset)
            self.depth -= 1
            return
        result = self.scalar(field)
        if field.repeated:
            if field.type == "string":
                path = (*path, index)
                self.offsets[path] = offset
            getattr(message, field.name).append(result)
        else:
            setattr(message, field.name, result)

    # ---- scalars

    def scalar(self, field: _Field) -> Any:
        if field.type == "enum":
            return self.enum(field)
        if field.type == "bool":
            return self.bool(field)
        if field.type in ("string", "bytes"):
            return self.string(field)
        if field.type in ("float", "double"):
            return self.float(field)
        return self.integer(field)

    def integer(self, field: _Field) -> int:
        sign, token, offset = self.signed()
        value = tokens.integer(token)
        if value is None:
            self.fail(f"{field.name} takes a whole number ({field.type}), got {sign}{token}", offset)
        value = -value if sign else value
        low, high = _RANGES[field.type]
        if not low <= value <= high:
            self.fail(f"{field.name} is of type {field.type}, {low} to {high}; got {value}", offset)
        return value

    def float(self, field: _Field) -> float:
        sign, token, offset = self.signed()
        value = tokens.decimal(token)
        if value is None:
            self.fail(f"{field.name} takes a number ({field.type}), got {sign}{token}", offset)
        return -value if sign else value

    def signed(self) -> tuple[str, Token, int]:
        """A possible minus sign, the token after it, and where the two begin."""
        offset = self.token.offset
        sign = "-" if self.take("-") else ""
        return sign, self.next(), offset

    def bool(self, field: _Field) -> bool:
        token = self.next()
        value = _BOOLS.get(token.text) if token.kind == "word" else tokens.integer(token)
        if value not in (0, 1):
            self.fail(f"{field.name} takes true or false, got {token}", token.offset)
        return bool(value)

    def enum(self, field: _Field) -> int:
        sign, token, offset = self.signed()
        names = field.enum.values_by_name
        if token.kind == "word" and not sign and token.text in names:
            return names[token.text].number
        value = tokens.integer(token)
        if value is not None and (-value if sign else value) in field.enum.values_by_number:
            return -value if sign else value
        choices = ", ".join(names) if len(names) <= 8 else f"one of the {len(names)} names of {field.enum.name}"
        given = token.text.strip("\"'")
        near = did_you_mean(given, list(names))
        if token.kind == "string" and given in names:
            near = f"; write {given} without quotes"
        self.fail(f"{field.name} takes {choices}; got {sign}{token}{near}", offset)

    def string(self, field: _Field) -> str | bytes:
        first = self.token
        pieces = []
        while self.token.kind == "string":
            token = self.next()
            try:
                pieces.append(tokens.unescape(token))
            except ValueError as error:
                self.fail(f"{field.name}: unknown escape {error} in the string", token.offset)
        if self.token.kind == "open":
            self.fail(f"{field.name}: the string is not closed on its line")
        if first.kind != "string":
            hint = f'; write {field.name}: "{first.text}"' if first.kind in ("word", "number") else ""
            self.fail(f"{field.name} takes a string in quotes, got {first}{hint}", first.offset)
        content = b"".join(pieces)
        if field.type == "bytes":
            return content
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            self.fail(f"{field.name}: the escapes do not give UTF-8 text ({error.reason})", first.offset)


def path_text(path: FieldPath) -> str:
    """``layer[3].param[0]`` for ``("layer", 3, "param", 0)``."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).lstrip(".") or "the file"


def _near_field(name: str, descriptor: Any) -> str:
    """The likely fix for a field that ``descriptor`` does not have."""
    known = _fields_of(descriptor)
    inside = [f.name for f in known.values() if f.message is not None and name in f.message.fields_by_name]
    if inside:
        some = inside if len(inside) <= 3 else [*inside[:3], "..."]
        return f"; it belongs inside {' or '.join(some)} {{ }}"
    for other in (caffe_pb2.NetParameter, caffe_pb2.SolverParameter):
        if descriptor is not other.DESCRIPTOR and _is_root(descriptor) and name in other.DESCRIPTOR.fields_by_name:
            return f"; it is a field of {other.DESCRIPTOR.name}: is this the right kind of file?"
    return did_you_mean(name, list(known))


def _is_root(descriptor: Any) -> bool:
    return descriptor.full_name in ("caffe.NetParameter", "caffe.SolverParameter")
