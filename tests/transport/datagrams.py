"""What the tests of datagram endpoints share: a protocol that records, endpoints that find each
other."""

import asyncio
from collections.abc import Callable
from typing import Any

# What a datagram transport's protocol is told, in order: ("made",), ("got", data, addr), ...
Event = tuple[Any, ...]


class Recorder(asyncio.DatagramProtocol):
    """Keeps everything; `on_datagram` is called for each datagram."""

    def __init__(self, on_datagram: Callable[["Recorder", bytes, Any], None] | None = None) -> None:
        self.events: list[Event] = []
        self.transport: Any = None
        self.on_datagram = on_datagram
        self.lost: asyncio.Future[BaseException | None]
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append(("made",))
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.events.append(("got", data, addr))
        if self.on_datagram is not None:
            self.on_datagram(self, data, addr)

    def error_received(self, exc: Exception) -> None:
        self.events.append(("error", exc))

    def pause_writing(self) -> None:
        self.events.append(("pause",))

    def resume_writing(self) -> None:
        self.events.append(("resume",))

    def connection_lost(self, exc: BaseException | None) -> None:
        self.events.append(("lost", exc))
        self.lost.set_result(exc)

    @property
    def data(self) -> list[bytes]:
        return [event[1] for event in self.events if event[0] == "got"]

    @property
    def errors(self) -> list[Exception]:
        return [event[1] for event in self.events if event[0] == "error"]

    def count(self, name: str) -> int:
        return sum(event[0] == name for event in self.events)


def echo(protocol: Recorder, data: bytes, addr: Any) -> None:
    protocol.transport.sendto(data, addr)


async def bound(loop: Any, host: str = "127.0.0.1", **options: Any) -> tuple[Any, Recorder]:
    """An endpoint that waits for whatever comes."""
    on_datagram = options.pop("on_datagram", None)
    return await loop.create_datagram_endpoint(
        lambda: Recorder(on_datagram), local_addr=(host, 0), **options
    )


async def connected(loop: Any, to: Any) -> tuple[Any, Recorder]:
    """An endpoint that is connected to the transport `to`."""
    return await loop.create_datagram_endpoint(
        Recorder, remote_addr=to.get_extra_info("sockname")[:2]
    )


async def closed(*transports: Any) -> None:
    """Closes transports and waits for their connection_lost."""
    for transport in transports:
        protocol = transport.get_protocol()
        transport.close()
        if protocol is not None:
            await asyncio.wait([protocol.lost])
