"""Child processes: those of this package, which answer in JSON, and programs of others.

Both say what CPU time they have used (`cpu_time`), which is read from outside.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Self

from netpoll.bench import _native
from netpoll.bench.arms import AGAIN, MALLOC_TUNED, Arm, CommandArm, SocketArm
from netpoll.bench.clocks import CpuTime, cpu_time, run_delay_ns, tree_cpu_time
from netpoll.bench.errors import ArmUnavailable, ServerError
from netpoll.bench.records import Facts

__all__ = [
    "Child",
    "Program",
    "Server",
    "check_arms",
    "check_commands",
    "child_environment",
    "die_with_parent",
    "malloc_settings",
    "raise_fd_limit",
    "readable",
]

START_TIMEOUT_S = 20.0
ANSWER_PAUSE_S = 0.01
SERVER = ("-m", "netpoll.bench.server")

# Variables that would change what is measured.
_NOT_INHERITED = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "NETPOLL_BACKEND", "PYTHONMALLOC")


def readable(fds: Iterable[int], timeout_s: float) -> list[int]:
    """Those that have something to read, or their end, within so long. Not by select.select(): a
    harness has descriptors above 1023."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(max(timeout_s, 0.0) * 1e3)]


def raise_fd_limit(wanted: int) -> int:
    """Raises the soft limit of open files to `wanted` if it may; returns what it is now."""
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
    tuned = malloc == "all" or (malloc == "asyncio" and arm.name in ("asyncio", AGAIN))
    return dict(MALLOC_TUNED) if tuned else {}


_PARENT_PID = "NETPOLL_BENCH_PARENT"


def die_with_parent(signum: int = signal.SIGKILL) -> None:
    """For a child: ends this process when the harness that started it ends, however it ends."""
    _native.die_with_parent(signum)
    if os.environ.get(_PARENT_PID, str(os.getppid())) != str(os.getppid()):
        sys.exit("the harness ended before its server began")


