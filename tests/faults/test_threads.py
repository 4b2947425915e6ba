"""Loops made in one thread and run in another, several loops in several threads. Bug class 15."""

import asyncio
import sys
import threading
from typing import Any

import pytest

from ..support import Echo, Recorder, is_netpoll, pattern, socket_pair, until

pytestmark = pytest.mark.control


def in_thread(function: Any) -> Any:
    """The function's result, computed by another thread."""
    results: list[Any] = []

    def call() -> None:
        try:
            results.append((True, function()))
        except BaseException as error:
            results.append((False, error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "the thread hangs"
    worked, value = results[0]
    if not worked:
        raise value
    return value


def test_made_here_run_there(loop: Any) -> None:
    async def main() -> bytes:
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello")
        data = await reader.readexactly(5)
        writer.close()
        await writer.wait_closed()
        server.close()
        return data

    assert in_thread(lambda: loop.run_until_complete(main())) == b"hello"
    assert loop.run_until_complete(main()) == b"hello"


def test_a_live_server_moves_between_threads(loop: Any) -> None:
    """Set up here, run there, and back, with a connection, a pending read and a timer alive."""
    seen: list[str] = []

    async def set_up() -> Any:
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname()
        )
        left, right = socket_pair()
        task = loop.create_task(loop.sock_recv(right, 100))
        await asyncio.sleep(0)
        loop.call_later(0.02, seen.append, "timer")
        return server, transport, protocol, left, right, task

    server, transport, protocol, left, right, task = loop.run_until_complete(set_up())

    async def talk(word: bytes) -> None:
        count = len(protocol.data)
        transport.write(word)
        await until(lambda: len(protocol.data) == count + len(word))

    async def finish_read() -> bytes:
        left.send(b"from before")
        return await task

    for turn in range(6):
        run = in_thread if turn % 2 else lambda function: function()
        run(lambda turn=turn: loop.run_until_complete(talk(b"turn %d," % turn)))
    assert protocol.data == b"".join(b"turn %d," % turn for turn in range(6))
    assert in_thread(lambda: loop.run_until_complete(finish_read())) == b"from before"
    in_thread(lambda: loop.run_until_complete(asyncio.sleep(0.03)))
    assert seen == ["timer"]

    async def tear_down() -> None:
        transport.close()
        await protocol.lost
        server.close()

    in_thread(lambda: loop.run_until_complete(tear_down()))
    left.close()
    right.close()


def test_moved_with_data_in_flight(loop: Any) -> None:
    """Bytes that were received, queued or half sent at the time of the move."""

    async def set_up() -> Any:
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname()
        )
        transport.write(data)
        return server, transport, protocol

    data = pattern(4 << 20)
    server, transport, protocol = loop.run_until_complete(set_up())
    for _ in range(10):
        in_thread(lambda: loop.run_until_complete(asyncio.sleep(0.001)))
        loop.run_until_complete(asyncio.sleep(0.001))

    async def rest() -> None:
        await until(lambda: len(protocol.data) == len(data))
        transport.close()
        await protocol.lost
        server.close()

    in_thread(lambda: loop.run_until_complete(rest()))
    assert protocol.data == data


def test_closed_by_another_thread(loop: Any) -> None:
    """A loop that has run here is closed there, with connections open."""

    async def main() -> Any:
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        transport, _protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname()
        )
        await asyncio.sleep(0.01)
        return server, transport

    server, transport = loop.run_until_complete(main())
    server.close()
    transport.abort()
    loop.run_until_complete(asyncio.sleep(0.01))
    in_thread(loop.close)
    assert loop.is_closed()


def test_four_loops_in_four_threads(loop_factory: Any) -> None:
    def work() -> int:
        loop = loop_factory()

        async def main() -> int:
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            total = 0
            for _ in range(50):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"x" * 1000)
                total += len(await reader.readexactly(1000))
                writer.close()
                await writer.wait_closed()
            server.close()
            await asyncio.sleep(0.01)
            return total

        try:
            return loop.run_until_complete(main())
        finally:
            loop.close()

    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [50_000] * 4


