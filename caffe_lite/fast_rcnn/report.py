"""Results as aligned text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def table(rows: Sequence[Sequence[str]], numeric_from: int = 1) -> str:
    """``rows``, the first being the heading, in columns: text to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        padded = [text.ljust(width) for text, width in zip(row, widths, strict=True)][:numeric_from]
        padded += [text.rjust(width) for text, width in zip(row, widths, strict=True)][numeric_from:]
        return "  ".join(padded).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(rows[0]), rule, *(line(row) for row in rows[1:])])


def detection_table(dets: Sequence[np.ndarray], classes: Sequence[str]) -> str:
    """Detections of one image, best first: class, score, x1, y1, x2, y2; ``dets[k]`` is (D, 5) of class k."""
    found = [(float(d[4]), k, d) for k in range(1, len(classes)) for d in dets[k]]
    found.sort(key=lambda item: -item[0])
    rows: list[Sequence[str]] = [("class", "score", "x1", "y1", "x2", "y2")]
    rows += [(classes[k], f"{score:.3f}", *(f"{v:.1f}" for v in d[:4])) for score, k, d in found]
    return table(rows) if found else "no detection"
