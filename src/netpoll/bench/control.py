"""The control: the same arm twice in one run. It says how far equal things come out apart.

When the two differ by more than their rounds do, something other than the arms made the difference,
and no other ratio of that run can be trusted either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from netpoll.bench.records import Facts, Row
from netpoll.bench.stats import Spread
from netpoll.bench.verdicts import BY_ROUND, IDENTITY

__all__ = ["control_facts", "sentences"]

ROUNDS_MIN = 2  # one round has no spread
FLOOR_PERCENT = 3.0  # a difference that is none, however still the machine is


def _where(row: Row) -> tuple[object, ...]:
    return tuple(row.get(key) for key in IDENTITY if key != "arm")


def _pairs(controls: Mapping[str, str], rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """(the control, what it repeats), where both were measured."""
    known = {(row["arm"], _where(row)): row for row in rows if row["rounds"] >= ROUNDS_MIN}
    for (arm, where), row in known.items():
        if (first := known.get((controls.get(arm, ""), where))) is not None:
            yield row, first


def _judged(again: Row, first: Row) -> Facts:
    (quantity,) = (key for key in first if key.endswith(BY_ROUND))
    one, other = first[quantity], again[quantity]
    ratio = median(other) / median(one)
    allowed = max(FLOOR_PERCENT, Spread.of(one).percent + Spread.of(other).percent)
    return {
        "arm": again["arm"],
        "of": first["arm"],
        "where": ", ".join(str(part) for part in _where(again) if part not in (None, "-")),
        "ratio": ratio,
        "allowed_percent": allowed,
        "is_kept": abs(ratio - 1) * 100 <= allowed,
    }


def control_facts(controls: Mapping[str, str], rows: Sequence[Row]) -> Facts:
    """`controls`: by name, the arm that each one repeats. `pairs`: what came out, cell by cell.
    `is_trustworthy`: whether every one kept to its spread; None when there is none."""
    pairs = [_judged(again, first) for again, first in _pairs(controls, rows)]
    return {"pairs": pairs, "is_trustworthy": all(p["is_kept"] for p in pairs) if pairs else None}


def sentences(control: Facts) -> list[str]:
    """Why a run cannot be trusted; nothing when it can."""
    return [
        f"not to be trusted: {pair['of']} against itself is {pair['ratio']:.2f} at "
        f"{pair['where'] or 'this load'}, and its rounds allow ±{pair['allowed_percent']:.0f} %."
        for pair in control["pairs"]
        if not pair["is_kept"]
    ]
