"""The echo benchmark: servers as children on one core, the load on another, arms interleaved.

A round measures every cell with every entry (an arm in a mode) once, in an order that begins at
another entry in each round. One measurement is: a server (a fresh process), the connections, a
warm-up, then a window in which requests, latencies and the server's CPU time are counted. Between
warm-up and window, and after it, nothing is in flight, so the CPU time is that of exactly the
requests counted with it.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from netpoll.bench import _native, tls
from netpoll.bench.arms import ARMS, TLS_MODE, UDP_MODE
from netpoll.bench.cells import Cell, Entry, entries, rotated
from netpoll.bench.process import (
    Pinning,
    Server,
    ServerError,
    cpu_time,
    raise_fd_limit,
    run_delay_ns,
)
from netpoll.bench.stats import Sample
from netpoll.bench.syscalls import SyscallCounter
from netpoll.bench.watch import INTERRUPTED, Watch

START_S = 0.25  # a server child, until it listens
SETTLE_S = 0.02  # connections, readings, the last answers of a window
SHORTEST_WINDOW_S = 0.05
SPARE_FDS = 200


@dataclass(frozen=True)
class EchoPlan:
    """What to run.

    fresh: a new server process for each measurement; else one per entry for the whole run.
    limit_s: no measurement begins that would end later than this after the start; None: no limit.
    stall_s: patience with a server that does not answer.
    """

    arms: tuple[str, ...]
    modes: tuple[str, ...]
    cells: tuple[Cell, ...]
    pinning: Pinning
    rounds: int = 3
    duration_s: float = 1.0
    warmup_s: float = 0.2
    fresh: bool = True
    malloc: str = "all"
    limit_s: float | None = None
    stall_s: float = 5.0
    syscalls: bool = False

    @property
    def entries(self) -> list[Entry]:
        return entries(self.arms, self.modes)

    @property
    def measurement_s(self) -> float:
        """How long one measurement takes."""
        return self.duration_s + self.warmup_s + SETTLE_S + (START_S if self.fresh else 0.0)

    @property
    def count(self) -> int:
        """How many measurements the run has, the counting of system calls included."""
        return len(self.entries) * len(self.cells) * (self.rounds + self.syscalls)

    @property
    def expected_s(self) -> float:
        start_once_s = 0.0 if self.fresh else len(self.entries) * START_S
        expected_s = self.count * self.measurement_s + start_once_s
        return min(expected_s, self.limit_s) if self.limit_s else expected_s


@dataclass
class EchoRun:
    """What came out. `faults`: (cell, entry) to the sentence that says what its server did."""

    plan: EchoPlan
    samples: dict[tuple[Cell, Entry], list[Sample]] = field(default_factory=dict)
    faults: dict[tuple[Cell, Entry], str] = field(default_factory=dict)
    syscalls: dict[tuple[Cell, Entry], dict[str, float]] = field(default_factory=dict)
    syscall_counter: str | None = None
    stopped: str | None = None  # why the run ended before its plan did
    started_at: float = field(default_factory=time.time)  # Unix time
    elapsed_s: float = 0.0


@dataclass(frozen=True)
class Step:
    """What is measured next: for a progress bar. `done` of `total` lie behind."""

    done: int
    total: int
    group: str
    text: str


Progress = Callable[[Step], None]


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Keeps the calling thread on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def measure(server: Server, load: _native.Load, duration_s: float, round_number: int) -> Sample:
    """One window. Raises LoadError when the server misbehaves, OSError when it is gone."""
    wait_before = run_delay_ns(server.pid)
    load_before = time.thread_time_ns()
    cpu_before = cpu_time(server.pid)
    result = load.run(duration_s)
    cpu = cpu_time(server.pid) - cpu_before
    load_cpu = time.thread_time_ns() - load_before
    wait_after = run_delay_ns(server.pid)
    wait_ns = None if wait_before is None or wait_after is None else wait_after - wait_before
    return Sample(
        round=round_number,
        requests=result["requests"],
        requests_all=result["requests_all"],
        checked_bytes=result["checked_bytes"],
        window_ns=result["window_ns"],
        elapsed_ns=result["elapsed_ns"],
        cpu_ns=cpu.total_ns,
        cpu_user_ns=cpu.user_ns,
        cpu_system_ns=cpu.system_ns,
        load_cpu_ns=load_cpu,
        wait_ns=wait_ns,
        latency_max_ns=result["latency_max_ns"],
        histogram=result["histogram"],
    )


class EchoRunner:
    """Runs a plan. `run()` returns what there is, also after Ctrl-C or at the time limit."""

    def __init__(self, plan: EchoPlan, progress: Progress = lambda step: None):
        self.plan = plan
        self.progress = progress
        self.result = EchoRun(plan)
        self.servers: dict[tuple[Entry, bool], Server] = {}
        self.watch = Watch(plan.limit_s)
        self.steps_done = 0

    def run(self) -> EchoRun:
        raise_fd_limit(max(cell.connections for cell in self.plan.cells) + SPARE_FDS)
        result = self.result
        with self.watch, no_garbage_collection():
            try:
                with on_cpu(self.plan.pinning.load_cpu):
                    self.run_rounds()
                if self.plan.syscalls and not result.stopped:
                    self.count_syscalls()
            except _native.LoadStopped:
                result.stopped = INTERRUPTED
            finally:
                for server in self.servers.values():
                    server.kill()
        result.elapsed_s = self.watch.elapsed_s
        return result

    def may_step(self, group: str, entry: Entry) -> bool:
        """Announces the next measurement; False when the run has to end before it."""
        self.result.stopped = self.watch.why_stop(self.plan.measurement_s)
        if self.result.stopped:
            return False
        self.progress(Step(self.steps_done, self.plan.count, group, str(entry)))
        self.steps_done += 1
        return True

    def run_rounds(self) -> None:
        plan = self.plan
        for round_number in range(plan.rounds):
            for cell in plan.cells:
                for entry in rotated(plan.entries, round_number * 5):
                    if not self.may_step(
                        f"round {round_number + 1} of {plan.rounds}, {cell}", entry
                    ):
                        return
                    self.measure_entry(cell, entry, round_number)

    def measure_entry(self, cell: Cell, entry: Entry, round_number: int) -> None:
        """One measurement into `samples`, or the reason into `faults`; a server that failed once
        in a cell is not asked there again."""
        key = cell, entry
        if key in self.result.faults:
            return
        try:
            server = self.server(cell, entry)
            with self.load(server, cell, entry) as load:
                load.run(self.plan.warmup_s)
                sample = measure(server, load, self.plan.duration_s, round_number)
        except (ServerError, OSError) as error:
            self.result.faults[key] = self.fault_text(cell, entry, error)
            self.drop_server(cell, entry)
        else:
            if sample.requests:
                self.result.samples.setdefault(key, []).append(sample)
            else:
                self.result.faults[key] = "no request was answered within the window"
        if self.plan.fresh:
            self.drop_server(cell, entry)

    def load(self, server: Server, cell: Cell, entry: Entry) -> _native.Load:
        return _native.Load(
            server.address,
            cell.connections,
            cell.size_bytes,
            stop_fd=self.watch.fd,
            stall_s=self.plan.stall_s,
            datagrams=entry.mode == UDP_MODE,
            tls_library=tls.openssl_path() if entry.mode == TLS_MODE else None,
        )

    def server(self, cell: Cell, entry: Entry) -> Server:
        key = entry, cell.is_bulk
        if key not in self.servers:
            self.servers[key] = Server(
                ARMS[entry.arm],
                entry.mode,
                cpu=self.plan.pinning.server_cpu,
                bulk=cell.is_bulk,
                malloc=self.plan.malloc,
            )
        return self.servers[key]

    def drop_server(self, cell: Cell, entry: Entry) -> None:
        if server := self.servers.pop((entry, cell.is_bulk), None):
            server.kill()

    def fault_text(self, cell: Cell, entry: Entry, error: Exception) -> str:
        """What happened; when the server process ended, its last words are the better reason."""
        server = self.servers.get((entry, cell.is_bulk))
        if server is not None and server.process.poll() is not None:
            return server.last_words()
        return str(error)

    def count_syscalls(self) -> None:
        """A run of its own for each entry, never the timed one: counting costs time."""
        counter = SyscallCounter.find()
        self.result.syscall_counter = counter.name if counter else None
        if counter is None:
            return
        for cell in self.plan.cells:
            for entry in self.plan.entries:
                key = cell, entry
                if not self.may_step(f"system calls, {cell}", entry):
                    return
                if key not in self.result.samples:
                    continue
                try:
                    server = self.server(cell, entry)
                    with on_cpu(self.plan.pinning.load_cpu), self.load(server, cell, entry) as load:
                        load.run(self.plan.warmup_s)
                        with counter.attached(server.pid) as counts:
                            requests = load.run(self.plan.duration_s)["requests_all"]
                except (ServerError, OSError):
                    continue
                finally:
                    self.drop_server(cell, entry)
                self.result.syscalls[key] = {k: v / requests for k, v in counts.items()}
