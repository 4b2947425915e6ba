"""Programs as arms: started, waited for, pinned, measured with all their processes, and ended."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netpoll.bench.arms import CommandArm
from netpoll.bench.clocks import cpu_time, descendants, tree_cpu_time
from netpoll.bench.errors import ArmUnavailable, ServerError
from netpoll.bench.process import Program, check_commands, readable

from ..support import SLOWNESS

# A master that listens, and workers that are forked; each connection says what shall be done:
# "burn MS" in the worker, "thread MS" in a thread of it, "child MS" in a process that it waits for,
# "orphan MS" in one whose parent has ended, "end" to end the worker itself.
FORKING = """
import os, socket, sys, threading, time

def burn(ms):
    end = time.thread_time() + ms / 1000
    while time.thread_time() < end:
        pass

def child(ms):
    if (pid := os.fork()) == 0:
        burn(ms)
        os._exit(0)
    os.waitpid(pid, 0)

def orphan(ms):
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        if os.fork() == 0:
            burn(ms)
            os.write(writer, b"!")
        os._exit(0)
    os.waitpid(pid, 0)
    os.read(reader, 1)

def work(listener):
    while True:
        client, _ = listener.accept()
        with client:
            what, _, ms = client.recv(100).decode().partition(" ")
            if what == "end":
                os._exit(0)
            if what == "burn":
                burn(int(ms))
            if what == "thread":
                thread = threading.Thread(target=burn, args=(int(ms),))
                thread.start()
                thread.join()
            if what == "child":
                child(int(ms))
            if what == "orphan":
                orphan(int(ms))
            client.sendall(b"done")

port, workers = int(sys.argv[1]), int(sys.argv[2])
listener = socket.create_server(("127.0.0.1", port))
for _ in range(workers):
    if os.fork() == 0:
        work(listener)
while True:
    os.wait()
    if os.fork() == 0:
        work(listener)
"""

BURN_MS = 300
TICKS_MS = 45  # of what has ended the kernel tells the time in ticks, of 10 ms here


def forking(workers: int = 2) -> CommandArm:
    command = ("{python}", "-c", FORKING, "{port}", str(workers))
    return CommandArm("forking", "program", "a master and its workers", command=command)


def ask(program: Program, what: str) -> None:
    with socket.create_connection(program.address, timeout=30 * SLOWNESS) as client:
        client.sendall(what.encode())
        client.recv(4)


def whole_tree(root: int, count: int) -> list[int]:
    """The processes of a program, once they are all there: the port answers before that."""
    deadline_s = time.monotonic() + 10 * SLOWNESS
    while len(tree := [root, *descendants(root)]) < count:
        assert time.monotonic() < deadline_s, f"only {tree}"
        time.sleep(0.01)
    return tree


def spent_ms(program: Program, what: str) -> float:
    before = program.cpu_time()
    ask(program, what)
    return (program.cpu_time() - before).total_ns / 1e6


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with Program(forking(), cpu=max(os.sched_getaffinity(0))) as running:
        yield running


@pytest.mark.parametrize("what", ["burn", "thread", "child", "orphan"])
def test_cpu_time_is_that_of_all_threads_and_processes(program: Program, what: str) -> None:
    extra_ms = TICKS_MS * SLOWNESS
    assert abs(spent_ms(program, f"{what} {BURN_MS}") - BURN_MS) < extra_ms


def test_a_process_that_has_ended_is_not_forgotten(program: Program) -> None:
    ask(program, f"burn {BURN_MS}")
    workers = set(whole_tree(program.pid, 4))
    before = program.cpu_time()
    ask(program, "end")
    deadline_s = time.monotonic() + 10 * SLOWNESS
    while set(whole_tree(program.pid, 4)) == workers:
        assert time.monotonic() < deadline_s, "the master made no new worker"
        time.sleep(0.01)
    lost_ms = -(program.cpu_time() - before).total_ns / 1e6
    assert lost_ms < TICKS_MS


def test_a_tree_that_waits_costs_nothing(program: Program) -> None:
    before = program.cpu_time()
    time.sleep(0.2)
    assert (program.cpu_time() - before).total_ns < 20_000_000


def test_all_its_processes_are_on_the_core_that_was_asked_for(program: Program) -> None:
    for pid in whole_tree(program.pid, 4):  # the supervisor, the master, two workers
        assert os.sched_getaffinity(pid) == {max(os.sched_getaffinity(0))}


def assert_gone(pids: list[int]) -> None:
    deadline_s = time.monotonic() + 10 * SLOWNESS
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline_s, f"still there: {alive}"
        time.sleep(0.01)


def test_the_end_is_the_end_of_the_whole_tree() -> None:
    with Program(forking(3), cpu=None) as program:
        tree = whole_tree(program.pid, 5)
    assert_gone(tree)
    program.kill()  # may be called again
    with pytest.raises(OSError):
        tree_cpu_time(program.pid)


def test_it_ends_with_the_harness_however_that_ends() -> None:
    code = f"""if True:
        import time
        from netpoll.bench.arms import CommandArm
        from netpoll.bench.process import Program
        arm = {forking()!r}
        program = Program(arm, cpu=None)
        print(program.pid, flush=True)
        time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as harness:
        tree = whole_tree(int(harness.stdout.readline()), 4)
        harness.kill()
    assert_gone(tree)


