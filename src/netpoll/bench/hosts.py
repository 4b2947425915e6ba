"""Other machines that take part in a run: `--server-host`, `--load-host`.

On each of them an agent waits (`agent.py`). `Hosts` says who is where for the length of one run. A
kind that takes hosts asks it for servers and loads; those that are elsewhere have the methods of
those that are here.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from netpoll.bench._native import LoadError, LoadStopped
from netpoll.bench.clocks import CpuTime
from netpoll.bench.cores import Pinning
from netpoll.bench.errors import ServerError, UsageError
from netpoll.bench.records import Facts, Row
from netpoll.bench.wire import (
    HARNESS,
    Channel,
    Refused,
    Stopped,
    greet,
    parse_address,
    read_token,
)

__all__ = ["HERE", "Agent", "Hosts", "RemoteLoad", "RemoteServer", "add_options", "connected"]

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0  # beyond what was asked for: a server may start slowly


class Agent:
    """An agent on another machine. A context manager. Raises ServerError when it is not there, or
    refuses this token."""

    def __init__(self, where: str, token: bytes) -> None:
        self.where = where
        self.is_open = True
        try:
            sock = socket.create_connection(parse_address(where), timeout=CONNECT_TIMEOUT_S)
        except OSError as error:
            raise ServerError(f"there is no agent at {where}: {error}") from None
        try:
            sock.settimeout(None)
            self.channel: Channel = greet(sock, token, HARNESS)
        except (Refused, EOFError, OSError) as error:
            sock.close()
            raise ServerError(f"the agent at {where} is not to be had: {error}") from None
        self.environment: Facts = self.ask("environment")

    @property
    def our_host(self) -> str:
        """The address of this machine that it sees."""
        return str(self.channel.sock.getsockname()[0])

    def ask(self, do: str, *, patience_s: float = 0.0, stop_fd: int = -1, **words: Any) -> Any:
        """What it answers; `patience_s`: how long that may take by itself. Raises ServerError or
        LoadError with its sentence, LoadStopped when `stop_fd` is readable first: then the session
        is over."""
        if not self.is_open:
            raise ServerError(f"the agent at {self.where} is gone")
        try:
            self.channel.send({"do": do} | words)
            answer = self.channel.receive(patience_s + ANSWER_TIMEOUT_S, stop_fd)
        except Stopped:
            self.close()
            raise LoadStopped from None
        except (Refused, EOFError, OSError) as error:
            self.close()
            raise ServerError(f"the agent at {self.where} is gone: {error}") from None
        if "result" in answer:
            return answer["result"]
        raise (LoadError if answer["of"] == "load" else ServerError)(answer["fault"])

    def close(self) -> None:
        """The agent ends all that it has started. May be called again."""
        self.is_open = False
        self.channel.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class RemoteServer:
    """A server that an agent has started; as `process.Server`."""

    def __init__(self, agent: Agent, **words: Any) -> None:
        self.agent = agent
        started = agent.ask("start", **words)
        self.number = started["server"]
        self.address = tuple(started["address"])

    @property
    def pid(self) -> int:
        raise ServerError("a process of another machine has no number here")

    def _clocks(self) -> Facts:
        clocks: Facts = self.agent.ask("cpu", server=self.number)
        return clocks

    def cpu_time(self) -> CpuTime:
        clocks = self._clocks()
        return CpuTime(clocks["total_ns"], clocks["user_ns"], clocks["system_ns"])

    def run_delay_ns(self) -> int | None:
        delay: int | None = self._clocks()["run_delay_ns"]
        return delay

    def has_ended(self, within_s: float = 0.0) -> bool:
        self.words = self.agent.ask("ended", server=self.number, within_s=within_s)
        return self.words is not None

    def last_words(self) -> str:
        return self.words or "it closed its port"

    def kill(self) -> None:
        if self.agent.is_open:
            with suppress(ServerError):
                self.agent.ask("kill", server=self.number)


class RemoteLoad:
    """A load that an agent makes; as `_native.Load`. A context manager."""

    def __init__(self, agent: Agent, stop_fd: int, **words: Any) -> None:
        self.agent = agent
        self.stop_fd = stop_fd
        self.number = agent.ask("load", **words)

    def run(self, duration_s: float, rate_per_s: float = 0.0) -> Mapping[str, Any]:
        words = {"load": self.number, "duration_s": duration_s, "rate_per_s": rate_per_s}
        result: dict[str, Any] = self.agent.ask(
            "run", patience_s=duration_s, stop_fd=self.stop_fd, **words
        )
        result["histogram"] = [tuple(bucket) for bucket in result["histogram"]]
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.agent.is_open:
            with suppress(ServerError):
                self.agent.ask("close", load=self.number)


@dataclass(frozen=True)
class Hosts:
    """Who is elsewhere, for one run; None: it is here."""

    server: Agent | None = None
    load: Agent | None = None

    @property
    def listen(self) -> str:
        """Where a server of this machine has to listen, as `server.py` wants it."""
        return f"tcp:{self.load.our_host}" if self.load else "tcp"

    def sentence(self, pinning: Pinning) -> str:
        """Who runs where."""
        if self == HERE:
            return pinning.sentence()
        server, load = (each.where if each else "this machine" for each in (self.server, self.load))
        return f"servers on {server}, load on {load}"

    def facts(self) -> Facts:
        """For a document's settings: the agents, and what their machines are."""
        agents = {"server": self.server, "load": self.load}
        found = {
            name: {"agent": agent.where, "environment": agent.environment}
            for name, agent in agents.items()
            if agent is not None
        }
        return {"hosts": found} if found else {}

    def check(self, arms: Sequence[str]) -> dict[str, Facts]:
        """What the arms are on the server's machine."""
        assert self.server is not None, "the servers are here"
        found: dict[str, Facts] = self.server.ask("check", arms=list(arms))
        return found

    def sends(
        self, sizes_bytes: Sequence[int], number: int, max_bytes: int, patience_s: float
    ) -> list[Row]:
        """A round of `bench zerocopy`, from the server's machine to that of the load."""
        assert self.server is not None, "the sender is here"
        assert self.load is not None, "there is nobody to send to"
        rows: list[Row] = self.server.ask(
            "send",
            patience_s=patience_s,
            address=self.load.ask("receive"),
            sizes_bytes=list(sizes_bytes),
            round=number,
            max_bytes=max_bytes,
        )
        return rows


HERE = Hosts()


def add_options(group: argparse._ArgumentGroup) -> None:
    """For a kind that takes hosts."""
    for name, what in (("server", "the servers are"), ("load", "the load is")):
        group.add_argument(
            f"--{name}-host",
            metavar="HOST:PORT",
            help=f"{what} on another machine, where `netpoll bench agent` listens",
        )
    group.add_argument("--token-file", type=Path, metavar="F", help="the secret of both machines")


@contextmanager
def connected(options: argparse.Namespace) -> Iterator[Hosts]:
    """The hosts of a command line. Raises UsageError for options that make no sense together, and
    ServerError when an agent is not there."""
    wanted = {"server": options.server_host, "load": options.load_host}
    if not any(wanted.values()):
        yield HERE
        return
    if options.token_file is None:
        raise UsageError("another machine takes part: give the --token-file of its agent")
    if wanted["server"] == wanted["load"]:
        raise UsageError("an agent makes the load or runs the servers, one of the two")
    token = read_token(options.token_file)
    with ExitStack() as stack:
        asked = {name: where for name, where in wanted.items() if where}
        yield Hosts(**{n: stack.enter_context(Agent(where, token)) for n, where in asked.items()})
