"""What debuggers and monitors see of a netpoll loop: tasks, call graphs, debug mode."""

import asyncio
import io
import logging
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from ..support import child_says, talking_child, unix_pair

pytestmark = pytest.mark.control


@pytest.mark.parametrize(
    "call", ["sock_recv", "sock_recvfrom", "sock_recv_into", "sock_sendall", "sock_accept"]
)
async def test_the_task_of_a_socket_call_says_which(loop: Any, call: str) -> None:
    left, right = unix_pair()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    arguments = {"sock_recv_into": bytearray(4), "sock_sendall": bytes(1 << 22)}.get(call, 4)
    if call == "sock_accept":
        made = loop.sock_accept(listener)
    else:
        made = getattr(loop, call)(left, arguments)
    waiting = loop.create_task(made)
    await asyncio.sleep(0)
    assert f"Loop.{call}()" in repr(waiting)
    assert made.__name__ == call and made.__qualname__.endswith(f"Loop.{call}")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for sock in (left, right, listener):
        sock.close()


async def test_the_task_of_a_stream_says_what_it_reads(loop: Any) -> None:
    left, right = unix_pair()
    reader, writer = await asyncio.open_connection(sock=left)
    for made, name in (
        (reader.read(1), "read"),
        (reader.readline(), "readline"),
        (reader.readuntil(b"x"), "readuntil"),
        (reader.readexactly(1), "readexactly"),
    ):
        waiting = loop.create_task(made)
        await asyncio.sleep(0)
        assert f"coro=<StreamReader.{name}()" in repr(waiting)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    writer.close()
    right.close()


async def test_tasks_are_seen(loop: Any) -> None:
    """Also those that wait in a native awaitable."""
    left, right = unix_pair()
    waiting = asyncio.ensure_future(loop.sock_recv(left, 10))
    await asyncio.sleep(0)
    me = asyncio.current_task()
    assert me is not None and me.get_loop() is loop
    assert {me, waiting} <= asyncio.all_tasks() == asyncio.all_tasks(loop)
    assert "sock_recv()" in repr(waiting)
    right.send(b"x")
    assert await waiting == b"x"
    await asyncio.sleep(0)
    assert waiting not in asyncio.all_tasks()
    left.close()
    right.close()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="call graphs are new in 3.14")
async def test_call_graph(loop: Any) -> None:
    async def inner(left: socket.socket) -> bytes:
        return await loop.sock_recv(left, 10)

    async def outer(left: socket.socket) -> bytes:
        return await inner(left)

    left, right = unix_pair()
    task = asyncio.ensure_future(outer(left))
    await asyncio.sleep(0)
    text = io.StringIO()
    asyncio.print_call_graph(task, file=text)  # type: ignore[attr-defined]
    assert "outer" in text.getvalue() and "inner" in text.getvalue()
    right.send(b"x")
    assert await task == b"x"
    left.close()
    right.close()


async def test_debug_mode_at_run_time(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Slow callbacks are reported while it is on, and only then."""
    caplog.set_level(logging.WARNING, "asyncio")
    loop.slow_callback_duration = 0.02

    async def slow() -> None:
        loop.call_soon(time.sleep, 0.03)
        await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)

    await slow()
    assert not caplog.records
    loop.set_debug(True)
    await asyncio.sleep(0)
    await slow()
    assert any("took 0.0" in record.getMessage() for record in caplog.records)
    loop.set_debug(False)
    await asyncio.sleep(0)
    caplog.clear()
    await slow()
    assert not [record for record in caplog.records if "sleep" in record.getMessage()]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio's tools are new in 3.14")
@pytest.mark.parametrize("tool", ["ps", "pstree"])
def test_another_process_sees_the_tasks(backend: str, tool: str) -> None:
    """`python -m asyncio ps PID` and `pstree PID` read them out of the process's memory."""

    def body() -> None:
        import asyncio
        import socket

        async def leaf(sock: socket.socket) -> None:
            print("ready", flush=True)
            await asyncio.get_running_loop().sock_recv(sock, 10)

        async def main() -> None:
            left, right = socket.socketpair()
            left.setblocking(False)
            async with asyncio.TaskGroup() as group:
                group.create_task(leaf(left), name="the-leaf")
            right.close()

        loop = new_loop()  # type: ignore[name-defined]
        loop.run_until_complete(main())

    with talking_child(backend, body) as child:
        child_says(child, "ready")
        command = [sys.executable, "-m", "asyncio", tool, str(child.pid)]
        for _ in range(5):  # the child may be on its way into its wait
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            if done.returncode == 0:
                break
    if "ermission" in done.stderr or "not supported" in done.stderr:
        pytest.skip(f"this process may not look into another: {done.stderr.splitlines()[-1]}")
    assert "the-leaf" in done.stdout and "leaf" in done.stdout, done.stdout + done.stderr
    assert "main" in done.stdout
