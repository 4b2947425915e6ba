"""The bounds of docs/turn.md under floods: counts of what happens in one turn, not milliseconds.

A callback that posts itself runs once in each turn. What is counted between two of its runs
happened in one turn.
"""

import asyncio
import contextlib
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import netpoll
from tests.support import Recorder, pair, until

ROOT = Path(__file__).parents[2]


def constant(name: str, home: str) -> int:
    """A bound, out of the file that is its home."""
    text = ROOT.joinpath(home).read_text()
    found = re.search(rf"^(?:#define )? *{name} =? ?(.+?)(?: *//.*)?$", text, re.MULTILINE)
    assert found is not None, name
    return int(eval(found[1], {}))


LIMITS = "src/netpoll/_native/limits.pxd"
CORE_LIMITS = "csrc/base/np_limits.h"
EVENTS = constant("NP_HARVEST_MAX_EVENTS", CORE_LIMITS)
SERVER_ACCEPTS = constant("NP_EPOLL_ACCEPT_MAX_PER_TURN", CORE_LIMITS)
READ_BYTES = constant("READ_BUDGET_BYTES", LIMITS)
ONE_READ_BYTES = constant("BULK_READ_MAX_BYTES", LIMITS)
BUFFERS_BYTES = constant("NP_BUF_DEFAULT_COUNT", CORE_LIMITS) * constant(
    "NP_BUF_DEFAULT_BYTES", CORE_LIMITS
)
SERVER_READ_BYTES = max(constant("BULK_BUF_BYTES", LIMITS), BUFFERS_BYTES)
REQUESTS = constant("HTTP_REQUESTS_TURN_COUNT", LIMITS)
DATAGRAMS = constant("DATAGRAM_BUDGET_COUNT", LIMITS)
FILE_BYTES = constant("FILE_BUDGET_BYTES", LIMITS)


