"""A pytest plugin for uvicorn's tests of its protocols, with netpoll.http.Server in their place.

Two things are replaced in the modules of the tests, and the tests are as they are: `run_server`,
which serves a uvicorn.Config on a port, and `get_connected_protocol`, which gives a protocol
without a socket. The one here is a client of a real server, with the protocol's methods:
`data_received` sends, `transport.buffer` is what has come, `loop.run_one()` waits until nothing
more comes. On asyncio's loop nothing is replaced: uvicorn is the control.
"""

import concurrent.futures
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

QUIET_S = 0.15  # so long without a byte: that was all
HEAD_MAX_BYTES = 1 << 20  # httptools has no limit


def _server(config: Any, **options: Any) -> Any:
    from netpoll import http

    config.load()
    limits = http.HttpLimits(
        keep_alive_timeout_s=config.timeout_keep_alive,
        head_max_bytes=HEAD_MAX_BYTES,
        websocket_max_bytes=config.ws_max_size,
        websocket_ping_interval_s=config.ws_ping_interval or None,
        websocket_ping_timeout_s=config.ws_ping_timeout or None,
    )
    return http.Server(
        config.loaded_app,
        **options,
        interface="asgi",
        limits=limits,
        lifespan=config.lifespan,
        root_path=config.root_path,
        server_header="uvicorn" if config.server_header else "",
        headers=config.headers,
        websocket_deflate=config.ws_per_message_deflate,
        ssl=config.ssl,
    )


@contextlib.asynccontextmanager
async def run_server(config: Any, sockets: Any = None) -> AsyncIterator[Any]:
    where = {"sockets": sockets} if sockets else {"host": config.host, "port": config.port}
    async with _server(config, **where) as server:
        server.shutdown = server.aclose  # uvicorn's name for it
        yield server


class Transport:
    """What the client has received."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._buffer, self._is_over = sock, b"", False

    def _take(self) -> None:
        while not self._is_over:
            try:
                data = self._sock.recv(1 << 20, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:  # reset, or closed by the test
                data = b""
            self._buffer += data
            self._is_over = not data

    @property
    def buffer(self) -> bytes:
        self._take()
        return self._buffer

    def settle(self) -> None:
        """Waits until nothing more comes."""
        size = -1
        while len(self.buffer) != size and not self._is_over:
            size = len(self.buffer)
            time.sleep(QUIET_S)

    def clear_buffer(self) -> None:
        """The first answer is forgotten: the next one is looked at by itself."""
        head, _, rest = self.buffer.partition(b"\r\n\r\n")
        at = rest.find(b"HTTP/1.1 ")
        self._buffer = rest[at:] if head and at >= 0 else b""

    def is_closing(self) -> bool:
        self._take()
        return self._is_over


class Loop:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def run_one(self) -> None:
        self._transport.settle()


class Protocol:
    """A connection to a server of its own, which runs in a thread."""

    def __init__(self, config: Any) -> None:
        with concurrent.futures.ThreadPoolExecutor(1) as outside:  # of the test's loop
            server = _server(config, host="127.0.0.1", port=0)
            self._server = outside.submit(server.start).result()
        self._sock = socket.create_connection(("127.0.0.1", server.port))
        self.transport = Transport(self._sock)
        self.loop = Loop(self.transport)

    def data_received(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._sock.sendall(data)
        self.transport.settle()

    def eof_received(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    def connection_lost(self, _error: Exception | None) -> None:
        self.close()

    def shutdown(self) -> None:
        self._stop()

    def close(self) -> None:
        self._sock.close()
        self._stop()

    def _stop(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(1) as outside:
            outside.submit(self._server.close, 1.0).result()


_open: list[Protocol] = []


def get_connected_protocol(
    app: Any, _protocol_class: Any, lifespan: Any = None, **options: Any
) -> Protocol:
    from uvicorn import Config

    _open.append(Protocol(Config(app=app, **{"lifespan": "off"} | options)))
    return _open[-1]


@pytest.fixture(autouse=True)
def _close_protocols() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


def pytest_collection_finish(session: pytest.Session) -> None:
    if os.environ["NETPOLL_SUITES_LOOP"] == "asyncio":
        return
    for module in {item.module for item in session.items if isinstance(item, pytest.Function)}:
        for replacement in (run_server, get_connected_protocol):
            if hasattr(module, replacement.__name__):
                setattr(module, replacement.__name__, replacement)
