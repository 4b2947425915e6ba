"""Shutdown that ends, whatever is pending. Bug class 7."""

import asyncio
import socket
import time
from typing import Any

import pytest

from ..support import SLOWNESS, Echo, Recorder, child_output, listener

pytestmark = pytest.mark.control


def black_hole() -> tuple[socket.socket, list[socket.socket]]:
    """A listener whose backlog is full: connects to it are never answered."""
    hole = listener(0)
    crowd = []
    for _ in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(hole.getsockname())
        crowd.append(sock)
    time.sleep(0.01)
    return hole, crowd


def test_close_with_a_connect_that_never_ends(loop: Any) -> None:
    """Cancelled or not: the close takes no longer than a moment."""
    hole, crowd = black_hole()
    sock = socket.socket()
    sock.setblocking(False)

    async def main() -> list[Any]:
        tasks = [
            loop.create_task(loop.create_connection(Recorder, *hole.getsockname())),
            loop.create_task(loop.sock_connect(sock, hole.getsockname())),
        ]
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in tasks)
        return tasks

    tasks = loop.run_until_complete(main())
    for task in tasks:
        task.cancel()
    start_s = time.monotonic()
    loop.run_until_complete(asyncio.wait(tasks))
    loop.close()
    assert time.monotonic() - start_s < 1.0 * SLOWNESS
    for one in (sock, hole, *crowd):
        one.close()


def _close_with_everything_pending() -> None:
    import asyncio
    import gc
    import os
    import socket
    import time
    import warnings

    warnings.simplefilter("ignore")
    fds_before = len(os.listdir("/proc/self/fd"))
    hole = socket.socket()
    hole.bind(("127.0.0.1", 0))
    hole.listen(0)
    sockets = [hole]
    for _ in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(hole.getsockname())
        sockets.append(sock)
    time.sleep(0.01)
    loop = new_loop()  # type: ignore[name-defined]
    loop.set_exception_handler(lambda _loop, _context: None)
    left, right = socket.socketpair()
    right.setblocking(False)
    left.setblocking(False)
    pending = socket.socket()
    pending.setblocking(False)
    sockets += [left, right, pending]

    class Blocked(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            transport.pause_reading()

    async def main() -> None:
        server = await loop.create_server(Blocked, "127.0.0.1", 0)
        transport, _ = await loop.create_connection(
            asyncio.Protocol, *server.sockets[0].getsockname()
        )
        transport.write(bytes(16 << 20))
        for call in (
            loop.sock_recv(right, 10),
            loop.sock_connect(pending, hole.getsockname()),
            loop.create_connection(asyncio.Protocol, *hole.getsockname()),
            asyncio.sleep(1000),
        ):
            tasks.append(asyncio.ensure_future(call))
        await asyncio.sleep(0.02)
        server.close()

    tasks: list[asyncio.Task[object]] = []
    loop.run_until_complete(main())
    start_s = time.monotonic()
    loop.close()  # nothing was cancelled, nothing was awaited
    took_s = time.monotonic() - start_s
    assert took_s < 5, took_s
    for sock in sockets:
        sock.close()
    if hasattr(loop, "stats"):
        stats = loop.stats()
        assert stats["ops_live"] == 0, stats
        assert stats["bufs_free"] == stats["bufs_total"], stats
        assert stats["transports_count"] == 0, stats
    del tasks, main, loop
    gc.collect()
    fds_after = len(os.listdir("/proc/self/fd"))
    print("fds left", fds_after - fds_before)


def test_close_with_everything_pending(backend: str) -> None:
    """Nobody cancelled anything: close() and the garbage collector get every fd back."""
    out = child_output(backend, _close_with_everything_pending)
    if backend != "asyncio":  # asyncio leaves the sockets of its transports to __del__
        assert out == "fds left 0\n"


def _close_with_peers_that_do_not_read(how: str) -> None:
    import asyncio
    import socket
    import time

    import netpoll

    async def session(connection: netpoll.Connection) -> None:
        await connection.fill()
        connection.write(bytes(16 << 20))
        if how == "aborted":
            await asyncio.sleep(0.02)
            connection.abort()
        else:
            await connection.drain()

    async def main() -> None:
        server = netpoll.Server(session, "127.0.0.1", 0).start()
        for _ in range(4):
            client = socket.create_connection(("127.0.0.1", server.port))
            client.send(b"x")
            clients.append(client)
        await asyncio.sleep(0.2)

    clients: list[socket.socket] = []
    loop = new_loop()  # type: ignore[name-defined]
    loop.set_exception_handler(lambda _loop, _context: None)
    loop.run_until_complete(main())
    start_s = time.monotonic()
    loop.close()
    took_s = time.monotonic() - start_s
    stats = loop.stats()
    print(stats["ops_live"], stats["notifs_pending"], "at once" if took_s < 0.7 else took_s)


@pytest.mark.netpoll_only
@pytest.mark.parametrize("how", ["cut off", "aborted"])
def test_close_with_peers_that_do_not_read(backend: str, how: str) -> None:
    """The kernel holds memory of zero-copy sends until they read, or the connection is reset."""
    assert child_output(backend, _close_with_peers_that_do_not_read, how) == "0 0 at once\n"


def _interpreter_exits() -> None:
    import asyncio
    import socket

    loop = new_loop()  # type: ignore[name-defined]
    left, right = socket.socketpair()
    right.setblocking(False)

    async def main() -> None:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        globals()["kept"] = [
            server,
            loop,
            asyncio.ensure_future(loop.sock_recv(right, 10)),
            left,
        ]
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    print("leaving")


def test_the_interpreter_exits_over_an_open_loop(backend: str) -> None:
    """No crash at exit with a loop open and operations in flight."""
    assert child_output(backend, _interpreter_exits) == "leaving\n"


def _exit_in_the_middle() -> None:
    import asyncio
    import sys
    import threading

    loop = new_loop()  # type: ignore[name-defined]

    def run() -> None:
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result()
    print("leaving")
    sys.stdout.flush()


def test_exit_while_a_daemon_thread_runs_a_loop(backend: str) -> None:
    assert child_output(backend, _exit_in_the_middle) == "leaving\n"


def test_dropped_loops_are_collected(loop_factory: Any) -> None:
    """A loop that was never closed is freed with everything it had (fds are counted)."""
    import gc
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(10):
            loop = loop_factory()
            loop_factory.loops.clear()
            loop.run_until_complete(asyncio.sleep(0.0001))
            del loop
            gc.collect()


def test_run_then_close_many_servers(loop_factory: Any) -> None:
    for _ in range(30):
        loop = loop_factory()

        async def main(loop: Any = loop) -> None:
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            writer.close()
            await writer.wait_closed()
            server.close()
            await asyncio.sleep(0)

        loop.run_until_complete(main())
        loop.run_until_complete(asyncio.sleep(0.002))
        loop.close()
