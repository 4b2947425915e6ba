"""``bench compare A.json B.json``: whether the second run is better, worse or equal, row by row."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from netpoll.bench.arguments import number_in
from netpoll.bench.blocks import (
    Block,
    Column,
    Figure,
    Group,
    Heading,
    Line,
    Note,
    Ratio,
    Ratios,
    Table,
    counted,
    number,
    ratio,
)
from netpoll.bench.document import read_json, write_whole
from netpoll.bench.errors import UsageError
from netpoll.bench.records import Document, Row
from netpoll.bench.verdicts import (
    BETTER,
    CANNOT_TELL,
    EQUAL,
    IDENTITY,
    LEVEL,
    MARGIN,
    WORSE,
    compared,
    differences,
    require_library,
)

__all__ = ["SCHEMA", "add_options", "comparison", "page_of", "run_compare"]

SCHEMA = "netpoll.bench.compare/1"
WORDS = (BETTER, WORSE, EQUAL, CANNOT_TELL)
TONES = {BETTER: "good", WORSE: "bad", EQUAL: "", CANNOT_TELL: ""}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", type=Path, metavar="A.json", help="written by an earlier run")
    parser.add_argument("after", type=Path, metavar="B.json", help="the run that is judged")
    parser.add_argument(
        "--margin",
        type=number_in(0.1, 50, float, " per cent"),
        default=100 * MARGIN,
        metavar="PERCENT",
        help=f"a difference that does not matter; default: {100 * MARGIN:g}",
    )
    parser.add_argument(
        "--level",
        type=number_in(0.1, 20, float, " per cent"),
        default=100 * LEVEL,
        metavar="PERCENT",
        help=f"how often a verdict may be wrong; default: {100 * LEVEL:g}",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="the verdicts")
    parser.add_argument("--html", type=Path, metavar="PATH", help="the verdicts as a page")
    parser.add_argument(
        "--fail-on-worse", action="store_true", help="exit code 1 when something is worse"
    )


def comparison(before: Document, after: Document, level: float, margin: float) -> Document:
    """The verdicts as a document of their own. Raises UsageError when nothing is in both."""
    rows = compared(before, after, level=level, margin=margin)
    if not rows:
        raise UsageError("no row was measured in both")
    return {
        "schema": SCHEMA,
        "of": before["schema"],
        "started": [before["started"], after["started"]],
        "level": level,
        "margin": margin,
        "differences": differences(before, after),
        "rows": rows,
    }


# ---- to look at -------------------------------------------------------------------------------


def _why(row: Row) -> str:
    return f"p {row['p']:.2g}" + (f": {row['why']}" if row["why"] else "")


COLUMNS = (
    Column("before", lambda row: Figure(number(row["before"]))),
    Column("after", lambda row: Figure(number(row["after"]))),
    Column("ratio", lambda row: Figure(ratio(row["ratio"]))),
    Column("verdict", lambda row: Figure(row["verdict"], tone=TONES[row["verdict"]])),
    Column("", lambda row: Figure(_why(row))),
)


def _name(row: Row) -> str:
    return ", ".join(str(row[key]) for key in IDENTITY if row.get(key) not in (None, "-"))


def table(document: Document) -> Table:
    """The verdicts: the worst first."""
    rows = sorted(document["rows"], key=lambda row: -row["ratio"])
    lines = [Line(_name(row), [column.figure(row) for column in COLUMNS]) for row in rows]
    quantities = ", ".join(dict.fromkeys(row["quantity"] for row in rows))
    return Table([quantities, *(c.title for c in COLUMNS)], [Group("", lines)])


def sentences(document: Document) -> list[str]:
    """What has to be known to read the verdicts."""
    rows = document["rows"]
    counts = Counter(row["verdict"] for row in rows)
    wrong = len(rows) * document["level"]
    return [
        "; ".join(f"{word}: {counts[word]}" for word in WORDS) + ".",
        (
            f"Less is better. A verdict is wrong in {100 * document['level']:g} % of the cases: of "
            f"{counted(len(rows), 'row')} about {wrong:.1g}. Equal: surely within "
            f"±{100 * document['margin']:g} %."
        ),
    ]


def section(document: Document) -> list[Block]:
    """The page: a chart of the ratios, the table, and how to read them."""
    rows = sorted(document["rows"], key=lambda row: -row["ratio"])
    ratios = [Ratio(_name(row), row["ratio"], TONES[row["verdict"]]) for row in rows]
    chart = Ratios(
        "ratios",
        "The second run against the first,",
        ratios,
        "ratios of the medians; to the left is less. Coloured: better or worse. Shaded: what does "
        "not matter.",
        document["margin"],
    )
    notes = [Note(line) for line in sentences(document)]
    return [Heading("All rows"), *notes, chart, Heading("Figures"), table(document)]


def page_of(document: Document) -> str:
    """The comparison as HTML."""
    from netpoll.bench.page import whole

    first, second = document["started"]
    careful = [f"careful: {line}." for line in document["differences"]]
    return whole(
        "netpoll bench compare",
        f"{document['of']}: {second} against {first}.",
        careful,
        section(document),
    )


def run_compare(options: argparse.Namespace) -> int:
    """Shows the verdicts; returns the exit code."""
    require_library()
    from rich.console import Console
    from rich.text import Text

    from netpoll.bench.display import drawn

    try:
        documents = read_json(options.before), read_json(options.after)
        result = comparison(*documents, options.level / 100, options.margin / 100)
        if options.json:
            write_whole(options.json, json.dumps(result, indent=1) + "\n")
        if options.html:
            write_whole(options.html, page_of(result))
    except OSError as error:
        raise UsageError(f"cannot use {error.filename}: {error.strerror}") from None
    console = Console()
    console.print(drawn(table(result), wide=False))
    for line in sentences(result):
        console.print(Text(line, style="dim"))
    for line in result["differences"]:
        console.print(Text(f"careful: {line}.", style="yellow"))
    any_worse = any(row["verdict"] == WORSE for row in result["rows"])
    return int(options.fail_on_worse and any_worse)
