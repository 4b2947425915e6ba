"""Servers for the tests, and the proof that nothing of them is left behind."""

import contextlib
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import netpoll
from tests.conftest import open_fds
from tests.support import SLOWNESS

ZERO = ("connections", "sessions", "flows", "ops_live")


class Serving:
    """Starts servers for one test: `serving(handler, workers=2)`; connects to the newest one."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.servers: list[netpoll.Server] = []
        self.clients: list[socket.socket] = []
        self.errors: list[dict[str, Any]] = []

    def __call__(self, handler: Callable[..., Any], **options: Any) -> netpoll.Server:
        if not {"unix", "sockets"}.intersection(options):
            options = {"host": "127.0.0.1", "port": 0} | options
        server = self.new_server(handler, **options)
        new_loop = server._new_loop

        def listened() -> Any:
            loop = new_loop()
            loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
            return loop

        server._new_loop = listened
        self.servers.append(server)
        return server.start()

    def new_server(self, handler: Callable[..., Any], **options: Any) -> netpoll.Server:
        return netpoll.Server(handler, backend=self.backend, **options)

    def connect(self, timeout_s: float = 20.0) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.servers[-1].port))
        client.settimeout(timeout_s * SLOWNESS)
        self.clients.append(client)
        return client

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for server in self.servers:
            with contextlib.suppress(RuntimeError):
                server.close(2.0 * SLOWNESS)


def read_exactly(client: socket.socket, size_bytes: int) -> bytes:
    """size_bytes from a blocking socket; fewer when the stream ends."""
    parts = []
    while size_bytes > 0 and (part := client.recv(min(size_bytes, 1 << 20))):
        parts.append(part)
        size_bytes -= len(part)
    return b"".join(parts)


def wait_for(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Looks every few milliseconds; fails when it does not come true."""
    deadline_s = time.monotonic() + timeout_s * SLOWNESS
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.002)


def wait_until_still(value: Callable[[], int]) -> int:
    """Until it has not changed for a tenth of a second, in fifty looks: what it is then."""
    seen = [value()]

    def is_still() -> bool:
        seen.append(value())
        return len(seen) > 50 and len(set(seen[-50:])) == 1

    wait_for(is_still, 20.0)
    return seen[-1]


@pytest.fixture
def serving(backend: str) -> Iterator[Serving]:
    yield from check_all_is_back(Serving(backend))


def check_all_is_back(factory: Serving) -> Iterator[Serving]:
    """What a fixture does around a test: nothing that the servers used is left."""
    gc.collect()
    fds_before = open_fds()
    threads_before = set(threading.enumerate())
    yield factory
    factory.close()
    gc.collect()
    problems = [
        f"{name} == {stats[name]}"
        for stats in (server.stats() for server in factory.servers)
        for name in ZERO
        if stats.get(name)
    ]
    wait_for(lambda: set(open_fds()) <= set(fds_before) | {max(open_fds(), default=0)})
    problems += [f"thread left: {t}" for t in set(threading.enumerate()) - threads_before]
    problems += [f"exception handler was told: {context}" for context in factory.errors]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)