def test_loops_talk_to_each_other(loop_factory: Any) -> None:
    """A server in one thread, clients in another, answers through call_soon_threadsafe."""
    server_loop, client_loop = loop_factory(), loop_factory()
    ready = threading.Event()
    address: list[Any] = []

    async def serve() -> None:
        server = await server_loop.create_server(Echo, "127.0.0.1", 0)
        address.extend(server.sockets[0].getsockname())
        stop.append(server_loop.create_future())
        ready.set()
        await stop[0]
        server.close()

    stop: list[Any] = []
    thread = threading.Thread(target=lambda: server_loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(20)

    async def ask() -> None:
        async def one(number: int) -> None:
            reader, writer = await asyncio.open_connection(*address)
            for turn in range(20):
                message = b"%d:%d" % (number, turn)
                writer.write(message)
                assert await reader.readexactly(len(message)) == message
            writer.close()
            await writer.wait_closed()

        await asyncio.gather(*(one(n) for n in range(20)))

    client_loop.run_until_complete(ask())
    server_loop.call_soon_threadsafe(stop[0].set_result, None)
    thread.join(20)
    assert not thread.is_alive()


# ---- without a GIL ----------------------------------------------------------------------------

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()
needs_no_gil = pytest.mark.skipif(not FREE_THREADED, reason="needs an interpreter without a GIL")


def test_handles_cancelled_by_another_thread_run_once_or_not_at_all(
    loop: Any, backend: str
) -> None:
    """The loop runs each handle while two threads cancel it."""
    if FREE_THREADED and not is_netpoll(backend):
        pytest.skip("without a GIL asyncio runs handles that lost their callback meanwhile")
    rounds, ran, handles = 3000, [0] * 3000, []
    made = threading.Event()

    def cancel_all() -> None:
        made.wait(10)
        for handle in handles:
            handle.cancel()

    def run(number: int) -> None:
        ran[number] += 1

    cancellers = [threading.Thread(target=cancel_all) for _ in range(2)]
    for canceller in cancellers:
        canceller.start()
    handles.extend(loop.call_soon(run, number) for number in range(rounds))
    handles.extend(loop.call_later(0.001, run, number) for number in range(0, rounds, 3))
    loop.call_later(0.05, loop.stop)
    made.set()
    loop.run_forever()
    for canceller in cancellers:
        canceller.join(10)
    assert all(count <= 2 for count in ran)
    handles.clear()


@needs_no_gil
@pytest.mark.netpoll_only
def test_call_soon_from_another_thread_is_carried_over(loop: Any) -> None:
    """asyncio forbids it; with a GIL it works by luck. Here it must not corrupt the queue."""
    ran: list[tuple[int, str]] = []
    count, threads = 2000, 4

    def schedule(thread: int) -> None:
        for number in range(count):
            loop.call_soon(ran.append, (thread, f"soon {number}"))
            loop.call_later(0, ran.append, (thread, f"later {number}"))

    async def main() -> None:
        workers = [threading.Thread(target=schedule, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        await until(lambda: len(ran) == 2 * count * threads)
        for worker in workers:
            worker.join(10)

    loop.run_until_complete(main())
    for thread in range(threads):
        soon = [text for owner, text in ran if owner == thread and text.startswith("soon")]
        assert soon == [f"soon {number}" for number in range(count)]


@needs_no_gil
@pytest.mark.netpoll_only
def test_a_transport_refuses_another_thread(loop: Any) -> None:
    async def main() -> None:
        left, right = socket_pair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=right)
        for call in (transport.close, transport.abort, lambda: transport.write(b"x")):
            with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
                await loop.run_in_executor(None, call)
        transport.close()
        left.close()

    loop.run_until_complete(main())
