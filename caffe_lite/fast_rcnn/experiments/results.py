"""What an experiment found: rows of paper and measured numbers, claims that are checked, as text and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from caffe_lite.fast_rcnn.report import table

MAP = "mAP, %"
AP = "AP of each class, %"
TRAIN_HOURS = "training, hours"
TRAIN_SPEEDUP = "training speedup over R-CNN, x"
TEST_SECONDS = "test, s/image"
TEST_SPEEDUP = "test speedup over R-CNN, x"
FORWARD_MS = "whole forward pass, ms"
_TIMES = (TRAIN_HOURS, TEST_SECONDS, FORWARD_MS)  # compared by their ratio, other quantities by their difference


class Row(NamedTuple):
    """One line of a table: a quantity of one system or setting.

    ``paper``: column -> number; ``measured``: column -> one number for each seed. Columns are nets, or what
    else the table compares. ``at``: boxes an image, where the row is a point of a curve called ``label``.
    """

    label: str
    quantity: str
    paper: Mapping[str, float]
    measured: Mapping[str, Sequence[float]]
    at: float | None = None

    @property
    def name(self) -> str:
        """The label, with the boxes an image."""
        return self.label if self.at is None else f"{self.label}, {self.at:,.0f} boxes"


class Claim(NamedTuple):
    """The paper says that ``higher`` is more than ``lower``, both labels (or names) of rows of ``quantity``.

    How much more is a ratio for times and a difference for the rest, here called the gap.
    """

    quantity: str
    higher: str
    lower: str
    text: str

    @property
    def by_ratio(self) -> bool:
        return self.quantity in _TIMES

    def gap(self, higher: float, lower: float) -> float:
        return higher / lower if self.by_ratio else higher - lower

    def judge(self, gaps: Sequence[float]) -> str:
        """:func:`judge` of the differences, or of the logarithms of the ratios."""
        return judge(np.log(gaps).tolist() if self.by_ratio else gaps)

    def told(self, gap: float) -> str:
        """A gap as text."""
        return f"{_number(gap)}x" if self.by_ratio else ("+" if gap >= 0 else "-") + _number(abs(gap))


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is NaN for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


class Verdict(NamedTuple):
    """What became of a claim in one measured column: ``gaps``, one for each seed."""

    column: str
    gaps: list[float]
    verdict: str


def judge(gaps: Sequence[float]) -> str:
    """``agrees`` or ``contradicts`` if the mean gap is further from 0 than its standard error, else ``undecided``.

    With one seed nothing is known of the spread, and the sign decides.
    """
    mean, std = mean_std(gaps)
    error = 0.0 if math.isnan(std) else std / math.sqrt(len(gaps))
    if abs(mean) <= error:
        return "undecided"
    return "agrees" if mean > 0 else "contradicts"


@dataclass
class Report:
    """The outcome of one experiment."""

    name: str
    title: str
    setting: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def quantities(self) -> list[str]:
        """In the order of their first rows."""
        return list(dict.fromkeys(row.quantity for row in self.rows))

    def find(self, quantity: str, name: str) -> Row:
        """The row of that quantity and label or name."""
        return next(row for row in self.rows if row.quantity == quantity and name in (row.label, row.name))

    def verdicts(self, claim: Claim) -> list[Verdict]:
        """One for each measured column that both rows of the claim have; NaN values (no such object) decide nothing."""
        higher, lower = (self.find(claim.quantity, name) for name in (claim.higher, claim.lower))
        found = []
        for column in higher.measured:
            if column in lower.measured:
                pairs = zip(higher.measured[column], lower.measured[column], strict=True)
                gaps = [claim.gap(a, b) for a, b in pairs if math.isfinite(a - b)]
                if gaps:
                    found.append(Verdict(column, gaps, claim.judge(gaps)))
        return found

    def paper_gaps(self, claim: Claim) -> dict[str, float]:
        """The gap in the paper, for each column that has both."""
        higher, lower = (self.find(claim.quantity, name).paper for name in (claim.higher, claim.lower))
        return {column: claim.gap(higher[column], lower[column]) for column in higher if column in lower}

    def text(self) -> str:
        """Aligned tables, one for each quantity, then the claims with their verdicts, then the notes."""
        parts = [f"{self.name}: {self.title}", *(_table(self, quantity) for quantity in self.quantities())]
        lines = [_sentence(self, claim) for claim in self.claims]
        parts.append("\n".join([*lines, *self.notes]))
        return "\n\n".join(part for part in parts if part)

    def json(self) -> str:
        """All of it, numbers in full; NaN and infinity as null."""
        content = {
            "experiment": self.name,
            "title": self.title,
            "setting": self.setting,
            "rows": [_row_json(row) for row in self.rows],
            "claims": [_claim_json(self, claim) for claim in self.claims],
            "notes": self.notes,
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """``over`` / ``under``, seed by seed."""
    return [a / b for a, b in zip(over, under, strict=True)]


def _columns(rows: Iterable[Row], attribute: str) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in getattr(row, attribute)))


def _table(report: Report, quantity: str) -> str:
    rows = [row for row in report.rows if row.quantity == quantity]
    paper, measured = _columns(rows, "paper"), _columns(rows, "measured")
    heading = [quantity, *(f"paper {c}".strip() for c in paper), *(f"measured {c}".strip() for c in measured)]
    lines = [heading]
    for row in rows:
        cells = [f"{row.paper[c]:g}" if c in row.paper else "" for c in paper]
        cells += [_measured(row.measured[c]) if c in row.measured else "" for c in measured]
        lines.append([row.name, *cells])
    return table(lines)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


def _measured(values: Sequence[float]) -> str:
    mean, std = mean_std(values)
    return _number(mean) if math.isnan(std) else f"{_number(mean)} ± {_number(std)}"


def _sentence(report: Report, claim: Claim) -> str:
    gaps = report.paper_gaps(claim)
    paper = ", ".join(f"{claim.told(gap)} ({column})" for column, gap in gaps.items()) or "gives no number"
    verdicts = [_verdict(claim, found) for found in report.verdicts(claim)]
    sign = "/" if claim.by_ratio else "-"
    return f"{claim.text}: {claim.higher} {sign} {claim.lower}: paper {paper}; {'; '.join(verdicts) or 'not measured'}."


def _verdict(claim: Claim, found: Verdict) -> str:
    mean, std = mean_std(found.gaps)
    spread = "one seed" if math.isnan(std) else f"± {_number(std)}, {len(found.gaps)} seeds"
    word = "undecided, within the spread" if found.verdict == "undecided" else found.verdict.upper()
    return f"measured {found.column} {claim.told(mean)} ({spread}): {word}"


def _row_json(row: Row) -> dict[str, Any]:
    measured = {}
    for column, values in row.measured.items():
        mean, std = mean_std(values)
        measured[column] = {"values": [_finite(v) for v in values], "mean": _finite(mean), "std": _finite(std)}
    found: dict[str, Any] = {"label": row.label, "quantity": row.quantity, "paper": row.paper, "measured": measured}
    if row.at is not None:
        found["boxes"] = row.at
    return found


def _claim_json(report: Report, claim: Claim) -> dict[str, Any]:
    verdicts = {v.column: {"gaps": v.gaps, "verdict": v.verdict} for v in report.verdicts(claim)}
    return {**claim._asdict(), "paper": report.paper_gaps(claim), "measured": verdicts}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
