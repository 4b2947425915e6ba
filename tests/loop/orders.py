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
from dataclasses import dataclass
from typing import Any

from ..support import make_loop, unix_pair
from .order_making import DATAGRAM_ENDS, TRANSPORT_ENDS, Program, Step, all_steps
from .order_peers import BurstingLoop, EarlySocket, Peers

TURNS_COUNT = 12
# A timer of this delay is due after a pause of that length, and not before.
DELAY_S = 0.0003
PAUSE_S = 0.0006
IDLE_PAUSE_S = 0.0015
MUCH_BYTES = 1 << 14
# How the lines of what an event brings begin, behind the label.
BY_EVENT = ("reader", "writer", "data", "eof", "got")


def datagram_pair() -> tuple[socket.socket, socket.socket]:
    """Connected to each other, and with names: asyncio cannot send to a peer that has none."""
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    right = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in (left, right):
        end.setblocking(False)
        end.bind(b"")
    left.connect(right.getsockname())
    right.connect(left.getsockname())
    return left, right


class ShuffledSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Hands out what is ready in an order of `arrange`'s; None: in the kernel's."""

    arrange: Callable[[list[Any]], list[Any]] | None = None

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(timeout)
        return self.arrange(ready) if self.arrange else ready


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
        is_strict: bool = False,
    ) -> None:
        self.loop, self.helper, self.program, self.early = loop, helper, program, early
        super().__init__()
        self.pause_s = pause_s
        self.is_strict = is_strict
        self.trace: list[str] = []
        self.ends: dict[int, socket.socket] = {}
        self.handles: list[Any] = []
        self.futures: dict[int, asyncio.Future[Any]] = {}
        self.tasks: dict[int, asyncio.Task[Any]] = {}
        self.transports: dict[int, Any] = {}
        self.endpoints: dict[int, Any] = {}
        self.connected: set[int] = set()
        self.turn = 0
        self.is_over = False
        # How many datagrams the reference receives in one turn.
        self.burst_of: Callable[[int], int] = lambda label: 1

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
        for transport in (*self.transports.values(), *self.endpoints.values()):
            # asyncio's, of one whose socket is closed, or that has closed with its last write.
            with contextlib.suppress(ValueError, AttributeError):
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
            is_datagram = number & ~1 in DATAGRAM_ENDS
            left, right = datagram_pair() if is_datagram else unix_pair()
            if self.early is not None and number & ~1 in TRANSPORT_ENDS:
                left = EarlySocket(fileno=left.detach())
                self.early[left.fileno()] = left
            self.ends[number & ~1], self.ends[number | 1] = left, right
        return self.ends[number]

    def end_number(self, end: int) -> int:
        """The descriptor of an end; -1: it has none yet."""
        return self.ends[end].fileno() if end in self.ends else -1

    def transport_number(self, label: int) -> int:
        """The descriptor of a connection."""
        transport = self.transports.get(label) or self.endpoints.get(label)
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
        """How much was there, in words, and how it ended."""
        size = 0
        self.catch_up()
        try:
            while data := sock.recv(1 << 20):
                size += len(data)
        except OSError as exc:
            name = "" if isinstance(exc, BlockingIOError) else f" {type(exc).__name__}"
            return self.amount(size) + name
        return f"{self.amount(size)} end"

    def amount(self, size: int) -> str:
        """A socket that is full has taken as much as the kernel's bookkeeping had room for: not to
        be compared, unless all is."""
        return str(size) if size < MUCH_BYTES or self.is_strict else "much"

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
        self.pause_s = IDLE_PAUSE_S
        self.loop = BurstingLoop(self.selector)

    def run(
        self, helper: Helper, program: Program, search: Search | None = None, *, is_strict: bool
    ) -> list[str]:
        """asyncio's trace; with a search: that of its next try."""
        is_early = search is not None and not is_strict
        run = Run(self.loop, helper, program, {} if is_early else None, self.pause_s, is_strict)
        self.selector.arrange = search.begin(run) if search else None
        trace = run.result()
        # asyncio's datagram transport, aborted when it is told of a full socket, leaves its number.
        for key in list(self.selector.get_map().values()):
            if key.fd != self.loop._ssock.fileno():  # type: ignore[attr-defined]
                self.selector.unregister(key.fileobj)
        return trace

    def can_do(
        self, helper: Helper, program: Program, found: list[str], count: int, is_strict: bool
    ) -> bool:
        """Whether asyncio comes to this trace with some order of what is ready at once.

        Unless is_strict, an asyncio will do that receives when the turn polls, as netpoll does.
        """
        search = Search(program, found)
        return any(
            search.is_found(self.run(helper, program, search, is_strict=is_strict))
            for _ in range(count)
        )


@dataclass(frozen=True)
class Choice:
    """What was chosen in one turn of a try, for what was ready, by descriptor."""

    traced_count: int  # lines of the trace by then
    order: list[int]
    is_early: list[bool]  # EarlySockets: whether their receive takes what is there now


