"""``bench micro``: what a loop's primitives cost, nanoseconds of CPU per operation."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from netpoll.bench.arms import ARMS, LOOP_ARMS, PEER_ARMS
from netpoll.bench.errors import UsageError
from netpoll.bench.primitives import WORKLOADS, run_workload
from netpoll.bench.process import check_arms
from netpoll.bench.records import Document, Facts
from netpoll.bench.works import RunRound, WorksKind

__all__ = ["KIND"]


class Micro(WorksKind):
    name = "micro"
    help = "loop primitives: call_soon, timers, sleep(0), futures, gather; ns per operation"
    description = (
        "Measures what a loop does all day, each loop in a process of its own, rounds interleaved."
    )
    title = "What a loop does all day"
    method = """
Each loop is a process of its own, pinned to one core; rounds are interleaved. The figure is CPU
time of the process, not the clock on the wall, per operation. Figures are medians over the rounds;
a dot is one round.
"""
    arms = ARMS
    default_arms = tuple(name for name in LOOP_ARMS if name not in PEER_ARMS)
    peers = PEER_ARMS
    operations = {name: workload.title for name, workload in WORKLOADS.items()}
    control = "asyncio"
    ratio = "vs_asyncio"
    round_s = 0.6
    option = "--workloads"
    noun = "workload"

    def chosen_arms(self, options: argparse.Namespace) -> tuple[str, ...]:
        arms = super().chosen_arms(options)
        for name in arms:
            if name not in LOOP_ARMS:
                raise UsageError(f"{name} is not an event loop: it has no part in bench micro")
        return arms

    def check(self, arms: Sequence[str]) -> dict[str, Facts]:
        return check_arms(ARMS[name] for name in arms)

    def notes(self, document: Document, wide: bool) -> list[str]:
        (note,) = super().notes(document, wide)
        notes = [f"{note} Process CPU time, so that neighbours on the core do not count."]
        if document["settings"]["scale"] != 1.0:
            notes.append(f"{document['settings']['scale']:g} of the usual number of operations.")
        return notes

    @contextmanager
    def worker(self, arm: str, settings: Mapping[str, Any]) -> Iterator[RunRound]:
        loop = ARMS[arm].new_loop()

        def run_round(share: float) -> dict[str, float]:
            figures = {}
            for name in settings["operations"]:
                workload = WORKLOADS[name]
                gc.collect()
                count = max(int(workload.count * share) // 1000 * 1000, 1000)
                figures[name] = run_workload(loop, workload, count)
            return figures

        yield run_round
        loop.close()


KIND = Micro()
