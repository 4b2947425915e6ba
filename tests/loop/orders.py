"""Programs whose order can be compared: generated, run on any loop, traced turn by turn.

A program is a literal: what fails can be pasted into a test.

    {"idle": False, "bursts": [[step, ...], ...]}      step: ("soon", 3, [step, ...])

Each burst runs in a turn of its own. A step is the name of one of Run's methods (`do_soon`) and its
arguments. Steps that make a callback carry a number, the callback's label, and the steps that
the callback runs. The trace of a run is a list of lines; a line "turn 5" begins each turn. An idle
program has no such lines: its loop sleeps between the bursts, which another thread brings.

To add a step: a method `do_NAME` here or in order_peers.py, and a line in STEPS (order_making.py)
that makes one.

What the order of several descriptors that are ready at the same time is, asyncio leaves to its
selector. So the reference is a loop whose selector can be told to shuffle them (`Reference`), and a
trace is right when asyncio has the same one with some order of the selector's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..support import make_loop, unix_pair
from .order_making import TRANSPORT_ENDS, Program, Step, all_steps, step_names
from .order_peers import EarlySocket, Peers

TURNS_COUNT = 12
# A timer of this delay is due after a pause of that length, and not before.
DELAY_S = 0.0003
PAUSE_S = 0.0006
IDLE_PAUSE_S = 0.0015
# How the lines of what an event brings begin, behind the label.
BY_EVENT = ("reader", "writer", "data", "eof")


def is_like(order: int) -> bool:
    return order in (1, 2) or (order > 0 and order % 3 == 0)


class ShuffledSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Hands out what is ready in an order of its own: order 0 is the kernel's.

    Orders 1, 2, 3, 6, 9 and so on are `like`'s, which tries to do as another loop did. Else an odd
    one prefers some descriptors to others all the time, an even one changes its mind.
    """

    order = 0
    random = random.Random(0)
    # Sockets that receive when the selector finds them ready, not when the transport asks.
    early: dict[int, EarlySocket]
    like: Callable[[int], int]

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(timeout)
        for key, _mask in ready:
            if key.fd in self.early:
                self.early[key.fd].receive()
        if self.order == 0 or len(ready) == 1:
            return ready
        if is_like(self.order):
            ready.sort(key=lambda item: self.like(item[0].fd))
        elif self.order % 2:
            ready.sort(key=lambda item: hash((item[0].fd, self.order)))
        else:
            self.random.shuffle(ready)
        return ready


class Helper:
    """A thread that does one thing at a time for the loop's thread, and says when it is done."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.done = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            job()

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Runs it there; back when it has returned, or raises what it has raised."""
        raised: list[Exception] = []
        self.jobs.put(lambda: self._run(raised, function, args))
        self.done.acquire()
        if raised:
            raise raised[0]

    def _run(self, raised: list[Exception], function: Callable[..., Any], args: Any) -> None:
        try:
            function(*args)
        except Exception as exc:
            raised.append(exc)
        self.done.release()

    def close(self) -> None:
        self.jobs.put(None)
        self.thread.join()