class Search:
    """Looks for the order of what is ready at once with which asyncio comes to a trace.

    Most of the order is in the trace: what an event brings begins with a label, and the label leads
    to the descriptor. What leaves no line of its own, accepting for one, is put somewhere among
    the others. Each try keeps the choices of the best one so far up to a point shortly before its
    first wrong line, and makes new ones for what comes later.
    """

    def __init__(self, program: Program, found: list[str]) -> None:
        self.found = found
        self.random = random.Random(0)
        self.tries_count = 0
        self.is_idle = bool(program["idle"])
        self.end_of = dict(labelled_ends(program))
        # The labels of the lines that events have brought, turn by turn.
        self.turns: list[list[int]] = [[]] if self.is_idle else []
        for line in found:
            if line.startswith("turn ") and not self.is_idle:
                self.turns.append([])
            elif self.turns and is_by_event(line):
                self.turns[-1].append(int(line.partition(" ")[0]))
        self.choices: list[Choice] = []
        # Of the best try, and how much of its trace was right.
        self.best: list[Choice] = []
        self.right_count = 0
        self.kept_count = 0

    def begin(self, run: Run) -> Callable[[list[Any]], list[Any]]:
        """The next try: what arranges that run's descriptors."""
        self.run = run
        self.choices = []
        made_count = sum(choice.traced_count <= self.right_count for choice in self.best)
        self.kept_count = max(0, made_count - self.random.randint(0, 4)) if self.tries_count else 0
        self.tries_count += 1
        if run.early is not None:
            run.burst_of = self.burst_of
        self.is_like = self.tries_count <= 4 or self.random.random() < 0.8
        self.early_share = {1: 1.0, 2: 0.0}.get(self.tries_count, 0.8)
        return self.arrange

    def is_found(self, trace: list[str]) -> bool:
        """The end of a try."""
        right_count = 0
        for line, found in zip(trace, self.found, strict=False):
            if line != found:
                break
            right_count += 1
        if right_count >= self.right_count:
            self.right_count, self.best = right_count, self.choices
        return trace == self.found

    def arrange(self, ready: list[Any]) -> list[Any]:
        early = self.run.early or {}
        if len(ready) < 2 and not any(key.fd in early for key, _ in ready):
            return ready
        ready.sort(key=lambda item: item[0].fd)
        number = len(self.choices)
        choice = self.best[number] if number < self.kept_count else None
        if choice is None or len(choice.order) != len(ready):
            order = self.likely_order([key.fd for key, _ in ready])
            is_early = [self.random.random() < self.early_share for _ in ready]
            choice = Choice(len(self.run.trace), order, is_early)
        self.choices.append(choice)
        for (key, _), looks in zip(ready, choice.is_early, strict=True):
            if looks and key.fd in early:
                early[key.fd].look()
        return [ready[place] for place in choice.order]

    def likely_order(self, fds: list[int]) -> list[int]:
        """Places in the list of descriptors."""
        order = list(range(len(fds)))
        if not self.is_like:
            self.random.shuffle(order)
            return order
        if self.is_idle:  # no turns to be seen: what has not happened yet
            turn = self.turns[0][sum(map(is_by_event, self.run.trace)) :]
        else:
            turn = self.turns[self.run.turn] if self.run.turn < len(self.turns) else []
        places = {}
        for fd in fds:  # who leaves no line: first all of them last, then first, then anywhere
            at_random = self.random.uniform(-0.1, 1.1)
            places[fd] = {1: 1.0, 2: -1.0}.get(self.tries_count, at_random)
        for number, label in reversed(list(enumerate(turn))):
            places[self.number_of(label)] = number / len(turn)
        order.sort(key=lambda place: places[fds[place]])
        return order

    def burst_of(self, label: int) -> int:
        """As many datagrams as the trace has in this turn."""
        turn = self.turns[self.run.turn - 1] if self.run.turn and not self.is_idle else []
        return turn.count(label) if label in turn else 1 if not self.is_idle else 64

    def number_of(self, label: int) -> int:
        if label in self.end_of:
            return self.run.end_number(self.end_of[label])
        return self.run.transport_number(label)


def is_by_event(line: str) -> bool:
    """Whether it is a line that an event has brought."""
    label, _, rest = line.partition(" ")
    return label.isdigit() and rest.startswith(BY_EVENT)


def labelled_ends(program: Program) -> Iterator[tuple[int, int]]:
    """(label, end) of all readers, writers and connections of a program."""
    for burst in program["bursts"]:
        for name, *args in all_steps(burst):
            if name in ("reader", "writer", "connect", "endpoint"):
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

    def run(self, program: Program, is_strict: bool = False) -> list[str]:
        pause_s = self.reference.pause_s
        run = Run(self.loop, self.helper, program, None, pause_s, is_strict)
        return run.result()

    def difference(self, program: Program, is_strict: bool = False) -> str | None:
        """What is different about this program's run, in words; None: nothing.

        is_strict: receiving when the turn polls, and how much a full socket takes, are differences.
        A busy machine can make a thread late: only what is different each time counts, and each
        time the pauses are longer.
        """
        reference = self.reference
        reference.pause_s = IDLE_PAUSE_S
        found: list[str] = []
        for count in (2, 10, 60 if program["idle"] else 300):
            found = self.run(program, is_strict)
            if reference.can_do(self.helper, program, found, count, is_strict):
                return None
            reference.pause_s *= 4
        expected = reference.run(self.helper, program, is_strict=is_strict)
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
