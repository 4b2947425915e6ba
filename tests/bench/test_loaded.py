"""Servers under load that are programs of others: their windows, their processes, their faults."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from netpoll.bench._native import Load
from netpoll.bench.arms import CommandArm
from netpoll.bench.cells import Cell, Entry
from netpoll.bench.cores import choose_pinning
from netpoll.bench.loaded import LoadPlan, Servers, Subject, fitted, samples_of
from netpoll.bench.process import Program
from netpoll.bench.rounds import Measure, Run, run_plan
from netpoll.bench.watch import Watch
from netpoll.bench.windows import figures

# An echo in two processes, a thread per connection; it ends after so many connections.
ECHO = """
import os, signal, socket, sys, threading

left = int(sys.argv[2])

def echo(client):
    with client:
        while data := client.recv(65536):
            client.sendall(data)

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
is_worker = os.fork() == 0
while True:
    client, _ = listener.accept()
    left -= 1
    if left < 0:
        print("no more connections", flush=True)
        os.killpg(0, signal.SIGTERM)  # both processes
    threading.Thread(target=echo, args=(client,), daemon=True).start()
"""


def arm(name: str, connections: int) -> CommandArm:
    command = ("{python}", "-c", ECHO, "{port}", str(connections))
    return CommandArm(name, "program", "an echo in two processes", command=command)


ARMS = {"echo": arm("echo", 1000), "weak": arm("weak", 3)}
CELL = Cell(8, 64)


@dataclass(frozen=True, kw_only=True)
class EchoPlan(LoadPlan):
    @property
    def entries(self) -> list[Entry]:
        return [Entry(name, "-") for name in self.arms]


@pytest.fixture
def plan() -> EchoPlan:
    return EchoPlan(
        arms=("echo",),
        pinning=choose_pinning(),
        rounds=2,
        cells=(CELL,),
        duration_s=0.1,
        warmup_s=0.02,
    )


started: list[Program] = []


def run(plan: EchoPlan) -> Run:
    started.clear()

    def start(subject: Subject) -> Program:
        started.append(Program(ARMS[subject.entry.arm], cpu=plan.pinning.server_cpu))
        return started[-1]

    def connect(server: Program, subject: Subject) -> Load:
        cell = subject.cell
        return Load(server.address, cell.connections, cell.size_bytes, stall_s=plan.stall_s)

    @contextlib.contextmanager
    def measuring(plan: EchoPlan, watch: Watch) -> Iterator[Measure]:
        servers = Servers(plan, start=start, load=connect, shared_by=lambda subject: subject.entry)
        with servers:
            yield servers.measure

    return run_plan(plan, measuring)


def assert_all_ended() -> None:
    for program in started:
        assert program.has_ended()
        with pytest.raises(OSError):
            os.kill(program.pid, 0)


def test_a_window_has_the_cpu_of_all_processes(plan: EchoPlan) -> None:
    samples = samples_of(run(plan), CELL, plan.entries[0])
    assert set(samples) == {0, 1}
    for sample in samples.values():
        assert sample.requests >= 8
        assert sample.wait_ns is None  # its processes share a core: that they wait says nothing
        assert 0 < sample.cpu_ns < 1.5 * sample.elapsed_ns
    row = figures(list(samples.values()), CELL.size_bytes)
    assert row["rounds"] == 2
    assert row["cpu_us"]["median"] > 0
    assert len(started) == 2, "every measurement has a server of its own"
    assert_all_ended()


def test_a_server_can_stay(plan: EchoPlan) -> None:
    assert len(samples_of(run(replace(plan, fresh=False)), CELL, plan.entries[0])) == 2
    assert len(started) == 1
    assert_all_ended()


def test_a_program_that_ends_has_a_fault_with_its_last_words(plan: EchoPlan) -> None:
    result = run(replace(plan, arms=("weak", "echo"), stall_s=1.0))
    assert result.faults == {
        Subject(CELL, Entry("weak", "-")): "it was killed by signal 15: no more connections"
    }
    assert len(samples_of(result, CELL, Entry("echo", "-"))) == 2
    assert_all_ended()


def test_a_quick_plan_fits_into_its_limit(plan: EchoPlan) -> None:
    many = replace(plan, cells=tuple(Cell(n, 64) for n in range(1, 9)), rounds=5, limit_s=8.0)
    quick = fitted(many, None, None)
    assert not quick.fresh
    without_limit = replace(quick, limit_s=None)
    assert 0.05 <= quick.duration_s < 1.0
    assert without_limit.expected_s <= 8.0
    asked = fitted(replace(many, duration_s=0.7), 0.7, 0.0)
    assert (asked.duration_s, asked.warmup_s) == (0.7, 0.0)
