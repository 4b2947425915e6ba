"""The control: the same arm twice in one run. It says how far equal things come out apart.

When the two differ by more than their rounds do, something other than the arms made the difference,
and no other ratio of that run can be trusted either. When the rounds themselves lie far apart, the
two may differ by as much, so that says nothing: such a run is not to be trusted, whatever its
medians are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from netpoll.bench.records import Facts, Row
from netpoll.bench.stats import Spread
from netpoll.bench.verdicts import BY_ROUND, IDENTITY

__all__ = ["SPREAD_MAX_PERCENT", "control_facts", "sentences"]

ROUNDS_MIN = 2  # one round has no spread
FLOOR_PERCENT = 3.0  # a difference that is none, however still the machine is
# The half range that a control may have. The median of five rounds within ±h of each other has a
# standard deviation of about 0.38 h, the ratio of two such medians one of 0.53 h: with 15 % two
# deviations are 16 %, which is as much as the smaller ones of the differences that are looked for.
SPREAD_MAX_PERCENT = 15.0


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
    spreads = Spread.of(one).percent, Spread.of(other).percent
    allowed = max(FLOOR_PERCENT, sum(spreads))
    return {
        "arm": again["arm"],
        "of": first["arm"],
        "where": ", ".join(str(part) for part in _where(again) if part not in (None, "-")),
        "ratio": ratio,
        "allowed_percent": allowed,
        "is_kept": abs(ratio - 1) * 100 <= allowed,
        "spread_percent": max(spreads),
        "is_steady": max(spreads) <= SPREAD_MAX_PERCENT,
    }


def control_facts(controls: Mapping[str, str], rows: Sequence[Row]) -> Facts:
    """`controls`: by name, the arm that each one repeats. `pairs`: what came out, cell by cell.
    `is_trustworthy`: whether every one kept to its spread, and that was small enough to say
    something; None when there is none."""
    pairs = [_judged(again, first) for again, first in _pairs(controls, rows)]
    kept = all(pair["is_kept"] and pair["is_steady"] for pair in pairs)
    return {"pairs": pairs, "is_trustworthy": kept if pairs else None}


def _sentence(pair: Facts) -> str:
    where = pair["where"] or "this load"
    if not pair["is_kept"]:
        return (
            f"not to be trusted: {pair['of']} against itself is {pair['ratio']:.2f} at {where}, "
            f"and its rounds allow ±{pair['allowed_percent']:.0f} %."
        )
    if not pair.get("is_steady", True):  # written before there was a bound
        return (
            f"not to be trusted: the rounds of {pair['of']} lie ±{pair['spread_percent']:.0f} % "
            f"apart at {where}, and more than ±{SPREAD_MAX_PERCENT:.0f} % says nothing."
        )
    return ""


def sentences(control: Facts) -> list[str]:
    """Why a run cannot be trusted; nothing when it can."""
    return [sentence for pair in control["pairs"] if (sentence := _sentence(pair))]
