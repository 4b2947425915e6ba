"""The result as one JSON-able document; docs/benchmarks.md describes every field.

The tables and the page are made from this document alone, so that a saved file can be shown again
(``python -m netpoll bench show FILE``).
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from netpoll.bench.arms import ARMS, UDP_MODE
from netpoll.bench.cells import Cell, Entry
from netpoll.bench.echo import EchoRun
from netpoll.bench.idle import SEASON_CONNECTIONS, IdleRun
from netpoll.bench.micro import MicroRun
from netpoll.bench.primitives import WORKLOADS
from netpoll.bench.process import malloc_settings
from netpoll.bench.sched import SchedRun, sched_rows
from netpoll.bench.sched import arm_facts as sched_arm_facts
from netpoll.bench.stats import PERCENTILES, Sample, Spread, merge, paired_ratio, percentile_ns

SCHEMA_PREFIX = "netpoll.bench."
KINDS = ("echo", "micro", "idle", "files", "sched", "relay")

# Above this share of a window somebody else had the server's core: the row is marked.
DISTURBED_SHARE = 0.05

# User and system are told apart by the timer tick, 100 to 1000 times a second: with less CPU time
# than this that says nothing.
DIVIDED_FROM_NS = 300_000_000


def near_floor(entry: Entry) -> str:
    """The interface of the floor that is an entry's own; of datagrams there is only one."""
    return "epoll" if entry.mode == UDP_MODE else ARMS[entry.arm].interface


def floor_of(interface: str, entry: Entry) -> Entry:
    """The floor on this interface that does what the entry does."""
    return Entry(f"floor-{interface}", UDP_MODE if entry.mode == UDP_MODE else "-")


def header(kind: str, environment: dict, command: list[str], started_at: float) -> dict:
    """What every document begins with."""
    return {
        "schema": f"{SCHEMA_PREFIX}{kind}/1",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started_at)),
        "command": command,
        "environment": environment,
    }


def arm_facts(names: list[str], checked: dict[str, dict], malloc: str = "none") -> dict:
    """Per arm: what it is, its version, the reason when it was skipped, its malloc settings."""
    return {
        name: {
            "kind": ARMS[name].kind,
            "summary": ARMS[name].summary,
            "version": checked[name].get("version"),
            "loop": checked[name].get("loop"),
            "skipped": checked[name].get("unavailable"),
            "malloc": malloc_settings(ARMS[name], malloc),
        }
        for name in names
    }


def _in_mode(run: EchoRun, cell: Cell, entry: Entry, arm: str) -> Entry | None:
    """`arm` in the same mode; for what has no modes, in the first one that was measured."""
    modes = (entry.mode,) if entry.mode != "-" else run.plan.modes
    for mode in modes:
        if (cell, Entry(arm, mode)) in run.samples:
            return Entry(arm, mode)
    return None


def _cpu_ratio(run: EchoRun, cell: Cell, entry: Entry, to: Entry | None) -> float | None:
    if to is None:
        return None

    def per_round(which: Entry) -> dict[int, float]:
        return {s.round: s.cpu_us for s in run.samples.get((cell, which), ())}

    return paired_ratio(per_round(entry), per_round(to))


def _figures(samples: list[Sample], size_bytes: int) -> dict:
    histogram = merge(s.histogram for s in samples)
    latency = {f"p{p:g}": percentile_ns(histogram, p) / 1e3 for p in PERCENTILES}
    latency["max"] = max(s.latency_max_ns for s in samples) / 1e3
    cpu = Spread.of(s.cpu_us for s in samples)
    # Divided by the ticks of all rounds together: those of one window are few.
    total_ns = sum(s.cpu_ns for s in samples)
    user_share = sum(s.cpu_user_ns for s in samples) / total_ns
    is_divided = total_ns >= DIVIDED_FROM_NS
    return {
        "rounds": len(samples),
        "requests": sum(s.requests_all for s in samples),
        "requests_per_s": Spread.of(s.requests_per_s for s in samples).as_dict(),
        "mb_per_s": Spread.of(s.requests_per_s * size_bytes / 1e6 for s in samples).as_dict(),
        "latency_us": latency,
        "cpu_us": cpu.as_dict(),
        "cpu_user_us": cpu.median * user_share if is_divided else None,
        "cpu_system_us": cpu.median * (1 - user_share) if is_divided else None,
        "cpu_us_by_round": [s.cpu_us for s in samples],
        "server_busy": Spread.of(s.server_busy for s in samples).as_dict(),
        "histogram_ns": histogram,
    }


def _row(run: EchoRun, cell: Cell, entry: Entry) -> dict:
    key = cell, entry
    row: dict[str, Any] = {
        "connections": cell.connections,
        "size_bytes": cell.size_bytes,
        "cell": str(cell),
        "arm": entry.arm,
        "mode": entry.mode,
        "fault": run.faults.get(key),
        "rounds": 0,
    }
    samples = run.samples.get(key)
    if not samples:
        return row
    control = _in_mode(run, cell, entry, "asyncio")
    # With a thread per connection the threads keep each other waiting: that is no disturbance.
    waits = [s.wait_share for s in samples] if entry.arm != "sockets-threads" else [0.0]
    return (
        row
        | _figures(samples, cell.size_bytes)
        | {
            "cpu_vs_asyncio": _cpu_ratio(run, cell, entry, control),
            "cpu_vs_asyncio_mode": control.mode if control else None,
            "cpu_vs_uvloop": _cpu_ratio(run, cell, entry, _in_mode(run, cell, entry, "uvloop")),
            "cpu_vs_floor_epoll": _cpu_ratio(run, cell, entry, floor_of("epoll", entry)),
            "cpu_vs_floor_uring": _cpu_ratio(run, cell, entry, floor_of("uring", entry)),
            "near_floor": near_floor(entry),
            "disturbed_rounds": sum(w > DISTURBED_SHARE for w in waits),
            "syscalls_per_request": run.syscalls.get(key),
        }
    )


