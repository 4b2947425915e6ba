"""Defects that real programs and other libraries' tests found."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ..conftest import LoopFactory

pytestmark = pytest.mark.control


@contextlib.contextmanager
def two_workers(
    loop_factory: LoopFactory, answering: Callable[[], None] = lambda: None
) -> Iterator[Callable[[], bytes]]:
    """Two loops on one listening socket: gives a call that connects and returns who answered.

    `answering` runs in the worker's thread before it answers.
    """

    def serve(loop: Any, listening: socket.socket, name: bytes, ready: threading.Event) -> None:
        class Named(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                answering()
                transport.write(name)
                transport.close()

        server = loop.run_until_complete(loop.create_server(Named, sock=listening))
        loop.call_soon(ready.set)
        loop.run_forever()
        server.close()
        loop.run_until_complete(server.wait_closed())

    def ask() -> bytes:
        with socket.create_connection(listening.getsockname(), timeout=30) as client:
            return client.recv(1)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        workers = []
        for name in (b"A", b"B"):
            loop, ready = loop_factory(), threading.Event()
            thread = threading.Thread(target=serve, args=(loop, listening.dup(), name, ready))
            thread.start()
            assert ready.wait(30)
            workers.append((loop, thread))
        try:
            yield ask
        finally:
            for loop, thread in workers:
                loop.call_soon_threadsafe(loop.stop)
                thread.join()


@pytest.mark.netpoll_only
def test_workers_share_a_listening_socket(loop_factory: LoopFactory, backend: str) -> None:
    """Who has just accepted stands at the end of the queue: neither of two gets everything."""
    if backend == "epoll":
        pytest.skip("epoll wakes both, and who comes first accepts: nobody promises turns")
    with two_workers(loop_factory) as ask:
        answers = [ask() for _ in range(400)]
    assert min(answers.count(b"A"), answers.count(b"B")) >= 20, answers


def test_a_busy_worker_leaves_connections_to_the_other(loop_factory: LoopFactory) -> None:
    first, free = threading.Lock(), threading.Event()

    def answering() -> None:
        if first.acquire(blocking=False):
            free.wait(60)

    with two_workers(loop_factory, answering) as ask, ThreadPoolExecutor(1) as pool:
        held = pool.submit(ask)
        while not first.locked():
            time.sleep(0.001)
        answers = {ask() for _ in range(20)}
        free.set()
        assert {*answers, held.result(30)} == {b"A", b"B"}
        assert len(answers) == 1
