"""What a soak does, one thing at a time: each work compares every byte, and leaves nothing.

A work is a coroutine function of the soak and of a source of randomness. It may be cancelled at any
of its awaits. KILLED are those whose other end is killed now and then: they may end with an error
of the connection if that has happened meanwhile.
"""

import asyncio
import contextlib
import hashlib
import random
import ssl
from typing import TYPE_CHECKING, Any

import netpoll

from ..http.soak_server import pattern
from ..http.test_soak import answer, get
from ..tls import HOST
from ..transport import datagrams

if TYPE_CHECKING:
    from .__main__ import Soak

BROKEN = (OSError, EOFError, ssl.SSLError)


@contextlib.asynccontextmanager
async def connection(port: int, **options: Any) -> Any:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort() if random.random() < 0.5 else writer.close()
        with contextlib.suppress(*BROKEN):
            await writer.wait_closed()


async def echoed(source: random.Random, port: int, **options: Any) -> None:
    """Sends in pieces while the echo comes back."""
    data = source.randbytes(source.randint(1, 300_000))
    async with connection(port, **options) as (reader, writer):

        async def send() -> None:
            at = 0
            while at < len(data):
                size = source.randint(1, 60_000)
                writer.write(data[at : at + size])
                at += size
                await writer.drain()

        sending = asyncio.ensure_future(send())
        try:
            assert await reader.readexactly(len(data)) == data, "the echo is another one"
        finally:
            sending.cancel()
            await asyncio.wait([sending])


async def tcp(soak: "Soak", source: random.Random) -> None:
    await echoed(source, soak.peer.plain)


async def tls(soak: "Soak", source: random.Random) -> None:
    await echoed(source, soak.peer.tls, ssl=soak.tls_context, server_hostname=HOST)


async def own_server(soak: "Soak", source: random.Random) -> None:
    """A session of the server in this loop, which copies, forwards and keeps leases."""
    await echoed(source, soak.server.port)


async def udp(soak: "Soak", source: random.Random) -> None:
    transport, protocol = await datagrams.connected(soak.loop, soak.udp)
    try:
        sent = [source.randbytes(source.randint(1, 9000)) for _ in range(source.randint(1, 12))]
        for data in sent:
            transport.sendto(data)
        async with asyncio.timeout(20):
            while len(protocol.data) < len(sent):
                await asyncio.sleep(0.002)
        assert sorted(protocol.data) == sorted(sent), "other datagrams came back"
    finally:
        await datagrams.closed(transport)


async def files(soak: "Soak", source: random.Random) -> None:
    path = soak.directory / f"work-{source.getrandbits(64):x}"
    data = source.randbytes(source.randint(1, 200_000))
    try:
        async with netpoll.open(path, "wb+") as file:
            for at in range(0, len(data), 50_000):
                await file.write(data[at : at + 50_000])
            await file.seek(0)
            assert await file.read() == data, "the file has other bytes"
            at = source.randrange(len(data))
            await file.seek(at)
            assert await file.read(100) == data[at : at + 100]
    finally:
        path.unlink(missing_ok=True)


async def children(soak: "Soak", source: random.Random) -> None:
    data = source.randbytes(source.randint(1, 100_000))
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
    try:
        if source.random() < 0.3:
            assert child.stdin is not None
            child.stdin.write(data)
            await asyncio.sleep(source.random() / 50)
            child.kill()
            assert await child.wait() == -9
        else:
            out, _ = await child.communicate(data)
            assert (out, child.returncode) == (data, 0), "cat says something else"
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        child._transport.close()  # type: ignore[attr-defined]  # its pipes, when it was killed


async def scheduled(soak: "Soak", source: random.Random) -> None:
    """Functions in the scheduler's threads, some of them refused before they begin."""
    parts = [source.randbytes(source.randint(1, 20_000)) for _ in range(10)]
    calls = [
        soak.loop.run_in_executor(soak.executor, lambda part=part: hashlib.sha256(part).digest())
        for part in parts
    ]
    try:
        for part, call in zip(parts, calls, strict=True):
            assert await call == hashlib.sha256(part).digest(), "another part's digest"
    finally:
        for call in calls:
            call.cancel()


async def timers(soak: "Soak", source: random.Random) -> None:
    async def late(delay_s: float) -> float:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(soak.loop.create_future(), delay_s)
        return delay_s

    delays = [source.random() / 20 for _ in range(100)]
    assert await asyncio.gather(*map(late, delays)) == delays


async def http(soak: "Soak", source: random.Random) -> None:
    """A visit: see test_soak.py of tests/http."""
    visitor = soak.visitors[source.randrange(len(soak.visitors))]
    await visitor.visit(source.choice(list(soak.served.ports)))


async def fleet(soak: "Soak", source: random.Random) -> None:
    async with connection(soak.fleet.port) as (reader, writer):
        for _ in range(source.randint(1, 5)):
            size, seed = source.randint(0, 50_000), source.randint(0, 250)
            writer.write(get(f"/{source.choice(['whole', 'bytes'])}/{size}/{seed}"))
            assert await answer(reader) == (200, pattern(size, seed)), "another answer"


KILLED = {tcp, tls, fleet}
WORKS = [tcp, tls, own_server, udp, files, children, scheduled, timers, http, fleet]
