"""How blocks look: in the terminal, and on the page."""

import io

import pytest

pytest.importorskip("rich")
pytest.importorskip("plotly")

from rich.console import Console

from netpoll.bench import page
from netpoll.bench.blocks import (
    Bar,
    Bars,
    Choice,
    Column,
    Curve,
    Curves,
    Figure,
    Group,
    Heading,
    Line,
    Note,
    Table,
    judged,
    line_of,
    number,
    rate,
)
from netpoll.bench.display import drawn

TABLE = Table(
    ["arm", "cost", "ratio"],
    [
        Group(
            "swift", [Line("netpoll <x>", [Figure("12", "±3 %", "key", share=0.5), judged(0.5)])]
        ),
        Group(
            "",
            [
                Line("slow", [Figure("24", shade=2.0), judged(1.5, " e")], disturbed=True),
                Line("broken", failure="it was killed by signal 9"),
                Line("late"),
            ],
        ),
    ],
    "Costs",
    "The less the better.",
)


def terminal(table: Table) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=100).print(drawn(table, wide=True))
    return [" ".join(line.split()) for line in text.getvalue().splitlines()]


def test_a_table_in_the_terminal() -> None:
    lines = terminal(TABLE)
    assert "arm cost ratio" in lines
    assert lines[lines.index("swift") + 1 :][:4] == [
        "netpoll <x> 12 ±3 % 0.50",
        "slow ! 24 1.50 e",
        "broken failed",
        "late –",
    ]


def test_a_table_on_the_page() -> None:
    html = page.DRAWN[Table](TABLE)
    assert "<b>Costs</b> The less the better." in html
    assert html.count('<th class="group" scope="rowgroup">') == 1
    assert '<th scope="row">netpoll &lt;x&gt;</th>' in html
    assert 'class="bar key"' in html and "background-size: 50% 70%" in html
    assert '<td class="good">0.50</td>' in html and '<td class="bad">1.50 e</td>' in html
    assert "rgba(var(--bad-fill), 0.40)" in html
    assert 'slow <span title="disturbed">!</span>' in html
    assert '<td class="failed" colspan="2">it was killed by signal 9</td>' in html
    assert '<td class="failed" colspan="2">not measured</td>' in html


def test_the_other_blocks_on_the_page() -> None:
    html = "".join(
        page.DRAWN[type(block)](block)
        for block in (
            Heading("A & B"),
            Note("small"),
            Choice("mode", ["a", "b"], {"b": "B!"}),
            Bars("cpu", "CPU, µs.", [Bar("x", (1.0,))], "Less is better."),
            Curves("latency", "Latency", [Curve("x", [(0.5, 1.0)])]),
        )
    )
    assert "<h2>A &amp; B</h2>" in html
    assert '<p class="small soft">small</p>' in html
    assert '<div class="choices" data-key="mode">' in html
    assert '<button type="button" data-value="b">B!</button>' in html
    assert '<b>CPU, µs.</b> Less is better.</figcaption><div id="cpu"></div>' in html
    assert '<div id="latency"></div>' in html


def test_a_row_that_failed_after_some_rounds_keeps_its_figures() -> None:
    columns = [Column("cost", lambda row: Figure(number(row["cost"])))]
    row = {"arm": "netpoll-epoll", "mode": "-", "fault": "it hangs", "rounds": 1, "cost": 2.0}
    line = line_of(row, columns)
    assert (line.figures, line.failure) == ([Figure("2.00")], "it hangs")
    assert line.own and line.faint and not line.disturbed
    assert not line_of(row | {"rounds": 0, "mode": "sock"}, columns).figures


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (4.618, "4.62"), (14.04, "14.0"), (2654.3, "2\u202f654")]
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(912, "912"), (6012, "6.01k"), (216_000, "216k"), (1.2e6, "1.20M")]
)
def test_rates_are_short(value: float, text: str) -> None:
    assert rate(value) == text
