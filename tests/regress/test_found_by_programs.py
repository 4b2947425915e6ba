"""Defects that real programs and other libraries' tests found."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from ..conftest import LoopFactory

pytestmark = pytest.mark.control


def serve(loop: Any, listening: socket.socket, name: bytes, ready: threading.Event) -> None:
    """Answers every connection with `name`, until loop.stop()."""

    class Named(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(name)
            transport.close()

    server = loop.run_until_complete(loop.create_server(Named, sock=listening))
    loop.call_soon(ready.set)
    loop.run_forever()
    server.close()
    loop.run_until_complete(server.wait_closed())


def test_workers_share_a_listening_socket(loop_factory: LoopFactory) -> None:
    """Who has just accepted stands at the end of the queue: neither of two gets everything."""
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
        answers = []
        for _ in range(400):
            with socket.create_connection(listening.getsockname()) as client:
                answers.append(client.recv(1))
        for loop, thread in workers:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
    assert min(answers.count(b"A"), answers.count(b"B")) >= 20, answers
