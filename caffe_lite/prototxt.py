"""Read and write prototxt: protobuf's text format, strictly, with the place of every error.

The language is protobuf's for proto2 messages: ``name: value`` and ``name { ... }`` (also
``name: { ... }`` and ``< ... >``), lists ``[1, 2]``, an optional ``,`` or ``;`` after a field,
``#`` comments, adjacent strings that join, decimal, octal and hexadecimal integers, floats with an
``f``, ``inf`` and ``nan``, enums by name or number. What Caffe refuses is refused here too: an
unknown field, a field given twice that is not repeated, a value that does not fit its type. The
reader is our own because google.protobuf's knows neither the file's name nor the near miss.
"""

from __future__ import annotations

Path = tuple[str | int, ...] if hasattr(int, "__or__") else tuple  # type: ignore[misc]

MAX_BYTES = 64 << 20  # a net in text is thousands of times smaller; weights belong into a .caffemodel