class Run(Peers):
    """One run of one program on one loop."""

    def __init__(
        self,
        loop: Any,
        helper: Helper,
        program: Program,
        early: dict[int, EarlySocket] | None = None,
        pause_s: float = IDLE_PAUSE_S,
    ) -> None:
        self.loop, self.helper, self.program, self.early = loop, helper, program, early
        super().__init__()
        self.pause_s = pause_s
        self.trace: list[str] = []
        self.ends: dict[int, socket.socket] = {}
        self.handles: list[Any] = []
        self.futures: dict[int, asyncio.Future[Any]] = {}
        self.tasks: dict[int, asyncio.Task[Any]] = {}
        self.transports: dict[int, Any] = {}
        self.connected: set[int] = set()
        self.turn = 0
        self.is_over = False

    # -- running --------------------------------------------------------------------------------

    def result(self) -> list[str]:
        loop, bursts = self.loop, self.program["bursts"]
        loop.set_exception_handler(self._report)
        if self.program["idle"]:
            loop.call_soon(self._burst, 0)
        else:
            loop.call_soon(self._tick)
        try:
            while not self.is_over:
                loop.run_forever()
                if not self.is_over:
                    self.note("stopped")
            if self.program["idle"]:
                assert self.turn == len(bursts)
        finally:
            self._clean_up()
        return self.trace

    def _tick(self) -> None:
        if self.turn == TURNS_COUNT:
            self.is_over = True
            self.loop.stop()
            return
        self.loop.call_soon(self._tick)
        self.note(f"turn {self.turn}")
        bursts = self.program["bursts"]
        self.turn += 1
        if self.turn <= len(bursts):
            self.steps(bursts[self.turn - 1])

    def _burst(self, number: int) -> None:
        self.note(f"burst {number}")
        self.turn = number + 1
        self.steps(self.program["bursts"][number])
        self.helper.jobs.put(lambda: self._bring(number + 1))

    def _bring(self, number: int) -> None:
        time.sleep(self.pause_s)
        if number < len(self.program["bursts"]):
            self.loop.call_soon_threadsafe(self._burst, number)
        else:
            self.loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.is_over = True
        self.loop.stop()

    def _clean_up(self) -> None:
        loop, self.trace = self.loop, list(self.trace)
        for handle in self.handles:
            handle.cancel()
        for task in self.tasks.values():
            task.cancel()
        for end in self.ends.values():
            if end.fileno() >= 0:
                with contextlib.suppress(RuntimeError, ValueError, OSError):
                    loop.remove_reader(end)
                    loop.remove_writer(end)
        for transport in self.transports.values():
            with contextlib.suppress(ValueError):  # asyncio's, of one whose socket is closed
                transport.abort()
        self.close_peers()
        for _ in range(4):
            loop.call_soon(loop.stop)
            loop.run_forever()
        for end in self.ends.values():
            end.close()
        self.note = lambda line: None  # type: ignore[method-assign]

    def _report(self, loop: Any, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        self.note(f"reported {type(exc).__name__ if exc else context['message']}")

    # -- what steps are made of -----------------------------------------------------------------

    def note(self, line: str) -> None:
        if not self.is_over:
            self.trace.append(line)

    def steps(self, body: Any) -> None:
        for name, *args in body:
            if self.is_over:
                return
            try:
                getattr(self, "do_" + name)(*args)
            except Exception as exc:
                self.note(f"{name} {args[:1]}: {type(exc).__name__}")

    def end(self, number: int) -> socket.socket:
        if number not in self.ends:
            left, right = unix_pair()
            if self.early is not None and number & ~1 in TRANSPORT_ENDS:
                left = EarlySocket(fileno=left.detach())
                self.early[left.fileno()] = left
            self.ends[number & ~1], self.ends[number | 1] = left, right
        return self.ends[number]

    def number_of(self, end: int) -> int:
        """The descriptor of an end, or of an accepted connection."""
        if end in self.ends:
            return self.ends[end].fileno()
        transport = self.transports.get(end)
        sock = transport and transport.get_extra_info("socket")
        return sock.fileno() if sock is not None else -1

    def called(self, label: int, body: list[Step]) -> None:
        self.note(str(label))
        self.steps(body)

    # -- callbacks and timers -------------------------------------------------------------------

    def do_soon(self, label: int, body: list[Step]) -> None:
        self.handles.append(self.loop.call_soon(self.called, label, body))

    def do_later(self, label: int, body: list[Step]) -> None:
        """A timer of no delay."""
        self.handles.append(self.loop.call_later(0, self.called, label, body))

    def do_past(self, label: int, body: list[Step]) -> None:
        """A timer whose time has passed already."""
        self.handles.append(self.loop.call_at(self.loop.time() - 1, self.called, label, body))

    def do_due(self, label: int, body: list[Step]) -> None:
        """A timer that becomes due while this callback runs."""
        self.handles.append(self.loop.call_later(DELAY_S, self.called, label, body))
        time.sleep(PAUSE_S)

    def do_cancel(self, number: int) -> None:
        """One of the handles so far, counted from the newest."""
        if self.handles:
            self.handles[-1 - number % len(self.handles)].cancel()

    def do_post(self, label: int, body: list[Step]) -> None:
        """From another thread, now."""
        self.helper.call(self.loop.call_soon_threadsafe, self.called, label, body)

    def do_post_self(self, label: int, body: list[Step]) -> None:
        """From the loop's own thread."""
        self.handles.append(self.loop.call_soon_threadsafe(self.called, label, body))

    def do_stop(self) -> None:
        self.loop.stop()

    # -- readers and writers --------------------------------------------------------------------

    def do_reader(self, label: int, end: int, mode: str, body: list[Step]) -> None:
        """mode: "drain" receives all, "once" removes itself, "stay" does neither."""
        self.loop.add_reader(self.end(end), self._readable, label, end, mode, body)

    def _readable(self, label: int, end: int, mode: str, body: list[Step]) -> None:
        sock = self.end(end)
        got = self._receive(sock) if mode == "drain" else "-"
        self.note(f"{label} reader {got}")
        if mode == "once" or self.is_enough():
            self.loop.remove_reader(sock)
        self.steps(body)

    def is_enough(self) -> bool:
        """A handler of an idle program runs once: no number of turns ends the program."""
        return bool(self.program["idle"])

    def do_writer(self, label: int, end: int, mode: str, body: list[Step]) -> None:
        self.loop.add_writer(self.end(end), self._writable, label, end, mode, body)

    def _writable(self, label: int, end: int, mode: str, body: list[Step]) -> None:
        self.note(f"{label} writer")
        if mode != "stay" or self.is_enough():
            self.loop.remove_writer(self.end(end))
        self.steps(body)

    def do_unreader(self, end: int) -> None:
        self.note(f"unreader {self.loop.remove_reader(self.end(end))}")

    def do_unwriter(self, end: int) -> None:
        self.note(f"unwriter {self.loop.remove_writer(self.end(end))}")

    # -- sockets --------------------------------------------------------------------------------

    def _receive(self, sock: socket.socket) -> str:
        size = 0
        self.catch_up()
        try:
            while data := sock.recv(1 << 20):
                size += len(data)
        except OSError as exc:
            name = "" if isinstance(exc, BlockingIOError) else f" {type(exc).__name__}"
            return f"{size}{name}"
        return f"{size} end"

    def do_send(self, end: int) -> None:
        self.end(end).send(b"x")

    def do_send_from_thread(self, end: int) -> None:
        self.helper.call(self.end(end).send, b"x")

    def do_recv_raw(self, end: int) -> None:
        """What is there, and not what a transport has still to send."""
        with contextlib.suppress(BlockingIOError):
            self.note(f"recv {len(self.end(end).recv(100))}")

    def do_recv(self, end: int) -> None:
        self.note(f"recv {self._receive(self.end(end))}")

    def do_fill(self, end: int) -> None:
        """Afterwards the end is not writable."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.end(end).send(bytes(1 << 16))

    def do_shut(self, end: int) -> None:
        self.end(end).shutdown(socket.SHUT_WR)

    def do_renew(self, end: int) -> None:
        """Closes a pair and makes another, which gets the same numbers."""
        for number in (end & ~1, end | 1):
            self.loop.remove_reader(self.end(number))
            self.loop.remove_writer(self.end(number))
        for number in (end & ~1, end | 1):
            self.ends.pop(number).close()
        self.end(end)

    def do_pause(self) -> None:
        time.sleep(PAUSE_S)

    # -- futures and tasks ----------------------------------------------------------------------

    def future(self, number: int) -> asyncio.Future[Any]:
        if number not in self.futures:
            self.futures[number] = self.loop.create_future()
        return self.futures[number]

    def do_resolve(self, number: int) -> None:
        if not self.future(number).done():
            self.future(number).set_result(None)

    def do_callback(self, label: int, number: int, body: list[Step]) -> None:
        self.future(number).add_done_callback(lambda _: self.called(label, body))

    def do_task(self, label: int, awaits: list[Step]) -> None:
        self.tasks[label] = self.loop.create_task(self._task(label, awaits))

    def do_cancel_task(self, number: int) -> None:
        if self.tasks:
            label = sorted(self.tasks)[number % len(self.tasks)]
            self.note(f"cancel task {self.tasks[label].cancel()}")

    async def _task(self, label: int, awaits: list[Step]) -> None:
        self.note(f"{label} starts")
        for n, (name, *args) in enumerate(awaits):
            try:
                value = await getattr(self, "await_" + name)(*args)
            except asyncio.CancelledError:
                self.note(f"{label}.{n} cancelled")
                raise
            except Exception as exc:
                self.note(f"{label}.{n} {type(exc).__name__}")
            else:
                self.note(f"{label}.{n} {value}")

    async def await_zero(self) -> None:
        await asyncio.sleep(0)

    async def await_future(self, number: int) -> None:
        await asyncio.shield(self.future(number))

    async def await_recv(self, end: int) -> int:
        return len(await self.loop.sock_recv(self.end(end), 1000))

    async def await_sendall(self, end: int) -> None:
        await self.loop.sock_sendall(self.end(end), b"yy")

    async def await_steps(self, body: list[Step]) -> None:
        self.steps(body)


# ---- comparing --------------------------------------------------------------------------------


class Reference:
    """asyncio's loop, with the selector's order in hand."""

    def __init__(self) -> None:
        self.selector = ShuffledSelector()
        self.selector.early = {}
        self.pause_s = IDLE_PAUSE_S
        self.loop = asyncio.SelectorEventLoop(self.selector)

    def traces(
        self, helper: Helper, program: Program, found: list[str], count: int, is_early: bool
    ) -> Iterator[list[str]]:
        """asyncio's trace, then those with other orders of what is ready at once.

        found: the other loop's trace, whose order is tried, too.
        is_early: also those of an asyncio that receives when the turn polls, as netpoll does.
        """
        is_early = is_early and not {"connect", "serve"}.isdisjoint(step_names(program))
        for order in range(count):
            for early in ({}, None) if is_early else (None,):
                self.selector.order = order
                self.selector.random = random.Random(order)
                self.selector.early = {} if early is None else early
                run = Run(self.loop, helper, program, early, self.pause_s)
                if is_like(order):
                    self.selector.like = Likeness(run, found, order).rank
                yield run.result()


class Likeness:
    """Finds out of a trace in which order a loop took the descriptors, turn by turn."""

    def __init__(self, run: Run, trace: list[str], order: int) -> None:
        self.run = run
        self.order = order
        self.random = random.Random(order)
        self.is_idle = bool(run.program["idle"])
        self.turns: list[list[int]] = [[]] if self.is_idle else []
        # An accepted connection has no end, nor has a later protocol: the label stands for it.
        is_served = not {"serve", "set_protocol"}.isdisjoint(step_names(run.program))
        end_of = {str(label): end for label, end in labelled_ends(run.program)}
        for line in trace:
            first, _, rest = line.partition(" ")
            if first == "turn" and not self.is_idle:
                self.turns.append([])
            elif self.turns and rest.startswith(BY_EVENT):
                if first in end_of:
                    self.turns[-1].append(end_of[first])
                elif is_served and first.isdigit():
                    self.turns[-1].append(int(first))

    @staticmethod
    def of(run: Run) -> list[str]:
        """The lines so far that events have brought."""
        return [line for line in run.trace if line.partition(" ")[2].startswith(BY_EVENT)]

    def rank(self, fd: int) -> int:
        """The place of a descriptor among those of the coming turn."""
        if self.is_idle:  # no turns to be seen: what has not happened yet
            turn = self.turns[0][len(Likeness.of(self.run)) :]
        else:
            turn = self.turns[self.run.turn] if self.run.turn < len(self.turns) else []
        for place, end in enumerate(turn):
            if self.run.number_of(end) == fd:
                return place
        # One that leaves no line, a listening socket for one: last, first, or anywhere.
        if self.order < 3:
            return len(turn) if self.order == 1 else -1
        return self.random.choice((-1, len(turn)))


def labelled_ends(program: Program) -> Iterator[tuple[int, int]]:
    """(label, end) of all readers, writers and connections of a program."""
    for burst in program["bursts"]:
        for name, *args in all_steps(burst):
            if name in ("reader", "writer", "connect"):
                yield args[0], args[1]


class Comparison:
    """asyncio and one loop, side by side, for many programs."""

    def __init__(self, backend: str) -> None:
        self.reference = Reference()
        self.loop = make_loop(backend)
        self.helper = Helper()
        # asyncio and netpoll log what is written to a lost connection.
        self.logger = logging.getLogger("asyncio")
        self.level = self.logger.level
        self.logger.setLevel(logging.CRITICAL)

    def close(self) -> None:
        self.helper.close()
        self.logger.setLevel(self.level)
        self.reference.loop.close()
        self.loop.close()

    def run(self, program: Program) -> list[str]:
        pause_s = self.reference.pause_s
        return Run(self.loop, self.helper, program, pause_s=pause_s).result()

    def difference(self, program: Program, is_early: bool = True) -> str | None:
        """What is different about this program's run, in words; None: nothing.

        is_early: receiving when the turn polls is not taken for a difference.
        A busy machine can make a thread late: only what is different each time counts, and each
        time the pauses are longer.
        """
        self.reference.pause_s = IDLE_PAUSE_S
        found: list[str] = []
        expected: list[str] = []
        for count in (3, 13, 60):
            found = self.run(program)
            traces = self.reference.traces(self.helper, program, found, count, is_early)
            for order, trace in enumerate(traces):
                if trace == found:
                    return None
                if order == 0:
                    expected = trace
            self.reference.pause_s *= 4
        return describe(program, expected, found)

    def is_different(self, program: Program) -> bool:
        return all(self.difference(program) is not None for _ in range(2))


def describe(program: Program, expected: list[str], found: list[str]) -> str:
    same = 0
    while same < min(len(expected), len(found)) and expected[same] == found[same]:
        same += 1
    return (
        f"program: {program!r}\n"
        f"both: {expected[max(0, same - 12) : same]}\n"
        f"asyncio goes on: {expected[same : same + 12]}\n"
        f"this loop goes on: {found[same : same + 12]}"
    )