class Child:
    """A Python child that answers with one line of JSON and is killed at the end.

    Use it as a context manager. `args` are the interpreter's; `cpu` pins it, to one core or to some
    (None: not at all);
    `commands`: it listens to its standard input.
    """

    def __init__(
        self,
        args: Iterable[str],
        env: dict[str, str],
        cpu: int | Collection[int] | None,
        commands: bool = False,
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
            cpus = {cpu} if isinstance(cpu, int) else cpu
            os.sched_setaffinity(self.process.pid, cpus)

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_time(self) -> CpuTime:
        """CPU time so far, all threads. Raises OSError when the child is gone."""
        return cpu_time(self.pid)

    def run_delay_ns(self) -> int | None:
        """How long it waited for its core so far; None where that is not known."""
        return run_delay_ns(self.pid)

    def has_ended(self, within_s: float = 0.0) -> bool:
        """Whether it has ended, or does so in the next `within_s` seconds."""
        return _has_ended(self.process, within_s)

    def answer(self, timeout_s: float = START_TIMEOUT_S) -> Facts:
        """The next line. Raises ServerError when none comes in time or the child has ended."""
        output = self.process.stdout
        assert output is not None
        if not readable([output.fileno()], timeout_s):
            raise ServerError(f"it did not answer within {timeout_s:g} s")
        line = output.readline()
        if not line:
            raise ServerError(self.last_words())
        facts: Facts = json.loads(line)
        return facts

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
        return _how_it_ended(self.process.returncode, errors)

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


def _has_ended(process: subprocess.Popen[bytes], within_s: float) -> bool:
    try:
        process.wait(timeout=within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _how_it_ended(code: int, output: bytes) -> str:
    how = f"it was killed by signal {-code}" if code < 0 else f"it ended with exit code {code}"
    lines = output.decode(errors="replace").strip().splitlines()
    return f"{how}: {lines[-1].strip()}" if lines else how


def server_words(arm: SocketArm) -> list[str]:
    """The arguments of the interpreter that runs `server.py` for this arm."""
    factory = ["--factory", arm.factory] if arm.factory else []
    return [*SERVER, "--arm", arm.name, *factory]


class Server(Child):
    """A running echo server of one arm and mode; `address` is where it listens."""

    def __init__(
        self,
        arm: SocketArm,
        mode: str,
        *,
        cpu: int | Collection[int] | None,
        bulk: bool = False,
        listen: str = "tcp",
        malloc: str = "none",
        workers: int = 1,
    ):
        args = [*server_words(arm), "--mode", mode, "--listen", listen]
        if workers > 1:
            args += ["--workers", str(workers)]
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


def check_arms(arms: Iterable[SocketArm]) -> dict[str, Facts]:
    """What each arm is here ({"version", "loop"}), or {"unavailable": reason}; asks a child per
    arm, all at once. Of a program it asks whether it is installed."""
    arms = tuple(arms)
    children = {}
    facts = check_commands(arm.program() for arm in arms if arm.command)
    try:
        for arm in arms:
            if arm.command:
                continue
            env = child_environment(arm)
            children[arm.name] = Child([*server_words(arm), "--check"], env, None)
        for name, child in children.items():
            try:
                facts[name] = child.answer()
            except ServerError as error:
                facts[name] = {"unavailable": str(error)}
    finally:
        for child in children.values():
            child.kill()
    return facts


def check_commands(arms: Iterable[CommandArm]) -> dict[str, Facts]:
    """As `check_arms`, of programs: whether they are installed."""
    facts = {}
    for arm in arms:
        try:
            facts[arm.name] = arm.check()
        except ArmUnavailable as error:
            facts[arm.name] = {"unavailable": str(error)}
    return facts


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def accepts(address: tuple[str, int]) -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True


class Program:
    """A running server that is a program of others, with all the processes that it starts.

    `address` is where it listens; the constructor returns once `answers(address)` is true. Its CPU
    time is that of the whole tree of processes, all threads, those that have ended included. The
    whole tree is pinned to `cpu`, and ends with `kill()`, or with the harness, however that ends:
    `supervisor.py` stands between the two. What it prints is kept for `last_words()`. Use it as a
    context manager. Raises ServerError when it ends, or does not answer in time.
    """

    def __init__(
        self,
        arm: CommandArm,
        *,
        cpu: int | None,
        malloc: str = "none",
        answers: Callable[[tuple[str, int]], bool] = accepts,
        timeout_s: float = START_TIMEOUT_S,
    ):
        self.address = ("127.0.0.1", free_port())
        self._output = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "netpoll.bench.supervisor"]
        command += ["-" if cpu is None else str(cpu), *arm.words(self.address[1])]
        env = child_environment(arm, malloc) | dict(arm.environment)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            env=env | {_PARENT_PID: str(os.getpid())},
            process_group=0,
        )
        try:
            self._wait_until(answers, timeout_s)
        except BaseException:
            self.kill()
            raise

    def _wait_until(self, answers: Callable[[tuple[str, int]], bool], timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not answers(self.address):
            if self.has_ended():
                raise ServerError(self.last_words())
            if time.monotonic() > deadline_s:
                raise ServerError(f"it did not answer within {timeout_s:g} s")
            time.sleep(ANSWER_PAUSE_S)

    @property
    def pid(self) -> int:
        """The process at the root of the tree."""
        return self.process.pid

    def cpu_time(self) -> CpuTime:
        """CPU time so far of all its processes. Raises OSError when it is gone."""
        return tree_cpu_time(self.pid)

    def run_delay_ns(self) -> int | None:
        """None: its processes share a core, and wait for each other."""
        return None

    def has_ended(self, within_s: float = 0.0) -> bool:
        """Whether it has ended, or does so in the next `within_s` seconds."""
        return _has_ended(self.process, within_s)

    def last_words(self) -> str:
        """How it ended, and the last line that it printed. It has ended, or is about to."""
        try:
            code = self.process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            return "it closed its port"
        self._output.seek(0)
        return _how_it_ended(code, self._output.read())

    def kill(self) -> None:
        """Ends all its processes. May be called again."""
        if self.process.poll() is None:
            self.process.terminate()  # the supervisor ends the tree, then itself
        self.process.wait()
        self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
