"""The steps of orders.py that make transports and servers, and talk to them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio import selector_events
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .order_making import Step

if TYPE_CHECKING:
    from .orders import Run


# When each is accepted, among what else is ready, leaves no line: few enough to try all orders.
CLIENTS_MAX_COUNT = 4


class EarlySocket(socket.socket):
    """A socket whose recv returns what was there when the selector looked, as a kernel that
    receives by itself does. What is not asked for then is there the next time; who closes has
    received it, so the peer hears of no reset."""

    looked: int | OSError | None = None

    def look(self) -> None:
        if isinstance(self.looked, OSError):
            return
        try:
            self.looked = len(super().recv(1 << 18, socket.MSG_PEEK))
        except OSError as exc:
            self.looked = exc

    def recv(self, size: int, flags: int = 0) -> bytes:
        looked, self.looked = self.looked, None
        if isinstance(looked, OSError):
            raise looked
        return super().recv(min(looked or size, size), flags)

    def close(self) -> None:
        if self.looked and isinstance(self.looked, int) and self.fileno() >= 0:
            with contextlib.suppress(OSError):
                super().recv(self.looked)
        super().close()


class EarlyListener(socket.socket):
    """Accepts EarlySockets."""

    early: dict[int, EarlySocket]

    def accept(self) -> tuple[EarlySocket, Any]:
        fd, address = self._accept()  # type: ignore[attr-defined]
        sock = EarlySocket(fileno=fd)
        self.early[fd] = sock
        return sock, address


class Traced(asyncio.Protocol):
    """A protocol that notes its calls, and runs the steps it was given for each the first time."""

    def __init__(self, run: Run, label: int, script: dict[str, list[Step]]) -> None:
        self.run, self.label, self.script = run, label, dict(script)
        self._note("factory")

    def _note(self, event: str, detail: str = "") -> None:
        self.run.note(f"{self.label} {event}{detail}")
        self.run.steps(self.script.pop(event, ()))

    def transports(self) -> dict[int, Any]:
        return self.run.transports

    def connection_made(self, transport: Any) -> None:
        self.transports()[self.label] = transport
        self._note("made")

    def data_received(self, data: bytes) -> None:
        self._note("data", f" {len(data)}")

    def eof_received(self) -> bool:
        keep_open = "keep" in self.script
        self._note("eof")
        return keep_open

    def connection_lost(self, exc: BaseException | None) -> None:
        self._note("lost", f" {type(exc).__name__}" if exc else "")

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")


class TracedDatagrams(Traced):
    """The same for an endpoint of datagrams."""

    def transports(self) -> dict[int, Any]:
        return self.run.endpoints

    def connection_lost(self, exc: BaseException | None) -> None:
        del self.run.endpoints[self.label]  # asyncio's cannot be used any more
        super().connection_lost(exc)

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._note("got", f" {len(data)}")

    def error_received(self, exc: Exception) -> None:
        self._note("error", f" {type(exc).__name__}")


DatagramTransport: Any = selector_events._SelectorDatagramTransport  # type: ignore[attr-defined]


class BurstingTransport(DatagramTransport):  # type: ignore[misc]
    """asyncio's, which receives as many datagrams in one turn as its run says."""

    def _read_ready(self) -> None:
        protocol: Any = self.get_protocol()
        for _ in range(protocol.run.burst_of(protocol.label)):
            if self.is_reading():
                super()._read_ready()


class BurstingLoop(asyncio.SelectorEventLoop):
    def _make_datagram_transport(self, *args: Any, **kwargs: Any) -> BurstingTransport:
        return BurstingTransport(self, *args, **kwargs)


