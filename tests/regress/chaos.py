"""A program at random, and the objects by which its operations come to run within a call of ours.
What it operates on is in reentrant.py."""

import asyncio
import contextlib
import contextvars
import itertools
import random
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from netpoll.testing import DeterministicScheduler

DEPTH = 4
THINGS = 12
TRASH_MAX = 100
SIZES = [1, 10, 100, 3000, 20000, 200000]
EXPECTED = (OSError, RuntimeError, ValueError, BufferError, asyncio.InvalidStateError)

Operation = Callable[["Program", Any], object]
variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default=None)


class Chaos(RuntimeError):
    """What a callback raises on purpose."""


def is_expected(context: dict[str, Any]) -> bool:
    return isinstance(context.get("exception"), EXPECTED)


class Fate:
    """Of one connection, whoever is its protocol."""

    def __init__(self) -> None:
        self.made = self.lost = 0


class Program:
    """One loop's life: things of the kinds that `part` names, and operations on them."""

    def __init__(
        self, loop: Any, part: str, seed: int, count: int, general: list[Operation]
    ) -> None:
        self.loop, self.part, self.limit = loop, part, count
        self.random, self.general = random.Random(seed), general
        self.things: list[Any] = []
        self.fates: list[Fate] = []
        self.tasks: set[Any] = set()
        self.faults: list[str] = []
        self.bytes = itertools.cycle(range(1, 250))  # one for each connection, both ends of it
        self.count = self.depth = self.trash_count = 0
        self.is_calm = False
        self.scheduler: Any = DeterministicScheduler(workers=2, seed=seed)
        self.scheduler.exception_handler = lambda context: loop.call_exception_handler(context)
        self.handles: list[Any] = []  # tasks of the scheduler
        self.entries: list[Any] = []  # of the ring, the newest
        self.directory = tempfile.TemporaryDirectory()

    def operation(self, own: Any = None) -> None:
        if self.depth >= DEPTH or self.is_calm or self.count >= self.limit:
            return
        thing = own if own is not None and self.random.random() < 0.6 else None
        if thing is None:
            try:
                thing = self.things[-1 - self.random.randrange(THINGS)]
            except IndexError:
                return
        self.count += 1
        self.depth += 1
        try:
            operations = thing.operations if self.random.random() < 0.8 else self.general
            self.random.choice(operations)(self, thing)
        except EXPECTED:
            pass
        finally:
            self.depth -= 1

    def some_operations(self, own: Any, most: int) -> None:
        for _ in range(self.random.randint(0, most)):
            self.operation(own)
        if self.random.random() < 0.02 and not self.is_calm and self.count < self.limit:
            raise Chaos

    def start(self, what: Any) -> None:
        """A coroutine, or an awaitable, in a task of its own."""

        async def run() -> None:
            with contextlib.suppress(*EXPECTED, EOFError, asyncio.LimitOverrunError):
                await what
            self.operation()

        if len(self.tasks) > 60:
            what.close()
            return
        task = self.loop.create_task(run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def data(self, thing: Any) -> Any:
        data = bytes([thing.byte]) * self.random.choice(SIZES)
        kind = self.random.randrange(6)
        if kind == 0:
            return Bytes(self, thing, data)
        if kind == 1:
            return memoryview(data)
        if kind == 2:
            return Array(self, thing, data)
        return data

    def pieces(self, thing: Any) -> Iterator[Any]:
        for _ in range(self.random.randint(0, 80)):
            data = bytes([thing.byte]) * self.random.choice(SIZES[:4])
            if sys.version_info >= (3, 12) and self.random.random() < 0.2:
                yield Exporter(self, thing, data)
            else:
                yield data
            if self.random.random() < 0.1:
                self.operation(thing)
        if self.random.random() < 0.1:
            raise ValueError

    def check(self, thing: Any, data: Any) -> None:
        if bytes(data).strip(bytes([thing.byte])):
            self.faults.append(f"{set(bytes(data))} came to {thing.byte}")


# ---- what acts --------------------------------------------------------------------------------


class Actor:
    def __init__(self, program: Program, thing: Any = None, value: Any = 0) -> None:
        self.program, self.thing, self.value = program, thing, value

    def act(self) -> None:
        self.program.operation(self.thing)


class Number(Actor):
    def __index__(self) -> Any:
        self.act()
        return self.value

    __int__ = __index__

    def __float__(self) -> float:
        self.act()
        return float(self.value)


class Trash(Actor):
    """Acts when it is let go of; in a cycle with itself, when the collector comes by."""

    def __init__(self, program: Program, thing: Any = None) -> None:
        super().__init__(program, thing)
        program.trash_count += 1

    def __del__(self) -> None:
        self.program.trash_count -= 1
        self.act()


class Bytes(bytes):
    """Data that acts when nobody needs it any more."""

    program: Any = None

    def __new__(cls, program: Program, thing: Any, data: bytes) -> "Bytes":
        made = super().__new__(cls, data)
        made.program, made.thing = program, thing  # type: ignore[attr-defined]
        return made

    def __del__(self) -> None:
        if self.program is not None:
            self.program.operation(self.thing)  # type: ignore[attr-defined]


class Array(bytearray):
    """Data that acts when it is copied."""

    def __init__(self, program: Program, thing: Any, data: bytes) -> None:
        super().__init__(data)
        self.program, self.thing = program, thing

    def __bytes__(self) -> bytes:
        self.program.operation(self.thing)
        return Bytes(self.program, self.thing, bytes(memoryview(self)))


class Exporter(Actor):
    def __buffer__(self, _flags: int) -> memoryview:
        self.act()
        return memoryview(self.value)

    def __release_buffer__(self, view: memoryview) -> None:
        self.act()
        view.release()


class Callback(Actor):
    """Acts when it is called, shown, compared."""

    def __call__(self, *_args: Any) -> None:
        self.act()

    def __repr__(self) -> str:
        self.act()
        return "callback"

    def __eq__(self, other: object) -> bool:
        self.act()
        return self is other

    __hash__ = None  # type: ignore[assignment]


class Socket(socket.socket):
    """Acts in every method that we call."""

    actor: Any = None

    def act(self) -> None:
        if self.actor is not None:
            self.actor.act()

    def fileno(self) -> int:
        self.act()
        return super().fileno()

    def close(self) -> None:
        self.act()
        super().close()

    def sendto(self, *args: Any) -> Any:
        self.act()
        return super().sendto(*args)

    def recvfrom(self, *args: Any) -> Any:
        found = super().recvfrom(*args)
        self.act()
        return found

    def accept(self) -> Any:
        self.act()
        return super().accept()


def acting(sock: socket.socket, program: Program, thing: Any) -> Socket:
    made = Socket(fileno=sock.detach())
    made.setblocking(False)
    if program.random.random() < 0.5:
        made.actor = Actor(program, thing)
    return made
