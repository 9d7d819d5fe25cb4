"""Damaged copies of files, for tests that feed readers what nobody would write.

Every function takes the bytes of a file and a generator and gives other bytes; the same seed, the same damage.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Mutator = Callable[[bytes, random.Random], bytes]

_WORDS = [
    b"{", b"}", b"<", b">", b"[", b"]", b":", b'"', b"'", b"#", b"\n", b";", b",", b"-", b"\\", b"\0", b"\xff\xfe",
    b"0", b"-1", b"1000000000", b"2147483648", b"99999999999999999999", b"9" * 400, b"1e999", b"nan", b"-inf", b"0x7f",
    b"layer { ", b"layers { ", b"layer: [", b"type: ", b"name: 'x' ", b"dim: ", b"include { phase: TRAIN } ",
    b"pad: 7 ", b"kernel_size: 0 ", b"stride: 0 ", b"group: 0 ", b"num_output: 4294967295 ", b"axis: -9 ",
    b"'\\377' ", b"'\\u0000'", b"'" + b"long " * 200 + b"'", b"top: 'data' ", b"bottom: 'data' ", b"propagate_down: true ",
]  # fmt: skip
_NUMBERS = [
    b"0",
    b"1",
    b"2",
    b"3",
    b"7",
    b"64",
    b"-1",
    b"-5",
    b"65536",
    b"100000",
    b"1000000000",
    b"2147483647",
    b"4294967295",
]
_VARINTS = [b"\x00", b"\x7f", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\xff" * 11, b"\x80" * 9 + b"\x01"]


def flip_bit(data: bytes, rng: random.Random) -> bytes:
    result = bytearray(data)
    result[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(result)


def set_byte(data: bytes, rng: random.Random) -> bytes:
    result = bytearray(data)
    result[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(result)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def delete_span(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 40) :]


def repeat_span(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    end = start + rng.randint(1, 200)
    return data[:end] + data[start:end] * rng.randint(1, 4) + data[end:]


def move_span(data: bytes, rng: random.Random) -> bytes:
    start, target = rng.randrange(len(data)), rng.randrange(len(data))
    end = start + rng.randint(1, 100)
    return data[:target] + data[start:end] + data[target:]


def insert_word(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_WORDS) + data[at:]


def replace_number(data: bytes, rng: random.Random, words: list[bytes] = _WORDS) -> bytes:
    """Another number, or another word, in place of a run of digits."""
    digits = [i for i, byte in enumerate(data) if 48 <= byte < 58]
    if not digits:
        return insert_word(data, rng)
    start = end = rng.choice(digits)
    while end < len(data) and 48 <= data[end] < 58:
        end += 1
    return data[:start] + rng.choice(words) + data[end:]


def change_number(data: bytes, rng: random.Random) -> bytes:
    """Another number in place of a run of digits, so that a text mostly stays one that can be read."""
    return replace_number(data, rng, _NUMBERS)


def insert_varint(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_VARINTS) + data[at + rng.randint(0, 2) :]


def nest(data: bytes, rng: random.Random) -> bytes:
    """Something opened very often: groups in a binary file, messages and lists in a text."""
    depth = rng.choice([3, 101, 3000])
    opening = rng.choice([b"\x0b", b"\xa3\x06", b"layer {", b"net_param { ", b"[", b"<"])
    at = rng.randrange(len(data) + 1)
    return data[:at] + opening * depth + data[at:]


def swap_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def swap_words(data: bytes, rng: random.Random) -> bytes:
    words = data.split(b" ")
    i, j = rng.randrange(len(words)), rng.randrange(len(words))
    words[i] = words[j]
    return b" ".join(words)


TEXT: list[Mutator] = [
    flip_bit, set_byte, truncate, delete_span, repeat_span, move_span, insert_word, replace_number, nest, swap_lines,
    *[change_number] * 6, *[swap_words] * 4,
]  # fmt: skip
BINARY: list[Mutator] = [
    flip_bit, set_byte, truncate, delete_span, repeat_span, move_span, insert_varint, nest, insert_varint,
]  # fmt: skip


def mutate(data: bytes, mutators: list[Mutator], rng: random.Random) -> bytes:
    """``data`` after one to three kinds of damage."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        if data:
            data = rng.choice(mutators)(data, rng)
    return data
