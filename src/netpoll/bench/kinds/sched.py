"""``bench sched``: what queueing, spawning, stealing and priorities cost and buy."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from netpoll.bench.arms import ARMS, Arm, is_own
from netpoll.bench.blocks import Figure, Group, Line, Table
from netpoll.bench.kind import distinct, measured
from netpoll.bench.process import check_arms
from netpoll.bench.records import Document, Facts, Row
from netpoll.bench.schedworks import RUNNERS, SUMMARIES, WORKS
from netpoll.bench.works import RunRound, WorksKind

__all__ = ["KIND"]

COLUMNS = 4  # operations side by side: more do not fit into a terminal


class Sched(WorksKind):
    name = "sched"
    help = "the scheduler: post, spawn, parallel and skewed work, priorities"
    description = (
        "Measures tasks: what queueing one costs, what priorities and stealing buy; against "
        "threads, asyncio and uvloop."
    )
    title = "What a scheduler does all day"
    method = """
Each arm is a process of its own, on all CPUs; rounds are interleaved. Costs (post, spawn) are
CPU time of the process per operation; parallel work and waits are time on the wall. A ratio
compares with the arm that the line names, round by round. An urgent task is one in the CONTROL lane
where an arm has lanes, and one at the end of the queue where it has none; 400 tasks of 50 µs are
queued at any time. Figures are medians over the rounds; a dot is one round.
"""
    arms = {name: Arm(name, "scheduler", summary) for name, summary in SUMMARIES.items()}
    default_arms = tuple(arms)
    pinned = False
    fills_limit = True
    operations = {name: work.title for name, work in WORKS.items()}
    unit = "ns per operation"
    round_s = 2.5
    noun = "workload"

    def control_of(self, operation: str) -> str:
        return WORKS[operation].control

    def measured_operations(self, plan: Any, arm: str) -> Sequence[str]:
        return [name for name in plan.operations if arm in WORKS[name].arms]

    def check(self, arms: Sequence[str]) -> dict[str, Facts]:
        """Only uvloop may be missing."""
        missing = {
            name: facts
            for name, facts in check_arms(ARMS[a] for a in arms if a == "uvloop").items()
            if "unavailable" in facts
        }
        return {name: missing.get(name, {}) for name in arms}

    @contextmanager
    def worker(self, arm: str, settings: Mapping[str, Any]) -> Iterator[RunRound]:
        runner = RUNNERS[arm]()

        def run_round(share: float) -> dict[str, float]:
            figures = {}
            for name in settings["operations"]:
                work = WORKS[name]
                gc.collect()
                figures[name] = work.run(runner, max(int(work.count * share), 10))
            return figures

        yield run_round
        runner.close()

    # ---- the document and its looks

    def row_facts(self, operation: str) -> Facts:
        return super().row_facts(operation) | {"control": self.control_of(operation)}

    def line_title(self, row: Row) -> str:
        return f"{row['title']}, × {row['control']}"

    def page_caption(self) -> str:
        return "ns per operation, and in small figures the ratio to the arm that the line names."

    def tables(self, document: Document, wide: bool) -> list[Table]:
        """A line per arm, for there are more arms than columns."""
        rows = measured(document)
        operations = distinct(rows, "workload")
        return [
            self._table(rows, operations[i : i + COLUMNS], title="" if i else f"Tasks: {self.unit}")
            for i in range(0, len(operations), COLUMNS)
        ]

    def _table(self, rows: list[Row], operations: list[str], title: str) -> Table:
        here = {(r["arm"], r["workload"]): r for r in rows if r["workload"] in operations}
        best = {
            operation: min(r["ns"]["median"] for (_, o), r in here.items() if o == operation)
            for operation in operations
        }

        def figures(arm: str) -> list[Figure]:
            return [self.figure(here.get((arm, o)), best[o]) for o in operations]

        arms = dict.fromkeys(arm for arm, _ in here)
        lines = [Line(arm, figures(arm), own=is_own(arm)) for arm in arms]
        return Table(["arm", *operations], [Group("", lines)], title)

    def notes(self, document: Document, wide: bool) -> list[str]:
        (note,) = super().notes(document, wide)
        described = dict.fromkeys(
            f"{row['workload']}: {row['title']}, × {row['control']}" for row in document["rows"]
        )
        return [note[:-1] + ", and its ratio to the arm named here:", *described]


KIND = Sched()