class Peers:
    """Half of Run. Clients are plain sockets; an accepted connection's label is its server's and a
    number, 100 apart."""

    loop: Any
    early: dict[int, EarlySocket] | None
    transports: dict[int, Any]
    endpoints: dict[int, Any]
    tasks: dict[int, asyncio.Task[Any]]
    connected: set[int]
    note: Callable[[str], None]
    end: Callable[[int], socket.socket]

    def __init__(self) -> None:
        self.servers: dict[int, Any] = {}
        self.addresses: dict[int, Any] = {}
        self.clients: list[socket.socket] = []
        self.accepted_counts: dict[int, int] = {}

    def close_peers(self) -> None:
        for server in self.servers.values():
            server.close()
        for client in self.clients:
            client.close()

    # -- servers and their clients ----------------------------------------------------------------

    def do_serve(self, label: int, script: dict[str, list[Step]]) -> None:
        if label in self.addresses:
            return  # a handler that is called in each turn serves once
        kind = socket.socket if self.early is None else EarlyListener
        listening = kind(socket.AF_UNIX)
        if self.early is not None:
            listening.early = self.early  # type: ignore[union-attr]
        listening.bind("")
        listening.listen()  # who connects before the server serves waits
        self.addresses[label] = listening.getsockname()
        self.accepted_counts[label] = 0
        self.tasks[label] = self.loop.create_task(self._serve(label, script, listening))

    async def _serve(
        self, label: int, script: dict[str, list[Step]], listening: socket.socket
    ) -> None:
        def factory() -> Traced:
            self.accepted_counts[label] += 1
            number = label * 100 + self.accepted_counts[label]
            return Traced(self, number, script)  # type: ignore[arg-type]

        self.servers[label] = await self.loop.create_unix_server(factory, sock=listening)
        self.note(f"{label} serves")

    def do_client(self, number: int) -> None:
        if self.addresses and len(self.clients) < CLIENTS_MAX_COUNT:
            labels = sorted(self.addresses)
            client = socket.socket(socket.AF_UNIX)
            self.clients.append(client)
            client.setblocking(False)
            client.connect(self.addresses[labels[number % len(labels)]])

    def _client(self, number: int) -> socket.socket | None:
        return self.clients[number % len(self.clients)] if self.clients else None

    def do_client_send(self, number: int) -> None:
        if client := self._client(number):
            client.send(b"cc")

    def do_client_shut(self, number: int) -> None:
        if client := self._client(number):
            client.shutdown(socket.SHUT_WR)

    def do_client_close(self, number: int) -> None:
        if client := self._client(number):
            client.close()

    def do_unserve(self, number: int) -> None:
        if self.servers:
            self.servers[sorted(self.servers)[number % len(self.servers)]].close()

    # -- transports -----------------------------------------------------------------------------

    def do_connect(self, label: int, end: int, script: dict[str, list[Step]]) -> None:
        """A transport over an end; the other one is free for send, recv and shut."""
        if end not in self.connected:
            self.connected.add(end)
            self.tasks[label] = self.loop.create_task(self._connect(label, end, script))

    async def _connect(self, label: int, end: int, script: dict[str, list[Step]]) -> None:
        await self.loop.create_connection(lambda: Traced(self, label, script), sock=self.end(end))
        self.note(f"{label} connected")

    def transport(self, number: int) -> Any:
        labels = sorted(self.transports)
        return self.transports[labels[number % len(labels)]] if labels else None

    def do_write(self, number: int) -> None:
        if transport := self.transport(number):
            transport.write(b"zzz")

    def do_write_much(self, number: int) -> None:
        """More than the socket has room for, and than the high watermark."""
        if transport := self.transport(number):
            transport.write(bytes(1 << 20))

    def do_set_protocol(self, label: int, number: int, script: dict[str, list[Step]]) -> None:
        if transport := self.transport(number):
            self.transports[label] = transport
            transport.set_protocol(Traced(self, label, script))  # type: ignore[arg-type]

    def catch_up(self) -> None:
        """Before an end is read: netpoll sends at the end of the turn, or before who looks."""
        for transport in (*self.transports.values(), *self.endpoints.values()):
            transport.get_write_buffer_size()

    def do_write_eof(self, number: int) -> None:
        if transport := self.transport(number):
            transport.write_eof()

    def do_close(self, number: int) -> None:
        if transport := self.transport(number):
            transport.close()

    def do_abort(self, number: int) -> None:
        if transport := self.transport(number):
            transport.abort()

    def do_pause_reading(self, number: int) -> None:
        if transport := self.transport(number):
            transport.pause_reading()

    def do_resume_reading(self, number: int) -> None:
        if transport := self.transport(number):
            transport.resume_reading()

    def do_closing(self, number: int) -> None:
        if transport := self.transport(number):
            self.note(f"closing {transport.is_closing()}")

    # -- datagrams ------------------------------------------------------------------------------

    def do_endpoint(self, label: int, end: int, script: dict[str, list[Step]]) -> None:
        """A datagram transport over an end; the other one is free for send and recv."""
        if end not in self.connected:
            self.connected.add(end)
            self.tasks[label] = self.loop.create_task(self._endpoint(label, end, script))

    async def _endpoint(self, label: int, end: int, script: dict[str, list[Step]]) -> None:
        await self.loop.create_datagram_endpoint(
            lambda: TracedDatagrams(self, label, script),  # type: ignore[arg-type]
            sock=self.end(end),
        )
        self.note(f"{label} connected")

    def endpoint(self, number: int) -> Any:
        labels = sorted(self.endpoints)
        return self.endpoints[labels[number % len(labels)]] if labels else None

    # Not once it is closed: asyncio's keeps what will never leave, and its number.

    def do_sendto(self, number: int) -> None:
        endpoint = self.endpoint(number)
        if endpoint and not endpoint.is_closing():
            endpoint.sendto(b"dddd")

    def do_sendto_much(self, number: int) -> None:
        """More than the socket has room for, and than the high watermark."""
        endpoint = self.endpoint(number)
        if endpoint and not endpoint.is_closing():
            for _ in range(80):
                endpoint.sendto(bytes(4000))

    def do_endpoint_close(self, number: int) -> None:
        if endpoint := self.endpoint(number):
            endpoint.close()

    def do_endpoint_abort(self, number: int) -> None:
        if endpoint := self.endpoint(number):
            endpoint.abort()

    def do_endpoint_pause(self, number: int) -> None:
        if endpoint := self.endpoint(number):
            endpoint.pause_reading()

    def do_endpoint_resume(self, number: int) -> None:
        if endpoint := self.endpoint(number):
            endpoint.resume_reading()

    def do_close_end(self, end: int) -> None:
        """The far side of an endpoint is gone: sending fails."""
        self.end(end).close()
