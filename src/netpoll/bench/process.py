"""Child processes, cores and CPU clocks.

A server's CPU time is read from outside, with its process CPU clocks (clock_getcpuclockid(3)): the
server is not asked, so nothing that answers has to run in it. The kernel's own threads for
io_uring belong to the process and are counted.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from netpoll.bench import _native
from netpoll.bench.arms import MALLOC_TUNED, Arm

START_TIMEOUT_S = 20.0
SERVER = ("-m", "netpoll.bench.server")

# The kinds of a process CPU clock, from the kernel's posix-timers.h: all of a process's time as
# the scheduler accounts it, exact to the nanosecond; and its division, sampled at each timer tick.
_CLOCK_TICKS_ALL, _CLOCK_TICKS_USER, _CLOCK_SCHEDULER = 0, 1, 2

# Variables that would change what is measured.
_NOT_INHERITED = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "NETPOLL_BACKEND", "PYTHONMALLOC")


class ServerError(Exception):
    """A server child did not start or ended early; `str()` is the sentence for the user."""


@dataclass(frozen=True)
class CpuTime:
    """CPU time of a process, nanoseconds. `user_ns` and `system_ns` are what the timer tick saw."""

    total_ns: int
    user_ns: int
    system_ns: int

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        """The time between two readings. The total is exact; it is divided as the ticks of the
        same interval were, which is coarse below a second."""
        total = self.total_ns - earlier.total_ns
        user = self.user_ns - earlier.user_ns
        system = self.system_ns - earlier.system_ns
        share = user / (user + system) if user + system else 0.0
        return CpuTime(total, round(total * share), total - round(total * share))


def cpu_time(pid: int) -> CpuTime:
    """CPU time so far of process `pid`, all its threads. Raises OSError when it is gone."""

    def read(kind: int) -> int:
        return time.clock_gettime_ns((~pid << 3) | kind)

    user = read(_CLOCK_TICKS_USER)
    return CpuTime(read(_CLOCK_SCHEDULER), user, read(_CLOCK_TICKS_ALL) - user)


def run_delay_ns(pid: int) -> int | None:
    """How long the main thread of `pid` was ready to run while its core was somebody else's,
    nanoseconds so far; None where the kernel does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None


@dataclass(frozen=True)
class Pinning:
    """Which core the servers run on and which one the load."""

    server_cpu: int
    load_cpu: int

    @property
    def shared(self) -> bool:
        return self.server_cpu == self.load_cpu

    def sentence(self) -> str:
        if self.shared:
            return (
                f"one core only: servers and load share CPU {self.server_cpu}, so rates and "
                "latencies are of the pair; CPU per request is still the server's own"
            )
        return f"servers on CPU {self.server_cpu}, load on CPU {self.load_cpu}"