def _sample(cell: Cell, entry: Entry, sample: Sample) -> dict:
    facts = asdict(sample)
    del facts["histogram"]
    place = {"cell": str(cell), "arm": entry.arm, "mode": entry.mode}
    return place | facts


def echo_document(
    run: EchoRun, checked: dict[str, dict], environment: dict, command: list[str]
) -> dict:
    """The document of an echo run. `checked` is what `process.check_arms` found, of every arm that
    was asked for."""
    plan = run.plan
    skipped_or_run = list(checked)
    return header("echo", environment, command, run.started_at) | {
        "elapsed_s": run.elapsed_s,
        "stopped": run.stopped,
        "settings": {
            "modes": plan.modes,
            "cells": [asdict(cell) | {"label": str(cell)} for cell in plan.cells],
            "rounds": plan.rounds,
            "duration_s": plan.duration_s,
            "warmup_s": plan.warmup_s,
            "fresh_server_per_measurement": plan.fresh,
            "malloc": plan.malloc,
            "syscall_counter": run.syscall_counter,
        },
        "arms": arm_facts(skipped_or_run, checked, plan.malloc),
        "rows": [_row(run, cell, entry) for cell in plan.cells for entry in plan.entries],
        "samples": [_sample(*key, s) for key, samples in run.samples.items() for s in samples],
    }


def micro_document(
    run: MicroRun, checked: dict[str, dict], environment: dict, command: list[str]
) -> dict:
    """The document of a micro run."""
    plan = run.plan
    rows = []
    for workload in plan.workloads:
        for arm in plan.arms:
            by_round = run.samples.get((workload, arm), {})
            row: dict[str, Any] = {
                "workload": workload,
                "title": WORKLOADS[workload].title,
                "arm": arm,
                "mode": "-",
                "fault": run.faults.get(arm),
                "rounds": len(by_round),
            }
            if by_round:
                control = run.samples.get((workload, "asyncio"), {})
                row |= {
                    "ns": Spread.of(by_round.values()).as_dict(),
                    "ns_by_round": list(by_round.values()),
                    "vs_asyncio": paired_ratio(by_round, control),
                }
            rows.append(row)
    return header("micro", environment, command, run.started_at) | {
        "elapsed_s": run.elapsed_s,
        "stopped": run.stopped,
        "settings": {"rounds": plan.rounds, "scale": plan.scale},
        "arms": arm_facts(list(checked), checked),
        "rows": rows,
    }


def sched_document(run: SchedRun, environment: dict, command: list[str]) -> dict:
    """The document of a run of the scheduler benchmark."""
    return header("sched", environment, command, run.started_at) | {
        "elapsed_s": run.elapsed_s,
        "stopped": run.stopped,
        "settings": {"rounds": run.plan.rounds, "scale": run.plan.scale},
        "arms": sched_arm_facts(run),
        "rows": sched_rows(run),
    }


def idle_document(
    run: IdleRun, checked: dict[str, dict], environment: dict, command: list[str]
) -> dict:
    """The document of an idle run."""
    plan = run.plan
    rows = []
    for entry in plan.entries:
        by_round = run.samples.get(entry, {})
        row: dict[str, Any] = {
            "arm": entry.arm,
            "mode": entry.mode,
            "fault": run.faults.get(entry),
            "rounds": len(by_round),
        }
        if by_round:
            control = run.samples.get(Entry("asyncio", entry.mode), {})
            row |= {
                "bytes": Spread.of(by_round.values()).as_dict(),
                "bytes_by_round": list(by_round.values()),
                "vs_asyncio": paired_ratio(by_round, control),
            }
        rows.append(row)
    return header("idle", environment, command, run.started_at) | {
        "elapsed_s": run.elapsed_s,
        "stopped": run.stopped,
        "settings": {
            "rounds": plan.rounds,
            "connections": plan.connections,
            "seasoned": SEASON_CONNECTIONS,
            "modes": plan.modes,
            "malloc": plan.malloc,
        },
        "arms": arm_facts(list(checked), checked, plan.malloc),
        "rows": rows,
    }


def write_json(document: dict, path: Path) -> None:
    """Writes the document; the file is there wholly or not at all."""
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(json.dumps(document, indent=1) + "\n")
    scratch.replace(path)


def kind_of(document: dict) -> str:
    """Which benchmark it is of, out of KINDS. Raises ValueError for anything else."""
    schema = str(document.get("schema", "")) if isinstance(document, dict) else ""
    for kind in KINDS:
        if schema == f"{SCHEMA_PREFIX}{kind}/1":
            return kind
    raise ValueError("it is not a result of this version of netpoll bench")


def read_json(path: Path) -> dict:
    """A document that was written before. Raises ValueError when it is something else, OSError
    when it cannot be read."""
    try:
        document = json.loads(path.read_text())
        kind_of(document)
    except ValueError as error:
        raise ValueError(f"cannot show {path}: {error}") from None
    return document
