"""What two results say about each other: better, worse, equal, or that one cannot tell.

Two tests of Mann and Whitney on the rounds of a row decide, so nothing is assumed about how the
figures are spread. *Better* and *worse*: the two differ. *Equal*: the second one is surely not more
than a margin above the first, and surely not more than that below. Else there are too few rounds,
or too much noise, to tell.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, isnan
from statistics import median
from typing import Any

from netpoll.bench.errors import UsageError
from netpoll.bench.records import Document, Row

__all__ = [
    "BETTER",
    "BY_ROUND",
    "CANNOT_TELL",
    "EQUAL",
    "IDENTITY",
    "LEVEL",
    "MARGIN",
    "WORSE",
    "Verdict",
    "compared",
    "differences",
    "require_library",
    "verdict",
]

LEVEL = 0.05  # how often a verdict may be wrong
MARGIN = 0.03  # a difference that does not matter

BETTER, WORSE, EQUAL, CANNOT_TELL = "better", "worse", "equal", "cannot tell"

# What tells the rows of a document apart, and what two documents have to have in common.
IDENTITY = ("cell", "work", "workload", "path", "way", "size_bytes", "arm", "mode")
SAME_MACHINE = (
    *("kernel", "machine", "cpu_model", "cpu_count", "cpu_governor", "libc"),
    *("python", "python_implementation", "gil", "congestion_control"),
)
BY_ROUND = "_by_round"


def require_library() -> None:
    """Raises UsageError when the library is missing."""
    if importlib.util.find_spec("scipy") is None:
        raise UsageError("comparing needs scipy: pip install 'netpoll[bench-more]'")


@dataclass(frozen=True)
class Verdict:
    """`ratio`: of the medians, the second to the first. `p`: how often chance alone makes such a
    difference. `why`: of what cannot be told."""

    word: str
    ratio: float
    p: float
    why: str = ""


def _p(after: Sequence[float], before: Sequence[float], alternative: str) -> float:
    from scipy.stats import mannwhitneyu

    p = float(mannwhitneyu(after, before, alternative=alternative).pvalue)
    return 1.0 if isnan(p) else p  # all values are the same


def verdict(
    before: Sequence[float], after: Sequence[float], *, level: float = LEVEL, margin: float = MARGIN
) -> Verdict:
    """Of figures of which less is better, a figure per round. Neither may be empty."""
    ratio = median(after) / median(before)
    p = _p(after, before, "two-sided")
    not_above = _p(after, [value * (1 + margin) for value in before], "less")
    not_below = _p(after, [value * (1 - margin) for value in before], "greater")
    if max(not_above, not_below) <= level:
        return Verdict(EQUAL, ratio, p)
    if p <= level:
        return Verdict(BETTER if ratio < 1 else WORSE, ratio, p)
    most_clear = 2 / comb(len(before) + len(after), len(before))
    few = f"{len(before)} and {len(after)} rounds are too few"
    return Verdict(CANNOT_TELL, ratio, p, few if most_clear > level else "too much noise")


# ---- two documents ----------------------------------------------------------------------------


def identity(row: Row) -> tuple[Any, ...]:
    """What a row is of."""
    return tuple(row.get(key) for key in IDENTITY)


def _rounds(row: Row) -> Mapping[str, Sequence[float]]:
    """The figures of a row that are there round by round, by their name."""
    return {key.removesuffix(BY_ROUND): row[key] for key in row if key.endswith(BY_ROUND)}


def compared(
    before: Document, after: Document, *, level: float = LEVEL, margin: float = MARGIN
) -> list[Row]:
    """A row for each that was measured in both: what it is of, `quantity`, `before` and `after`
    (medians), `ratio`, `verdict`, `p`, `why`. Raises ValueError when they are of two kinds."""
    if before["schema"] != after["schema"]:
        raise ValueError(f"{before['schema']} cannot be compared with {after['schema']}")
    known = {identity(row): row for row in before["rows"] if row["rounds"]}
    rows = []
    for row in after["rows"]:
        old = known.get(identity(row)) if row["rounds"] else None
        if old is None:
            continue
        for quantity, values in _rounds(row).items():
            earlier = _rounds(old)[quantity]
            found = verdict(earlier, values, level=level, margin=margin)
            rows.append(
                {key: row[key] for key in IDENTITY if row.get(key) is not None}
                | {
                    "quantity": quantity,
                    "before": median(earlier),
                    "after": median(values),
                    "ratio": found.ratio,
                    "verdict": found.word,
                    "p": found.p,
                    "why": found.why,
                }
            )
    return rows


def differences(before: Document, after: Document) -> list[str]:
    """What makes two documents hard to compare; one sentence each."""
    lines = []
    for key in SAME_MACHINE:
        old, new = before["environment"].get(key), after["environment"].get(key)
        if old != new:
            lines.append(f"different {key.replace('_', ' ')}: {old} and {new}")
    for key in sorted(before["settings"].keys() & after["settings"].keys()):
        if before["settings"][key] != after["settings"][key]:
            lines.append(f"different setting: {key.replace('_', ' ')}")
    for name, document in (("first", before), ("second", after)):
        if (document.get("control") or {}).get("is_trustworthy") is False:
            lines.append(f"by its control the {name} run is not to be trusted")
    return lines
