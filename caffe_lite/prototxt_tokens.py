"""The words of prototxt: names, numbers, strings and marks, and the values that they spell."""

from __future__ import annotations

import re
from typing import NamedTuple

# No pattern repeats a group without a bound: Python's re needs hundreds of bytes for each round.
_SPACE = re.compile(r"\s*")
_TOKEN = re.compile(
    r"""(?P<word> [A-Za-z_]\w* )
      | (?P<number> (?: [0-9] | \.[0-9] ) [\w.]* (?: (?<=[eE]) [+-] [\w.]* ){0,4} )
      | (?P<open> ["'] )
      | (?P<mark> . )""",
    re.VERBOSE | re.ASCII,
)
_UP_TO_QUOTE = {quote: re.compile(rf"[^{quote}\\\n]*") for quote in "\"'"}
_INTEGER = re.compile(r"0[xX][0-9a-fA-F]{1,32}|0[0-7]{0,32}|[1-9][0-9]{0,32}", re.ASCII)
_FLOAT = re.compile(r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[fF]?", re.ASCII)
_FLOAT_WORDS = {"inf": "inf", "infinity": "inf", "inff": "inf", "infinityf": "inf", "nan": "nan", "nanf": "nan"}
_ESCAPE = re.compile(
    rb"\\(?: ([0-7]{1,3}) | [xX]([0-9a-fA-F]{1,2}) | u([0-9a-fA-F]{4}) | U([0-9a-fA-F]{8}) | (.) )",
    re.VERBOSE | re.DOTALL,
)
_SIMPLE_ESCAPES = dict(zip(b"abfnrtv\\'\"?", b"\a\b\f\n\r\t\v\\'\"?", strict=True))


class Token(NamedTuple):
    kind: str  # word, number, string, open (a quote that its line does not close), mark, end (of the file)
    text: str
    offset: int

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= 40 else self.text[:37] + "..."
        return "the end of the file" if self.kind == "end" else shown if self.kind == "string" else repr(shown)


def scan(text: str, offset: int) -> Token:
    """The first token at or after ``offset``, past white space and comments."""
    offset = _after_space(text, offset)
    match = _TOKEN.match(text, offset)
    if match is None:
        return Token("end", "", offset)
    kind = match.lastgroup or ""
    end = _after_string(text, offset) if kind == "open" else 0
    return Token("string", text[offset:end], offset) if end else Token(kind, match.group(), offset)


def _after_space(text: str, offset: int) -> int:
    """The first place at or after ``offset`` that is neither white space nor in a comment."""
    while True:
        match = _SPACE.match(text, offset)
        assert match is not None
        offset = match.end()
        if not text.startswith("#", offset):
            return offset
        end = text.find("\n", offset)
        offset = len(text) if end < 0 else end


def _after_string(text: str, start: int) -> int:
    """Where the string that opens at ``start`` ends, its quote included; 0 if its line does not close it."""
    quote, end = text[start], start + 1
    while True:
        match = _UP_TO_QUOTE[quote].match(text, end)
        assert match is not None
        end = match.end()
        if text.startswith(quote, end):
            return end + 1
        if not text.startswith("\\", end) or text[end + 1 : end + 2] in ("", "\n"):
            return 0
        end += 2


def integer(token: Token) -> int | None:
    """The value of a whole number as C reads it (0x is hexadecimal, a leading 0 octal), else None."""
    if token.kind != "number" or not _INTEGER.fullmatch(token.text):
        return None
    if token.text[:2] in ("0x", "0X"):
        return int(token.text, 16)
    return int(token.text, 8) if token.text[0] == "0" else int(token.text)


def decimal(token: Token) -> float | None:
    """The value of a decimal number, ``inf`` or ``nan``, each perhaps with an ``f``; else None."""
    if token.kind == "word":
        word = _FLOAT_WORDS.get(token.text.lower())
        return None if word is None else float(word)
    match = _FLOAT.fullmatch(token.text) if token.kind == "number" else None
    return None if match is None else float(match.group(1))


def unescape(token: Token) -> bytes:
    """The bytes that a string token stands for.

    Raises:
        ValueError: an escape that C does not have, as its only argument.
    """
    raw = token.text[1:-1].encode("utf-8", "surrogatepass")
    return _ESCAPE.sub(_character, raw) if b"\\" in raw else raw


def _character(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, short, long, simple = match.groups()
    if octal and int(octal, 8) < 256:
        return bytes([int(octal, 8)])
    if hexadecimal:
        return bytes([int(hexadecimal, 16)])
    if short or long:
        code = int(short or long, 16)
        if code < 0x110000 and not 0xD800 <= code < 0xE000:
            return chr(code).encode()
    if simple and simple[0] in _SIMPLE_ESCAPES:
        return bytes([_SIMPLE_ESCAPES[simple[0]]])
    raise ValueError(match.group().decode("utf-8", "replace"))
