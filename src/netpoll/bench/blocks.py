"""What a result consists of, to look at: tables, charts, notes. Neither terminal nor HTML.

A kind makes these out of its document. `display.py` draws tables and notes in a terminal, `page.py`
draws all of them as a page. So a kind knows neither of the two, and its columns stand in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from netpoll.bench.arms import is_own
from netpoll.bench.records import Row

__all__ = [
    "Bar",
    "Bars",
    "Choice",
    "Column",
    "Curve",
    "Curves",
    "Figure",
    "Group",
    "Heading",
    "Line",
    "LineOf",
    "Lines",
    "Multiples",
    "Note",
    "Ratio",
    "Ratios",
    "Table",
    "counted",
    "judged",
    "line_of",
    "number",
    "rate",
    "ratio",
]


# ---- figures in words -------------------------------------------------------------------------


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, thousands apart: 4.62, 14.0, 282, 2 654."""
    if value is None:
        return "–"
    if value >= 99.95:
        return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    whole = len(f"{value:.1f}".partition(".")[0])
    return f"{value:.{max(digits - whole, 0)}f}"


def rate(value: float) -> str:
    """Per second, short: 912, 6.01k, 216k, 1.20M."""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return number(value / factor) + unit
    return number(value)


def ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def counted(count: int, what: str) -> str:
    """1 round, 3 rounds."""
    return f"{count} {what}" + ("" if count == 1 else "s")


# ---- tables -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """One field of a table.

    sub: what stands small beside it.
    tone: "good", "bad", "key" (what the table is about), "best" (of its line), or none.
    share: its part of the column's largest, for a bar behind it.
    shade: a ratio that colours the field, green below 1 and red above.
    """

    text: str
    sub: str = ""
    tone: str = ""
    share: float | None = None
    shade: float | None = None


def judged(value: float | None, suffix: str = "") -> Figure:
    """A ratio of costs: good when it is clearly below 1, bad when it is clearly above."""
    if value is None:
        return Figure("–")
    tone = "good" if value < 0.98 else "bad" if value > 1.02 else ""
    return Figure(ratio(value) + suffix, tone=tone)


@dataclass(frozen=True)
class Line:
    """A line of a table: of an arm, or of an operation.

    figures: none when it was not measured; failure: what went wrong. own: it is of netpoll.
    faint: it has no event loop. disturbed: something else ran on its core.
    """

    head: str
    figures: Sequence[Figure] = ()
    failure: str = ""
    own: bool = False
    faint: bool = False
    disturbed: bool = False


@dataclass(frozen=True)
class Group:
    """Lines that stand together, under a title if there is one."""

    title: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Table:
    """`head`: the titles of all columns, that of the lines' heads first. `title` is short, and
    `caption` (of the page only) a sentence."""

    head: Sequence[str]
    groups: Sequence[Group]
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Column:
    """A column whose lines are rows of a document: its title, and the figure of a row."""

    title: str
    figure: Callable[[Row], Figure]


def line_of(row: Row, columns: Iterable[Column]) -> Line:
    """The line of a row of a document: the arm, and its figures if it was measured."""
    arm = row["arm"]
    return Line(
        arm,
        [column.figure(row) for column in columns] if row["rounds"] else (),
        failure=row["fault"] or "",
        own=is_own(arm),
        faint=row["mode"] == "-",
        disturbed=bool(row.get("disturbed_rounds")),
    )


# ---- the rest of a page -----------------------------------------------------------------------


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Note:
    """A paragraph in small letters."""

    text: str


@dataclass(frozen=True)
class Choice:
    """Buttons: the charts below show only what has the chosen value of `key`."""

    key: str
    values: Sequence[str]
    titles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bar:
    """`parts` add up to the length; `rounds` are dots. `where`: values of choices; "-" fits all."""

    arm: str
    parts: Sequence[float]
    rounds: Sequence[float] = ()
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bars:
    """A chart of horizontal bars, the best on top. `identity` names it within the page; `parts`:
    what the parts of a bar are."""

    identity: str
    title: str
    bars: Sequence[Bar]
    note: str = ""
    unit: str = ""
    parts: Sequence[str] = ("",)
    more_is_better: bool = False


@dataclass(frozen=True)
class Curve:
    """Latencies: (part of the requests, µs)."""

    arm: str
    points: Sequence[tuple[float, float]]
    faint: bool = False
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Curves:
    """A chart of latencies, the further right the rarer."""

    identity: str
    title: str
    curves: Sequence[Curve]
    note: str = ""


@dataclass(frozen=True)
class LineOf:
    """One arm of `Lines`: (x, y), x ascending."""

    arm: str
    points: Sequence[tuple[float, float]]
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Lines:
    """A chart of a quantity against another; the vertical axis is logarithmic, and so is the other
    one with `is_log_x`."""

    identity: str
    title: str
    lines: Sequence[LineOf]
    note: str = ""
    x_unit: str = ""
    y_unit: str = ""
    is_log_x: bool = False


@dataclass(frozen=True)
class Multiples(Lines):
    """The same as small charts, one for each arm, with the others behind it."""


@dataclass(frozen=True)
class Ratio:
    """tone: "good", "bad" or none."""

    name: str
    value: float
    tone: str = ""


@dataclass(frozen=True)
class Ratios:
    """A chart of ratios about 1, as they come. margin: what does not matter, on both sides."""

    identity: str
    title: str
    ratios: Sequence[Ratio]
    note: str = ""
    margin: float = 0.0


Block = Heading | Note | Table | Choice | Bars | Curves | Lines | Ratios
