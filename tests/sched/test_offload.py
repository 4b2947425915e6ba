"""Connections as tasks: handlers in workers, in order, and everything else at home."""

import asyncio
import socket
import threading
import time
from typing import Any

import pytest

from netpoll import Priority, Scheduler, Server
from netpoll.offload import PENDING_MAX_COUNT, offload, offload_data

from ..conftest import LoopFactory
from .conftest import MakeScheduler, take_reports

pytestmark = pytest.mark.control


def talk(loop, scheduler: Scheduler, handler, client, connections: int = 1) -> list:
    """Serves `handler` on `loop`, and runs client(reader, writer, number) so often at once."""

    async def main() -> list:
        server = await loop.create_server(offload(handler, scheduler), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()

        async def connect(number: int):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                return await client(reader, writer, number)
            finally:
                writer.close()

        async with server:
            return await asyncio.gather(*(connect(n) for n in range(connections)))

    return loop.run_until_complete(asyncio.wait_for(main(), 30))


async def answer_to(reader: Any, writer: Any, number: int) -> bytes:
    """What a client is sent for its number; nothing: its connection has ended."""
    writer.write(b"%d" % number)
    try:
        return await reader.read(10)
    except ConnectionResetError:
        return b""


def test_replies_come_back_in_order(loop, make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(3)
    threads = set()

    def handler(data: bytes) -> bytes:
        threads.add(threading.current_thread().name)
        if data[0] % 3 == 0:
            time.sleep(0.0005)
        return data

    async def client(reader, writer, number: int) -> bool:
        sent = b"".join(b"%d:%d;" % (number, n) for n in range(400))
        for start in range(0, len(sent), 37):
            writer.write(sent[start : start + 37])
            if start % 5 == 0:
                await asyncio.sleep(0)
        return await reader.readexactly(len(sent)) == sent

    assert all(talk(loop, scheduler, handler, client, connections=16))
    assert threads <= {f"{scheduler.name}-{n}" for n in range(3)}


def test_a_connection_s_handler_runs_once_at_a_time(loop, make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(3)
    inside, worst = [0], [0]

    def handler(data: bytes) -> bytes:
        inside[0] += 1
        worst[0] = max(worst[0], inside[0])
        time.sleep(0.001)
        inside[0] -= 1
        return data

    async def client(reader, writer, number: int) -> None:
        for _ in range(20):
            writer.write(b"x")
            await asyncio.sleep(0.0005)
        await reader.readexactly(20)

    talk(loop, scheduler, handler, client)
    assert worst == [1]


def test_a_handler_that_fails_ends_its_connection_only(loop, make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(2)

    def handler(data: bytes) -> bytes:
        return b"%d" % (10 // int(data))

    assert talk(loop, scheduler, handler, answer_to, connections=3) == [b"", b"10", b"5"]
    (report,) = take_reports(scheduler)
    assert isinstance(report["exception"], ZeroDivisionError)


def test_a_slow_handler_pauses_its_connection(loop, make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(1)
    go = threading.Event()
    received = []

    def handler(data: bytes) -> None:
        go.wait(20)
        received.append(data)

    async def client(reader, writer, number: int) -> int:
        for n in range(4 * PENDING_MAX_COUNT):
            writer.write(b"m")
            await writer.drain()
            await asyncio.sleep(0.0002)
        go.set()
        while sum(map(len, received)) < 4 * PENDING_MAX_COUNT:
            await asyncio.sleep(0.001)
        return len(received)

    # While it was paused the kernel kept the rest, which then came in fewer, larger pieces.
    (count,) = talk(loop, scheduler, handler, client)
    assert count < 3 * PENDING_MAX_COUNT


def test_a_loop_that_is_closed_first_loses_only_its_replies(
    loop_factory: LoopFactory, make_scheduler: MakeScheduler
) -> None:
    scheduler = make_scheduler(1)
    loop = loop_factory()
    started, go = threading.Event(), threading.Event()

    def handler(data: bytes) -> bytes:
        started.set()
        go.wait(20)
        return data

    async def client(reader, writer, number: int) -> None:
        writer.write(b"x")
        await asyncio.to_thread(started.wait, 20)

    talk(loop, scheduler, handler, client)
    loop_factory.close()
    go.set()
    scheduler.close()
    assert take_reports(scheduler) == []


def test_a_reply_that_cannot_be_written_ends_its_connection_only(
    loop, make_scheduler: MakeScheduler
) -> None:
    """Those that came with it, in one batch, go out (bug class 34)."""
    scheduler = make_scheduler(1)
    go, at_flush = threading.Event(), threading.Event()

    def handler(data: bytes) -> bytes:
        go.wait(20)
        return data if data != b"1" else "no bytes"  # type: ignore[return-value]

    def hold() -> None:  # until all replies are there
        go.set()
        scheduler.spawn(at_flush.set, priority=Priority.LOW)
        at_flush.wait(20)

    loop.call_later(0.1, hold)
    answers = talk(loop, scheduler, handler, answer_to, connections=4)
    assert answers == [b"" if n == 1 else b"%d" % n for n in range(4)]
    (report,) = take_reports(scheduler)
    assert isinstance(report["exception"], TypeError)


@pytest.mark.netpoll_only
def test_a_server_s_connections_are_handled_by_the_scheduler(
    backend: str, make_scheduler: MakeScheduler
) -> None:
    scheduler = make_scheduler(2)
    threads = set()

    def handler(data: bytes) -> bytes:
        threads.add(threading.current_thread().name)
        return data.swapcase()

    def ask(client: socket.socket, data: bytes) -> bytes:
        client.sendall(data)
        answer = b""
        while len(answer) < len(data):
            answer += client.recv(65536)
        return answer

    with Server(
        offload_data(handler, scheduler), "127.0.0.1", 0, backend=backend, workers=2
    ) as server:
        for _ in range(4):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
                for size in (1, 100, 30_000):
                    assert ask(client, b"Ab" * size) == b"aB" * size
    assert threads <= {f"{scheduler.name}-{n}" for n in range(2)}


@pytest.mark.netpoll_only
def test_a_server_s_failing_handler_ends_its_connection(
    backend: str, make_scheduler: MakeScheduler
) -> None:
    scheduler = make_scheduler(1)
    handler = offload_data(lambda data: b"%d" % (1 // int(data)), scheduler)
    with Server(handler, "127.0.0.1", 0, backend=backend) as server:
        for data, answer in ((b"0", b""), (b"1", b"1")):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
                client.sendall(data)
                try:
                    assert client.recv(10) == answer
                except ConnectionResetError:
                    assert answer == b""
    (report,) = take_reports(scheduler)
    assert isinstance(report["exception"], ZeroDivisionError)
