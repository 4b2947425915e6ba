"""What the programs at random of servers have in common (tests/server, tests/http).

Operations run from wherever code of the program runs within a call of ours: hooks, iterators,
numbers, buffers, finalisers, the collector.
"""

import contextlib
import gc
import os
import random
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from netpoll import LoopConfig

SEED = int(os.environ.get("NETPOLL_REENTRANT_SEED", "1"))
ROUND_OPERATIONS = 2500
DEPTH = 4
CONFIGS = [
    LoopConfig(),
    LoopConfig(sq_entries=8, cq_entries=16),
    LoopConfig(features_off=("recv_multi",), buf_count=4, buf_bytes=4096),
    LoopConfig(buf_count=16, buf_bytes=8192),
]


def operations_count(usual: int) -> int:
    return int(os.environ.get("NETPOLL_REENTRANT_OPERATIONS", usual))


class Chaos(Exception):
    """What a program raises on purpose."""


class Program:
    """Operations at random on what is `live`: connections, or requests. A class says which
    operations there are for one of these."""

    expected: tuple[type[BaseException], ...]  # what an operation may raise
    reported: tuple[type[BaseException], ...]  # what the exception handler may be told
    reach: int  # how many of the newest are operated on

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.live: list[Any] = []
        self.faults: list[str] = []
        self.count = self.depth = 0
        self.thread_id = 0
        self.is_calm = False

    if TYPE_CHECKING:

        def operations(self, thing: Any) -> Sequence[Callable[[Any, Any], object]]: ...

    def some_operations(self, own: Any, most: int) -> None:
        for _ in range(self.random.randint(0, most)):
            self.operation(own)

    def operation(self, own: Any = None) -> None:
        if self.depth >= DEPTH or self.is_calm or threading.get_ident() != self.thread_id:
            return  # the last: the collector may run in the clients' thread
        thing = own if own is not None and self.random.random() < 0.6 else None
        if thing is None:
            try:  # no slice: CPython 3.11 crashes when the collector shortens the list meanwhile
                thing = self.live[-1 - self.random.randrange(self.reach)]
            except IndexError:
                return
        self.count += 1
        self.depth += 1
        try:
            self.random.choice(self.operations(thing))(self, thing)
        except self.expected:
            pass
        finally:
            self.depth -= 1


class Exporter:
    """A buffer that acts when it is asked for its memory, and when that is given back."""

    def __init__(self, program: Program, thing: Any, data: bytes) -> None:
        self.program, self.thing, self.memory = program, thing, data

    def __buffer__(self, _flags: int) -> memoryview:
        self.program.operation(self.thing)
        return memoryview(bytearray(self.memory))

    def __release_buffer__(self, view: memoryview) -> None:
        self.program.operation(self.thing)
        view.release()


class Trash:
    """A cycle: the collector runs its finaliser, wherever it is that something is allocated."""

    def __init__(self, program: Program) -> None:
        self.program, self.me = program, self

    def __del__(self) -> None:
        self.program.operation()


class Peer:
    """The other end of a connection."""

    def __init__(self, program: Any, sock: socket.socket) -> None:
        self.program, self.sock = program, sock
        self.is_over = False

    def end(self, how: Callable[[socket.socket], object]) -> None:
        if not self.is_over:
            self.is_over = True
            with contextlib.suppress(OSError):
                how(self.sock)
            self.sock.close()


def run_programs(
    program_class: type[Program],
    count: int,
    errors: list[dict[str, Any]],
    play: Callable[[Any, LoopConfig, int], None],
) -> None:
    """One program after another, until all have made so many operations. The collector runs often.
    errors: what the exception handler was told meanwhile."""
    thresholds = gc.get_threshold()
    gc.set_threshold(200, 5, 5)
    done = 0
    seed = SEED
    try:
        while done < count:
            program = program_class(seed)
            play(program, CONFIGS[seed % len(CONFIGS)], min(ROUND_OPERATIONS, count - done))
            done += program.count
            seed += 1
            reported = program.reported
            assert [e for e in errors if not isinstance(e.get("exception"), reported)] == []
            errors.clear()
    finally:
        gc.set_threshold(*thresholds)
