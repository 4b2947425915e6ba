"""What debuggers and monitors see of a netpoll loop: tasks, call graphs, debug mode."""

import asyncio
import io
import logging
import socket
import sys
import time
from typing import Any

import pytest

from ..support import unix_pair

pytestmark = pytest.mark.control


async def test_tasks_are_seen(loop: Any) -> None:
    """Also those that wait in a native awaitable."""
    left, right = unix_pair()
    waiting = asyncio.ensure_future(loop.sock_recv(left, 10))
    await asyncio.sleep(0)
    me = asyncio.current_task()
    assert me is not None and me.get_loop() is loop
    assert {me, waiting} <= asyncio.all_tasks() == asyncio.all_tasks(loop)
    assert "sock_recv" in repr(waiting) or "RecvOp" in repr(waiting)
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