class Turns:
    """Counts per turn: `with Turns(loop) as turns: ... turns.add()`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.count = 0
        self.turns_count = 0
        self.counts: list[int] = []

    def __enter__(self) -> "Turns":
        self.handle = self.loop.call_soon(self._tick)
        return self

    def _tick(self) -> None:
        self.turns_count += 1
        if self.count:
            self.counts.append(self.count)
        self.count = 0
        self.handle = self.loop.call_soon(self._tick)

    def add(self, amount: int = 1) -> None:
        self.count += amount

    def __exit__(self, *_: object) -> None:
        self.handle.cancel()
        self.counts.append(self.count)

    @property
    def highest(self) -> int:
        return max(self.counts)


@contextlib.contextmanager
def flooding(sock: socket.socket, data: bytes) -> Iterator[None]:
    """A thread that sends without end, as fast as it is read."""
    sock.setblocking(True)
    sock.settimeout(20)

    def send() -> None:
        with contextlib.suppress(OSError):  # reset, or shut down below
            while True:
                sock.sendall(data)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        sock.close()


async def is_prompt(loop: Any) -> bool:
    """What is posted runs in the next turn, a timer without delay in the one after its wait."""
    seen: dict[str, int] = {}
    now = loop.stats()["turns"]
    done = loop.create_future()

    def note(name: str) -> None:
        seen[name] = loop.stats()["turns"] - now
        if len(seen) == 2:
            done.set_result(None)

    loop.call_soon(note, "soon")
    loop.call_later(0, note, "later")
    await done
    return seen["soon"] == 1 and seen["later"] <= 2


# ---- callbacks and timers -----------------------------------------------------------------------


async def test_callbacks_that_post_themselves(loop: Any) -> None:
    """A thousand of them: each runs once in a turn, and a timer is as early as without them."""
    handles: dict[int, asyncio.Handle] = {}

    def again(number: int) -> None:
        turns.add()
        handles[number] = loop.call_soon(again, number)

    with Turns(loop) as turns:
        for number in range(1000):
            handles[number] = loop.call_soon(again, number)
        assert all([await is_prompt(loop) for _ in range(5)])
        for handle in handles.values():
            handle.cancel()
    assert turns.highest == 1000


async def test_timers_that_set_themselves(loop: Any) -> None:
    """Without a delay: each fires once in a turn."""
    handles: dict[int, asyncio.TimerHandle] = {}

    def again(number: int) -> None:
        turns.add()
        handles[number] = loop.call_later(0, again, number)

    with Turns(loop) as turns:
        for number in range(1000):
            handles[number] = loop.call_later(0, again, number)
        assert all([await is_prompt(loop) for _ in range(5)])
        for handle in handles.values():
            handle.cancel()
    assert turns.highest <= 1000


async def test_calls_from_threads(loop: Any) -> None:
    """Threads that post without end: what came before the turn runs, the rest waits."""
    is_over = threading.Event()
    posted = [0, 0]

    def post(index: int) -> None:
        while not is_over.is_set():
            loop.call_soon_threadsafe(turns.add)
            posted[index] += 1
            if posted[index] % 100 == 0:
                is_over.wait(0.001)

    with Turns(loop) as turns:
        threads = [threading.Thread(target=post, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        try:
            await until(lambda: sum(posted) > 2000)
            for _ in range(5):
                now = turns.turns_count
                await asyncio.sleep(0)
                assert turns.turns_count - now <= 2
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
    assert turns.turns_count > 20


# ---- events of the kernel -----------------------------------------------------------------------


async def test_descriptors_that_are_always_ready(loop: Any) -> None:
    """More of them than one turn takes: none is left out, and none twice in a turn."""
    pairs = [socket.socketpair() for _ in range(EVENTS + 100)]
    seen = [0] * len(pairs)

    def hear(number: int) -> None:
        turns.add()
        seen[number] += 1

    with Turns(loop) as turns:
        for number, (left, right) in enumerate(pairs):
            right.send(b"x")
            loop.add_reader(left, hear, number)
        await until(lambda: min(seen) >= 5)
        assert all([await is_prompt(loop) for _ in range(5)])
        for left, _ in pairs:
            loop.remove_reader(left)
    assert turns.highest <= EVENTS
    assert max(seen) <= 3 * min(seen)  # in their turns, as far as the kernel's list goes
    for one, other in pairs:
        one.close()
        other.close()


def connected(address: Any, count: int) -> list[socket.socket]:
    clients = [socket.socket() for _ in range(count)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(address)
    return clients


async def test_a_flood_of_connections(loop: Any) -> None:
    """`backlog` of create_server bounds what a turn accepts, too."""
    backlog = 20

    class Counting(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            turns.add()
            transports.append(transport)

    transports: list[Any] = []
    server = await loop.create_server(Counting, "127.0.0.1", 0, backlog=backlog)
    with Turns(loop) as turns:
        listener = socket.fromfd(server.sockets[0].fileno(), socket.AF_INET, socket.SOCK_STREAM)
        listener.listen(1000)  # more wait than the loop was told of
        listener.close()
        clients = connected(server.sockets[0].getsockname(), 300)
        await until(lambda: len(transports) == 300)
        assert await is_prompt(loop)
    assert turns.highest <= backlog + 1  # asyncio counts from 0 to the backlog
    for client in clients:
        client.close()
    for transport in transports:
        transport.abort()
    server.close()
    await asyncio.sleep(0.01)


async def test_a_flood_of_connections_of_a_server(loop: Any, backend: str) -> None:
    seen: list[Any] = []

    def count(conn: Any) -> None:
        turns.add()
        seen.append(None)

    server = netpoll.Server(lambda conn: conn.take(), "127.0.0.1", 0, on_connect=count)
    with Turns(loop) as turns:
        async with server:
            clients = connected(("127.0.0.1", server.port), 600)
            await until(lambda: len(seen) == 600)
            assert await is_prompt(loop)
            for client in clients:
                client.close()
    assert turns.highest <= (SERVER_ACCEPTS if backend == "epoll" else EVENTS)


# ---- one connection that never stops ------------------------------------------------------------


async def test_a_connection_that_never_stops(loop: Any) -> None:
    class Sink(asyncio.Protocol):
        received_bytes = 0

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            turns.add(len(data))
            Sink.received_bytes += len(data)

    sinks: list[Sink] = []

    def made() -> Sink:
        sinks.append(Sink())
        return sinks[-1]

    server = await loop.create_server(made, "127.0.0.1", 0)
    with Turns(loop) as turns:
        client = socket.create_connection(server.sockets[0].getsockname())
        with flooding(client, bytes(1 << 20)):
            await until(lambda: Sink.received_bytes > 30 << 20)
            assert all([await is_prompt(loop) for _ in range(5)])
            sinks[0].transport.abort()
    assert turns.highest <= READ_BYTES + ONE_READ_BYTES
    server.close()
    await asyncio.sleep(0.01)


async def test_a_connection_of_a_server_that_never_stops(loop: Any) -> None:
    seen = [0]

    def take(conn: Any) -> None:
        size = len(conn.take())
        turns.add(size)
        seen[0] += size

    with Turns(loop) as turns:
        async with netpoll.Server(take, "127.0.0.1", 0) as server:
            client = socket.create_connection(("127.0.0.1", server.port))
            with flooding(client, bytes(1 << 20)):
                await until(lambda: seen[0] > 30 << 20)
                assert all([await is_prompt(loop) for _ in range(5)])
    assert turns.highest <= SERVER_READ_BYTES


async def test_requests_that_never_stop(loop: Any) -> None:
    """HTTP pipelining: a read holds thousands, and some of them are answered in a turn."""
    from netpoll import http

    request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    seen = [0]

    def app(_request: Any) -> bytes:
        turns.add()
        seen[0] += 1
        return b"x"

    def swallow(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while client.recv(1 << 16):
                pass

    with Turns(loop) as turns:
        async with http.Server(app, "127.0.0.1", 0) as server:
            client = socket.create_connection(("127.0.0.1", server.port))
            reading = threading.Thread(target=swallow, args=(client,))
            reading.start()
            with flooding(client, request * 1000):
                await until(lambda: seen[0] > 30_000)
                assert all([await is_prompt(loop) for _ in range(5)])
            reading.join()
    assert turns.highest <= REQUESTS


@pytest.mark.parametrize("kind", ["raw", "asgi"])
async def test_every_request_of_a_long_pipeline_is_answered(loop: Any, kind: str) -> None:
    """Also of a peer that has shut its side by then."""
    from netpoll import http

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": scope["query_string"]})

    def raw(request: Any) -> str:
        return str(request.query)

    count = 10 * REQUESTS + 7
    request = "GET /?{:04} HTTP/1.1\r\nhost: a\r\n\r\n"
    app = raw if kind == "raw" else asgi
    async with http.Server(app, "127.0.0.1", 0, interface=kind, lifespan="off") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write("".join(request.format(number) for number in range(count)).encode())
        writer.write_eof()
        answers = await reader.read()
        writer.close()
    assert answers.count(b"HTTP/1.1 200") == count
    found = [int(number) for number in re.findall(rb"(\d{4})(?:\r\n0)?(?=\r\n|HTTP|$)", answers)]
    assert [number for number in found if number < count][-1] == count - 1


async def test_requests_behind_a_full_connection(loop: Any) -> None:
    """The peer has shut its side, and its answers are more than is kept unsent: none is lost."""
    from netpoll import http

    count, size = 60, 1 << 20
    answer = b"x" * size

    async with http.Server(lambda _request: answer, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * count)
        writer.write_eof()
        await asyncio.sleep(0.05)
        received = len(await reader.read())
        writer.close()
    assert received // size == count


async def test_a_file_that_is_taken_as_fast_as_it_is_sent(loop: Any) -> None:
    """One connection's file and another's small answers: the file leaves in pieces."""
    size = 64 << 20
    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), size)

        def give(conn: Any) -> None:
            conn.take()
            conn.sendfile(file)

        async with netpoll.Server(give, "127.0.0.1", 0) as server:
            client = socket.create_connection(("127.0.0.1", server.port))
            client.sendall(b"go")
            received = [0]

            def swallow() -> None:
                while received[0] < size:
                    received[0] += len(client.recv(1 << 20))

            begin = loop.stats()["turns"]
            reading = threading.Thread(target=swallow)
            reading.start()
            with Turns(loop) as turns:
                await until(lambda: received[0] == size)
                assert await is_prompt(loop)
            reading.join()
            client.close()
            assert turns.turns_count >= size // FILE_BYTES
            assert loop.stats()["turns"] - begin >= size // FILE_BYTES


async def test_datagrams_that_never_stop(loop: Any) -> None:
    seen = [0]

    class Count(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            turns.add()
            seen[0] += 1

    transport, _ = await loop.create_datagram_endpoint(Count, local_addr=("127.0.0.1", 0))
    address = transport.get_extra_info("sockname")
    is_over = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            while not is_over.is_set():
                sock.sendto(b"datagram", address)

    thread = threading.Thread(target=send)
    with Turns(loop) as turns:
        thread.start()
        try:
            await until(lambda: seen[0] > 5000)
            assert all([await is_prompt(loop) for _ in range(5)])
        finally:
            is_over.set()
            thread.join()
    assert turns.highest <= DATAGRAMS
    transport.close()
    await asyncio.sleep(0.01)


async def test_writes_without_end_are_held_up_by_flow_control(loop: Any) -> None:
    """A protocol that writes in each turn to a peer that does not read is paused at 64 KiB."""
    client, served = await pair(loop, Recorder, Recorder)
    served.transport.pause_reading()
    with Turns(loop) as turns:
        while "pause" not in client.events:
            client.transport.write(bytes(32 * 1024))
            await asyncio.sleep(0)
        assert await is_prompt(loop)
    assert client.transport.get_write_buffer_size() <= (64 + 32) * 1024
    assert turns.turns_count < 5000
    client.transport.abort()
    await asyncio.sleep(0.01)


# ---- the scheduler ------------------------------------------------------------------------------

# Others that have been passed over often enough go before it: one of each lane.
CONTROL_WAITS_FOR = 3


@pytest.mark.parametrize("has_loop", [False, True], ids=["plain", "with a loop"])
def test_a_control_task_in_a_flood(has_loop: bool) -> None:
    """Posted from outside and from inside, with thousands of others in all lanes before it."""
    ran: list[str] = []
    waits: list[int] = []
    gate, is_posted = threading.Event(), threading.Event()
    levels = (netpoll.Priority.HIGH, netpoll.Priority.NORMAL, netpoll.Priority.LOW)

    def blocks() -> None:
        gate.set()
        is_posted.wait(20)

    def control(number: int) -> None:
        waits.append(len(ran) - number)

    def other() -> None:
        ran.append("other")
        if len(ran) % 500 == 0:  # from inside
            scheduler.spawn(control, len(ran), priority=netpoll.Priority.CONTROL)

    with netpoll.Scheduler(workers=1) as scheduler:
        if has_loop:
            scheduler.loop(0)
        scheduler.spawn(blocks)
        assert gate.wait(20)
        for number in range(3000):
            scheduler.spawn(other, priority=levels[number % 3])
        scheduler.spawn(control, 0, priority=netpoll.Priority.CONTROL)  # from outside
        is_posted.set()
    assert len(ran) == 3000
    assert len(waits) == 7
    assert max(waits) <= CONTROL_WAITS_FOR, waits


def test_the_page_names_the_bounds() -> None:
    text = ROOT.joinpath("docs", "turn.md").read_text()
    table = text.split("## Bounds", 1)[1].split("## ", 1)[0]
    said = {
        "NP_HARVEST_MAX_EVENTS": "256", "NP_EPOLL_ACCEPT_MAX_PER_TURN": "64",
        "HTTP_REQUESTS_TURN_COUNT": "64", "READ_BUDGET_BYTES": "1 MiB", "BULK_BUF_BYTES": "256 KiB",
        "DATAGRAM_BUDGET_COUNT": "256", "SENDFILE_TURN_BYTES": "8 MiB",
        "FILE_BUDGET_BYTES": "1 MiB", "TURN_TASKS_COUNT": "64", "TURN_TASKS_NS": "200 µs",
    }  # fmt: skip
    units = {"MiB": 1 << 20, "KiB": 1 << 10, "µs": 1000}
    for name, value in said.items():
        rows = [row for row in table.splitlines() if f"`{name}`" in row]
        assert len(rows) == 1, name
        assert value in rows[0]
        amount, _, unit = value.partition(" ")
        home = CORE_LIMITS if name.startswith("NP_") else LIMITS
        assert constant(name, home) == int(amount) * units.get(unit, 1), name


def test_the_counting_counts() -> None:
    """The control: many in one turn are many."""
    counted: list[Callable[[], int]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with Turns(loop) as turns:
            await asyncio.sleep(0)
            for _ in range(7):
                loop.call_soon(turns.add)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        counted.append(lambda: turns.highest)

    netpoll.run(main())
    assert counted[0]() == 7
