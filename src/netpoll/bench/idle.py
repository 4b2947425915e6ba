"""The idle benchmark: user memory per idle connection.

A server child has already served a hundred connections, so that what a loop makes once is made;
then ten thousand connect, each has one message echoed (so that each is accepted, and has what a
connection that was used keeps), and the server's private memory is read before and after.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from netpoll.bench import _native
from netpoll.bench.arms import ARMS
from netpoll.bench.cells import Entry, entries, rotated
from netpoll.bench.echo import SPARE_FDS, Step, no_garbage_collection, on_cpu
from netpoll.bench.process import Pinning, Server, ServerError, raise_fd_limit
from netpoll.bench.watch import INTERRUPTED, Watch

SEASON_CONNECTIONS = 100
MESSAGE_BYTES = 64
SETTLE_S = 0.2
PER_MEASUREMENT_S = 1.6  # about, at 10 000 connections


@dataclass(frozen=True)
class IdlePlan:
    """What to run; limit_s as in EchoPlan."""

    arms: tuple[str, ...]
    modes: tuple[str, ...]
    pinning: Pinning
    connections: int = 10_000
    rounds: int = 3
    malloc: str = "none"
    limit_s: float | None = None

    @property
    def entries(self) -> list[Entry]:
        return entries(self.arms, self.modes)

    @property
    def measurement_s(self) -> float:
        return 0.4 + (PER_MEASUREMENT_S - 0.4) * self.connections / 10_000

    @property
    def expected_s(self) -> float:
        expected_s = len(self.entries) * self.rounds * self.measurement_s
        return min(expected_s, self.limit_s) if self.limit_s else expected_s


@dataclass
class IdleRun:
    """`samples`: entry to bytes of user memory per connection, by round."""

    plan: IdlePlan
    samples: dict[Entry, dict[int, float]] = field(default_factory=dict)
    faults: dict[Entry, str] = field(default_factory=dict)
    stopped: str | None = None
    started_at: float = field(default_factory=time.time)
    elapsed_s: float = 0.0


def user_memory_bytes(pid: int) -> int:
    """Memory that only this process has (its unique set size)."""
    return psutil.Process(pid).memory_full_info().uss


def _connect(server: Server, connections: int, stop_fd: int) -> _native.Load:
    load = _native.Load(
        server.address,
        connections,
        MESSAGE_BYTES,
        stop_fd=stop_fd,
        stall_s=10.0,
        reset_on_close=True,
    )
    load.run(0)  # one message each
    return load


def measure_idle(plan: IdlePlan, entry: Entry, stop_fd: int = -1) -> float:
    """Bytes per connection. Raises ServerError or OSError when the server fails."""
    arm, cpu = ARMS[entry.arm], plan.pinning.server_cpu
    with Server(arm, entry.mode, cpu=cpu, malloc=plan.malloc) as server:
        with _connect(server, SEASON_CONNECTIONS, stop_fd):
            before = user_memory_bytes(server.pid)
            with _connect(server, plan.connections, stop_fd):
                time.sleep(SETTLE_S)
                after = user_memory_bytes(server.pid)
                server.kill()  # before the connections end: it would have to end each of them
    return (after - before) / plan.connections


def run_idle(plan: IdlePlan, progress: Callable[[Step], None] = lambda step: None) -> IdleRun:
    """Runs the plan; what is there by Ctrl-C or by the time limit is returned. Raises ValueError
    when so many connections cannot be opened here."""
    wanted = plan.connections + SEASON_CONNECTIONS + SPARE_FDS
    if raise_fd_limit(wanted) < wanted:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        raise ValueError(
            f"{plan.connections} connections need {wanted} open files and the limit is {limit}: "
            "raise it (ulimit -Hn), or give fewer with --connections"
        )
    run = IdleRun(plan)
    done, total = 0, plan.rounds * len(plan.entries)
    with (
        Watch(plan.limit_s) as watch,
        no_garbage_collection(),
        on_cpu(plan.pinning.load_cpu),
    ):
        for round_number in range(plan.rounds):
            for entry in rotated(plan.entries, round_number):
                run.elapsed_s = watch.elapsed_s
                run.stopped = run.stopped or watch.why_stop(plan.measurement_s)
                if run.stopped:
                    return run
                group = f"round {round_number + 1} of {plan.rounds}"
                progress(Step(done, total, group, str(entry)))
                done += 1
                if entry not in run.faults:
                    _keep_figure(run, entry, round_number, watch.fd)
        run.elapsed_s = watch.elapsed_s
    return run


def _keep_figure(run: IdleRun, entry: Entry, round_number: int, stop_fd: int) -> None:
    try:
        figure = measure_idle(run.plan, entry, stop_fd)
    except _native.LoadStopped:
        run.stopped = INTERRUPTED
    except (ServerError, OSError) as error:
        run.faults[entry] = str(error)
    else:
        run.samples.setdefault(entry, {})[round_number] = figure
