"""Kinds that measure what an operation costs: rows of nanoseconds by operation and arm.

A measurement gives {operation: ns}. The rows, the table with a line per operation and a column per
arm, and the page are the same for all of these kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from netpoll.bench.blocks import (
    Bar,
    Bars,
    Block,
    Figure,
    Group,
    Heading,
    Line,
    Table,
    counted,
    number,
    ratio,
)
from netpoll.bench.kind import Kind, distinct, measured
from netpoll.bench.records import Document, Facts, Row
from netpoll.bench.rounds import Run
from netpoll.bench.stats import Spread, paired_ratio

__all__ = ["CostKind", "spread_figures"]


class CostKind(Kind):
    """operations: name to title. control: the arm that the ratios are to; ratio: their key in a
    row. unit: of a figure, as the table's title says it."""

    operations: ClassVar[Mapping[str, str]]
    control: ClassVar[str]
    ratio: ClassVar[str] = "vs_control"
    unit: ClassVar[str] = "ns of CPU per operation"

    def control_of(self, operation: str) -> str:
        return self.control

    def measured_operations(self, plan: Any, arm: str) -> Sequence[str]:
        """What this arm can do, out of what the plan asks for."""
        return tuple(plan.operations)

    # ---- the document

    def row_facts(self, operation: str) -> Facts:
        """What a row says of its operation."""
        return {"workload": operation, "title": self.operations[operation]}

    def rows(self, run: Run) -> list[Row]:
        def by_round(arm: str, operation: str) -> dict[int, float]:
            samples = run.samples.get(arm, {})
            return {r: figures[operation] for r, figures in samples.items()}

        rows = []
        for operation in run.plan.operations:
            able = [a for a in run.plan.arms if operation in self.measured_operations(run.plan, a)]
            control = self.control_of(operation)
            reference = by_round(control, operation) if control in able else {}
            for arm in able:
                ns = by_round(arm, operation)
                row = self.row_facts(operation) | {
                    "arm": arm,
                    "mode": "-",
                    "fault": run.faults.get(arm),
                    "rounds": len(ns),
                }
                if ns:
                    row |= {
                        "ns": Spread.of(ns.values()).as_dict(),
                        "ns_by_round": list(ns.values()),
                        self.ratio: paired_ratio(ns, reference),
                    }
                rows.append(row)
        return rows

    # ---- to look at

    def line_title(self, row: Row) -> str:
        """The head of an operation's line on the page."""
        return str(row["title"])

    def figure(self, row: Row | None, best: float) -> Figure:
        """The cost, with its ratio to the control; the best of the operation stands out."""
        if row is None:
            return Figure("–")
        value, versus = row["ns"]["median"], row[self.ratio]
        sub = "" if versus is None else ratio(versus)
        return Figure(number(value), sub, tone="best" if value == best else "", shade=versus)

    def operation_table(self, document: Document, title: str = "", caption: str = "") -> Table:
        """A line per operation, a column per arm."""
        rows = measured(document)
        arms = distinct(rows, "arm")
        lines = []
        for operation in distinct(rows, "workload"):
            line = {row["arm"]: row for row in rows if row["workload"] == operation}
            best = min(row["ns"]["median"] for row in line.values())
            head = self.line_title(next(iter(line.values())))
            lines.append(Line(head, [self.figure(line.get(arm), best) for arm in arms]))
        return Table(["operation", *arms], [Group("", lines)], title, caption)

    def tables(self, document: Document, wide: bool) -> list[Table]:
        return [self.operation_table(document, f"{self.unit} (and × {self.control})")]

    def notes(self, document: Document, wide: bool) -> list[str]:
        return [
            f"{counted(document['settings']['rounds'], 'round')}, arms interleaved; the median."
        ]

    def page_caption(self) -> str:
        return f"{self.unit}, and in small figures the ratio to {self.control}."

    def section(self, document: Document) -> list[Block]:
        rows = measured(document)
        charts = []
        for operation in distinct(rows, "workload"):
            here = [row for row in rows if row["workload"] == operation]
            bars = [Bar(row["arm"], (row["ns"]["median"],), row["ns_by_round"]) for row in here]
            charts.append(Bars(f"cost-{operation}", f"{here[0]['title']}, ns", bars, unit="ns"))
        table = self.operation_table(document, caption=self.page_caption())
        return [Heading("Figures"), table, Heading("Charts"), *charts]


def spread_figures(spread: Facts) -> list[Figure]:
    """A median, the least, and half the range in per cent."""
    return [
        Figure(number(spread["median"]), tone="key"),
        Figure(number(spread["min"])),
        Figure(f"{spread['spread_percent']:.0f}"),
    ]