def _siblings(cpu: int) -> set[int]:
    """The hardware threads that share a core with `cpu`, itself included."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        text = path.read_text().strip()
    except OSError:
        return {cpu}
    result: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        result.update(range(int(first), int(last or first) + 1))
    return result


def choose_pinning(server_cpu: int | None = None, load_cpu: int | None = None) -> Pinning:
    """Two different physical cores of those this process may use; the last one for the servers,
    because interrupts like the first. Raises ValueError for a core that is not to be had."""
    allowed = sorted(os.sched_getaffinity(0))
    for cpu in (server_cpu, load_cpu):
        if cpu is not None and cpu not in allowed:
            raise ValueError(
                f"CPU {cpu} is not to be had: this process may use {', '.join(map(str, allowed))}"
            )
    if server_cpu is None:
        server_cpu = max((cpu for cpu in allowed if cpu != load_cpu), default=allowed[0])
    if load_cpu is None:
        apart = [cpu for cpu in allowed if cpu not in _siblings(server_cpu)]
        others = [cpu for cpu in allowed if cpu != server_cpu]
        load_cpu = (apart or others or allowed)[0]
    return Pinning(server_cpu, load_cpu)


def raise_fd_limit(wanted: int) -> int:
    """Raises the soft limit of open files to `wanted` if it can be had; returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and (hard < wanted or hard == resource.RLIM_INFINITY):
        try:  # root may raise the hard limit as well
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        except (ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    elif soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def child_environment(arm: Arm, malloc: str = "none") -> dict[str, str]:
    """The environment of an arm's process. `malloc` says who gets `MALLOC_TUNED`: "all",
    "asyncio" (the control only) or "none"."""
    env = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
    return env | malloc_settings(arm, malloc)


def malloc_settings(arm: Arm, malloc: str) -> dict[str, str]:
    """The glibc settings of this arm's process, beyond the inherited environment."""
    tuned = malloc == "all" or (malloc == "asyncio" and arm.name == "asyncio")
    return dict(MALLOC_TUNED) if tuned else {}


_PARENT_PID = "NETPOLL_BENCH_PARENT"


def die_with_parent() -> None:
    """For a child: ends this process when the harness that started it ends, however it ends."""
    _native.die_with_parent(signal.SIGKILL)
    if os.environ.get(_PARENT_PID, str(os.getppid())) != str(os.getppid()):
        sys.exit("the harness ended before its server began")


class Child:
    """A Python child that answers with one line of JSON and is killed at the end.

    Use it as a context manager. `args` are the interpreter's; `cpu` pins it (None: not at all);
    `commands`: it listens to its standard input.
    """

    def __init__(
        self, args: Iterable[str], env: dict[str, str], cpu: int | None, commands: bool = False
    ):
        self.process = subprocess.Popen(
            [sys.executable, *args],
            stdin=subprocess.PIPE if commands else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env | {_PARENT_PID: str(os.getpid())},
            process_group=0,  # Ctrl-C reaches the harness only, which then ends the children
        )
        if cpu is not None:
            # Threads started later inherit it, and an interpreter that has just begun has none.
            os.sched_setaffinity(self.process.pid, {cpu})

    @property
    def pid(self) -> int:
        return self.process.pid

    def answer(self, timeout_s: float = START_TIMEOUT_S) -> dict:
        """The next line. Raises ServerError when none comes in time or the child has ended."""
        output = self.process.stdout
        assert output is not None
        ready, _, _ = select.select([output], [], [], timeout_s)
        if not ready:
            raise ServerError(f"it did not answer within {timeout_s:g} s")
        line = output.readline()
        if not line:
            raise ServerError(self.last_words())
        return json.loads(line)

    def command(self, line: str) -> None:
        """Tells a child that listens. Raises BrokenPipeError when it has ended."""
        assert self.process.stdin is not None, "this child does not listen"
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def last_words(self) -> str:
        """Why the child ended: the last line of its standard error, or how it ended."""
        try:
            _, errors = self.process.communicate(timeout=2.0)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        lines = errors.decode(errors="replace").strip().splitlines()
        code = self.process.returncode
        how = f"it was killed by signal {-code}" if code < 0 else f"it ended with exit code {code}"
        return f"{how}: {lines[-1].strip()}" if lines else how

    def kill(self) -> None:
        """Ends the child. May be called again."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what it was not told any more
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()


class Server(Child):
    """A running echo server of one arm and mode; `address` is where it listens."""

    def __init__(
        self,
        arm: Arm,
        mode: str,
        *,
        cpu: int | None,
        bulk: bool = False,
        listen: str = "tcp",
        malloc: str = "none",
    ):
        args = [*SERVER, "--arm", arm.name, "--mode", mode, "--listen", listen]
        if bulk:
            args.append("--bulk")
        env = child_environment(arm, malloc)
        super().__init__(args, env, cpu)
        try:
            facts = self.answer()
        except BaseException:
            self.kill()
            raise
        if "unavailable" in facts:
            self.kill()
            raise ServerError(facts["unavailable"])
        address = facts["address"]
        self.address = address if isinstance(address, str) else tuple(address)


def check_arms(arms: Iterable[Arm]) -> dict[str, dict]:
    """What each arm is here ({"version", "loop"}), or {"unavailable": reason}; asks a child per
    arm, all at once."""
    children = {}
    facts: dict[str, dict] = {}
    try:
        for arm in arms:
            env = child_environment(arm)
            children[arm.name] = Child([*SERVER, "--arm", arm.name, "--check"], env, None)
        for name, child in children.items():
            try:
                facts[name] = child.answer()
            except ServerError as error:
                facts[name] = {"unavailable": str(error)}
    finally:
        for child in children.values():
            child.kill()
    return facts
