"""What a kind of benchmark is: everything that only this kind knows.

A kind is one file, with one object named KIND of a class that derives from `Kind`. It has its words
for the command line, its options, its plan, how one thing is measured, its rows and its tables, its
charts and its method. What every command does once stands in `command.py`.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from netpoll.bench.arms import AGAIN, Arm
from netpoll.bench.blocks import Block, Table
from netpoll.bench.cores import Pinning
from netpoll.bench.hosts import HERE, Hosts
from netpoll.bench.records import Document, Facts, Row
from netpoll.bench.rounds import Measure, Plan, Run
from netpoll.bench.watch import Watch

__all__ = ["Kind", "Terms", "distinct", "measured"]

SCHEMA_PREFIX = "netpoll.bench."


@dataclass(frozen=True)
class Terms:
    """What a command has decided before the kind makes its plan. The names are those of `Plan`."""

    arms: tuple[str, ...]
    pinning: Pinning
    rounds: int
    limit_s: float | None


class Kind(ABC):
    """One benchmark of `netpoll bench`.

    name: the word of the command line. schema: of the document, and of its file's name.
    help: one line of `netpoll bench --help`; description, epilog: of the command's own help.
    title: of the page; method: how it is measured, paragraphs with a blank line between them.
    arms: who may take part; default_arms: who does; peers: who does with --peers; peer_noun: what
    these are.
    arms_option, arm_noun: how the command line calls them.
    takes_guests: it has `--loop` and `--server` (`guests.py`); loop_guest_help, server_guest_help:
    what these have to be, for the command line.
    takes_hosts: it has `--server-host` and `--load-host` (`hosts.py`); hosts: who is elsewhere, for
    the length of a run.
    has_latencies: its rows have histograms, which `--hdr` writes.
    controls: arms that are another one a second time, and which (`control.py`).
    rounds, quick_rounds: how many there are, without and with --quick.
    pinned: servers and load run on cores that can be chosen.
    is_in_all: `bench all` runs it.
    fills_limit: with --quick it measures for as long as it may, so that its figures gain by time
    that others do not need.
    """

    name: ClassVar[str]
    schema: ClassVar[str] = ""
    help: ClassVar[str]
    description: ClassVar[str]
    epilog: ClassVar[str] = ""
    title: ClassVar[str]
    method: ClassVar[str]
    arms: ClassVar[dict[str, Any]]
    default_arms: ClassVar[tuple[str, ...]]
    peers: ClassVar[tuple[str, ...]] = ()
    peer_noun: ClassVar[str] = "event loops"
    arms_option: ClassVar[str] = "--arms"
    arm_noun: ClassVar[str] = "arm"
    takes_guests: ClassVar[bool] = False
    takes_hosts: ClassVar[bool] = False
    hosts: Hosts = HERE
    has_latencies: ClassVar[bool] = False
    loop_guest_help: ClassVar[str] = ""
    server_guest_help: ClassVar[str] = ""
    controls: ClassVar[Mapping[str, str]] = {AGAIN: "asyncio"}
    rounds: ClassVar[int] = 5
    quick_rounds: ClassVar[int] = 3
    pinned: ClassVar[bool] = True
    is_in_all: ClassVar[bool] = True
    fills_limit: ClassVar[bool] = False

    # ---- before the run

    @abstractmethod
    def add_options(self, parser: argparse._ArgumentGroup) -> None:
        """Adds what only this kind has; the rest is common to all."""

    def chosen_arms(self, options: argparse.Namespace) -> tuple[str, ...]:
        """Who was asked for. Raises UsageError for options that make no sense together."""
        arms = options.arms or self.default_arms
        if self.peers and options.peers:
            arms += tuple(name for name in self.peers if name not in arms)
        return arms

    def loop_guest(self, name: str, factory: str) -> Arm:
        """The arm of an event loop that the command line names, "module:factory"."""
        raise NotImplementedError("this kind takes no guests")

    def server_guest(self, name: str, command: tuple[str, ...]) -> Arm:
        """The arm of a server that the command line names."""
        raise NotImplementedError("this kind takes no guests")

    @abstractmethod
    def check(self, arms: Sequence[str]) -> dict[str, Facts]:
        """By arm: what it is here ({"version", "loop"}), or {"unavailable": reason}."""

    @abstractmethod
    def plan(self, options: argparse.Namespace, terms: Terms) -> Plan:
        """What to run. Raises UsageError when it cannot be run here."""

    @abstractmethod
    def size(self, plan: Any) -> str:
        """How much that is, in a few words: "3 servers, 2 cells"."""

    # ---- the run

    @abstractmethod
    def measuring(self, plan: Any, watch: Watch) -> AbstractContextManager[Measure]:
        """What is there for the length of the run, and the function that measures."""

    # ---- the document

    def settings(self, plan: Any) -> Facts:
        """What a reader of the figures has to know of the plan."""
        return {"rounds": plan.rounds}

    @abstractmethod
    def rows(self, run: Run) -> list[Row]:
        """The results. Each has `arm`, `mode` ("-" where there are none), `rounds` (0: it was not
        measured) and `fault` (a sentence or None)."""

    def more(self, run: Run) -> Facts:
        """What else belongs into the document."""
        return {}

    def wrong(self, document: Document) -> list[str]:
        """What makes the run a failure although all was measured, one sentence each."""
        return []

    def owns(self, document: Document) -> bool:
        """Whether this kind wrote the document."""
        return str(document["schema"]) == self.full_schema

    @property
    def full_schema(self) -> str:
        return f"{SCHEMA_PREFIX}{self.schema or self.name}/1"

    # ---- to look at

    @abstractmethod
    def tables(self, document: Document, wide: bool) -> list[Table]:
        """For the terminal; `wide`: it has room for every column."""

    @abstractmethod
    def notes(self, document: Document, wide: bool) -> list[str]:
        """What has to be known to read the tables of the terminal; "" is an empty line."""

    @abstractmethod
    def section(self, document: Document) -> list[Block]:
        """The kind's part of the page."""


def measured(document: Document) -> list[Row]:
    """The rows that have figures."""
    return [row for row in document["rows"] if row["rounds"]]


def distinct(rows: Sequence[Row], key: str) -> list[Any]:
    """The values of a key, each once, in order of appearance."""
    return list(dict.fromkeys(row[key] for row in rows))
