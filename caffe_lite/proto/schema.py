"""Read a ``.proto`` file at run time, so that nobody needs protoc.

Understands the part of the proto2 language that ``caffe.proto`` uses: ``syntax``, ``package``,
messages and enums (nested to any depth), optional, required and repeated fields of scalar, enum or
message type, the field options ``default``, ``packed`` and ``deprecated``, and both kinds of
comment. No imports, services, extensions, oneofs or maps. The result is checked once more by
protobuf itself when it enters a descriptor pool.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

_TOKEN = re.compile(
    r"""(?P<space> \s+ | //[^\n]* | /\*.*?\*/ )
      | (?P<string> "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' )
      | (?P<word> -?[A-Za-z0-9_.][A-Za-z0-9_.+-]* )
      | (?P<mark> [{}\[\]=;,] )""",
    re.VERBOSE | re.DOTALL,
)
_LABELS = {
    "optional": FieldDescriptorProto.LABEL_OPTIONAL,
    "required": FieldDescriptorProto.LABEL_REQUIRED,
    "repeated": FieldDescriptorProto.LABEL_REPEATED,
}
_SCALARS = {
    name: FieldDescriptorProto.Type.Value(f"TYPE_{name.upper()}")
    for name in (
        "double float int64 uint64 int32 fixed64 fixed32 bool string bytes uint32 sfixed32 sfixed64 sint32 sint64"
    ).split()
}


class SchemaError(ValueError):
    """A ``.proto`` file that this reader does not understand; the message names file and line."""


def parse_proto(text: str, filename: str) -> FileDescriptorProto:
    """The descriptor of the file whose content is ``text``; ``filename`` becomes its name.

    Raises:
        SchemaError: a syntax error, or a construct or type that is not known.
    """
    return _Parser(text, filename).file()


class _Parser:
    """Recursive descent over the tokens; types are resolved when all names are known."""

    def __init__(self, text: str, filename: str):
        self.filename = filename
        self.result = FileDescriptorProto(name=filename, syntax="proto2")
        self.kinds: dict[str, int] = {}  # full name of each message and enum -> its field type
        self.unresolved: list[tuple[FieldDescriptorProto, str, int]] = []  # field, scope, line
        self.tokens = list(self._tokenise(text))
        self.position = 0

    def _tokenise(self, text: str) -> Iterator[tuple[str, int]]:
        position, line = 0, 1
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise SchemaError(f"{self.filename}:{line}: unexpected {text[position]!r}")
            if match.lastgroup != "space":
                yield match.group(), line
            line += match.group().count("\n")
            position = match.end()
        yield "", line  # the end of the file

    def take(self, expected: str | None = None) -> str:
        """The next token, which must be ``expected`` if that is given."""
        token, _ = self.tokens[self.position]
        if token != expected if expected is not None else not token:
            raise self.error(f"expected {expected or 'more'}, got {token or 'the end of the file'}")
        self.position += 1
        return token

    def error(self, message: str) -> SchemaError:
        return SchemaError(f"{self.filename}:{self.tokens[self.position][1]}: {message}")

    def file(self) -> FileDescriptorProto:
        while self.tokens[self.position][0]:
            word = self.take()
            if word == "syntax":
                self.take("=")
                if self.take().strip("\"'") != "proto2":
                    raise self.error("only proto2 is understood")
                self.take(";")
            elif word == "package":
                self.result.package = self.take()
                self.take(";")
            elif word == "message":
                self.message(self.result.message_type.add(), "." + self.result.package)
            elif word == "enum":
                self.enum(self.result.enum_type.add(), "." + self.result.package)
            else:
                raise self.error(f"expected message or enum, got {word}")
        for field, scope, line in self.unresolved:
            self.resolve(field, scope, line)
        return self.result

    def message(self, result: DescriptorProto, scope: str) -> None:
        result.name = self.take()
        scope = f"{scope}.{result.name}"
        self.kinds[scope] = FieldDescriptorProto.TYPE_MESSAGE
        self.take("{")
        while (word := self.take()) != "}":
            if word in _LABELS:
                self.field(result.field.add(), word, scope)
            elif word == "enum":
                self.enum(result.enum_type.add(), scope)
            elif word == "message":
                self.message(result.nested_type.add(), scope)
            else:
                raise self.error(f"expected a field, enum or message in {result.name}, got {word}")

    def enum(self, result: EnumDescriptorProto, scope: str) -> None:
        result.name = self.take()
        self.kinds[f"{scope}.{result.name}"] = FieldDescriptorProto.TYPE_ENUM
        self.take("{")
        while (name := self.take()) != "}":
            self.take("=")
            result.value.add(name=name, number=self.integer())
            self.take(";")

    def field(self, result: FieldDescriptorProto, label: str, scope: str) -> None:
        result.label = _LABELS[label]
        line = self.tokens[self.position][1]
        type_name = self.take()
        result.name = self.take()
        self.take("=")
        result.number = self.integer()
        if type_name in _SCALARS:
            result.type = _SCALARS[type_name]
        else:
            result.type_name = type_name
            self.unresolved.append((result, scope, line))
        if self.tokens[self.position][0] == "[":
            self.options(result)
        self.take(";")

    def options(self, field: FieldDescriptorProto) -> None:
        separator = self.take("[")
        while separator != "]":
            name = self.take()
            self.take("=")
            value = self.take()
            if name == "default":
                field.default_value = value[1:-1] if value[0] in "\"'" else value
            elif name in ("packed", "deprecated") and value in ("true", "false"):
                setattr(field.options, name, value == "true")
            else:
                raise self.error(f"option {name} = {value} is not understood")
            separator = self.take()
            if separator not in ",]":
                raise self.error(f"expected , or ] after option {name}, got {separator}")

    def resolve(self, field: FieldDescriptorProto, scope: str, line: int) -> None:
        """Give a field its full type name: the innermost scope that has the name wins."""
        name = field.type_name
        while scope:
            full = f"{scope}.{name}"
            if full in self.kinds:
                field.type_name = full
                field.type = self.kinds[full]  # type: ignore[assignment]
                return
            scope = scope.rpartition(".")[0]
        raise SchemaError(f"{self.filename}:{line}: field {field.name} has the unknown type {name}")

    def integer(self) -> int:
        word = self.take()
        try:
            return int(word, 0)
        except ValueError:
            raise self.error(f"expected a number, got {word}") from None