def test_a_worker_that_is_stopped_ends_as_well() -> None:
    with Program(forking(1), cpu=None) as program:
        tree = whole_tree(program.pid, 3)
        os.kill(tree[-1], signal.SIGSTOP)
    assert_gone(tree)


# ---- what does not start ----------------------------------------------------------------------


def test_a_program_that_ends_has_last_words() -> None:
    arm = CommandArm("a", "program", "", command=("{python}", "-c", "exit('no licence')"))
    with pytest.raises(ServerError, match="exit code 1: no licence"):
        Program(arm, cpu=None)


def test_a_program_that_is_killed_says_by_what() -> None:
    for signum in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        code = f"import os; os.kill(os.getpid(), {int(signum)})"
        arm = CommandArm("a", "program", "", command=("{python}", "-c", code))
        with pytest.raises(ServerError, match=f"killed by signal {int(signum)}"):
            Program(arm, cpu=None)


def test_a_program_that_does_not_listen_is_not_waited_for_for_ever() -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    arm = CommandArm("a", "program", "", command=("{python}", "-c", code))
    with pytest.raises(ServerError, match=r"did not answer within 0\.5 s"):
        Program(arm, cpu=None, timeout_s=0.5)


def test_what_answering_means_can_be_said() -> None:
    asked = []

    def answers(address: tuple[str, int]) -> bool:
        asked.append(address)
        return len(asked) == 3

    with Program(forking(), cpu=None, answers=answers) as program:
        assert asked == [program.address] * 3


def test_a_program_has_the_environment_of_its_arm(tmp_path: Path) -> None:
    code = "import os; open(os.environ['WHERE'], 'w').write('here'); exit()"
    arm = CommandArm(
        "a",
        "program",
        "",
        command=("{python}", "-c", code),
        environment={"WHERE": str(tmp_path / "file")},
    )
    with pytest.raises(ServerError, match="exit code 0"):
        Program(arm, cpu=None)
    assert (tmp_path / "file").read_text() == "here"


def test_what_is_not_installed_says_so() -> None:
    arms = [
        CommandArm("a", "program", "", command=("no-such-program",)),
        CommandArm("b", "program", "", command=("{python}", "-m", "ghost"), module="ghost"),
        CommandArm("c", "program", "", command=("{python}",), distribution="netpoll"),
    ]
    facts = check_commands(arms)
    assert facts["a"] == {"unavailable": "there is no program 'no-such-program' here"}
    assert facts["b"] == {"unavailable": "not installed (pip install ghost)"}
    assert set(facts["c"]) == {"version"}
    with pytest.raises(ArmUnavailable):
        arms[0].check()


def test_one_process_is_a_tree_of_one() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        time.sleep(0.2)
        assert descendants(process.pid) == []
        tree, alone = tree_cpu_time(process.pid), cpu_time(process.pid)
        assert 0 <= alone.total_ns - tree.total_ns < 50_000_000
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"\n")
            process.stdin.flush()


def test_what_is_readable_above_the_descriptors_of_select() -> None:
    """A harness has thousands of connections (bug class 82)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip("a process may not have so many open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    (here, there), high = os.pipe(), 2500
    try:
        os.dup2(here, high)
        assert readable([high], 0.0) == []
        os.write(there, b"x")
        assert readable([high], 10.0) == [high]
    finally:
        for fd in (here, there, high):
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
