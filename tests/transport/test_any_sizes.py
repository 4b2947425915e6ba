"""Random sizes through every kind of call: whatever the pieces, the stream is the same."""

import asyncio
from typing import Any

import pytest

from ..support import (
    EXAMPLES_FACTOR,
    BufferedRecorder,
    Recorder,
    digest,
    pair,
    pattern,
    socket_pair,
    stream_pair,
)
from .test_streams import finish

# Not available on free-threaded builds.
pytest.importorskip("hypothesis", reason="hypothesis does not install on this Python")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.control


@settings(max_examples=30 * EXAMPLES_FACTOR, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(st.integers(1, 200_000), min_size=1, max_size=8),
    takes=st.lists(st.integers(1, 150_000), min_size=1, max_size=8),
)
def test_any_sizes_of_socket_calls(loop: Any, sizes: list[int], takes: list[int]) -> None:
    """Bug class 18: random sizes sent, random sizes received, alternating recv and recv_into."""

    async def main() -> None:
        left, right = socket_pair()
        chunks = [pattern(size, seed) for seed, size in enumerate(sizes)]
        total = sum(sizes)

        async def send() -> None:
            for chunk in chunks:
                await loop.sock_sendall(left, chunk)

        sending = asyncio.ensure_future(send())
        got = bytearray()
        turn = 0
        while len(got) < total:
            size = takes[turn % len(takes)]
            if turn % 2:
                buffer = bytearray(size)
                count = await loop.sock_recv_into(right, buffer)
                got += buffer[:count]
            else:
                got += await loop.sock_recv(right, size)
            turn += 1
        await sending
        assert digest(got) == digest(b"".join(chunks))
        left.close()
        right.close()

    loop.run_until_complete(main())


@settings(max_examples=25 * EXAMPLES_FACTOR, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(st.integers(0, 100_000), min_size=1, max_size=20),
    buffer_bytes=st.integers(1, 70_000),
    buffered=st.booleans(),
    naps=st.lists(st.booleans(), min_size=1, max_size=20),
)
def test_any_sizes_of_writes_and_buffers(
    loop: Any, sizes: list[int], buffer_bytes: int, buffered: bool, naps: list[bool]
) -> None:
    """Bug class 18: random writes into random buffers, with and without naps between."""

    async def main() -> None:
        factory = (lambda: BufferedRecorder(buffer_bytes)) if buffered else Recorder
        client, served = await pair(loop, Recorder, factory)
        chunks = [pattern(size, seed) for seed, size in enumerate(sizes)]
        for turn, chunk in enumerate(chunks):
            client.transport.write(chunk)
            if naps[turn % len(naps)]:
                await asyncio.sleep(0)
        client.transport.close()
        await asyncio.gather(client.lost, served.lost)
        assert digest(served.data) == digest(b"".join(chunks))

    loop.run_until_complete(main())


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(1, 50_000)),
        st.tuples(st.just("readexactly"), st.integers(0, 100_000)),
        st.tuples(st.just("readuntil"), st.just(0)),
        st.tuples(st.just("readline"), st.just(0)),
        st.tuples(st.just("nap"), st.just(0)),
        st.tuples(st.just("cancel"), st.just(0)),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60 * EXAMPLES_FACTOR, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(st.integers(1, 60_000), min_size=1, max_size=12),
    operations=OPERATIONS,
    limit=st.sampled_from([64, 4096, 65536]),
)
def test_any_mix_of_calls_sees_one_stream(
    loop: Any, sizes: list[int], operations: list[tuple[str, int]], limit: int
) -> None:
    """Whatever is called in whatever order: the pieces add up to what was sent."""

    async def main() -> None:
        (reader, writer), (_, other) = await stream_pair(loop, limit=limit)
        sent = b"".join(pattern(size, seed) for seed, size in enumerate(sizes))

        async def send() -> None:
            start = 0
            for size in sizes:
                other.write(sent[start : start + size])
                start += size
                await other.drain()
                await asyncio.sleep(0)
            other.close()

        sending = asyncio.ensure_future(send())
        got = bytearray()
        for name, size in operations:
            try:
                if name == "nap":
                    await asyncio.sleep(0.001)
                elif name == "cancel":
                    task = asyncio.ensure_future(reader.readexactly(1 << 30))
                    await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait([task])
                    if not task.cancelled():  # the stream was at its end already
                        raise task.exception() or AssertionError("2**30 bytes?")
                elif name == "read":
                    got += await reader.read(size)
                elif name == "readexactly":
                    got += await reader.readexactly(size)
                elif name == "readuntil":
                    got += await reader.readuntil(b"\x00\x01")
                else:
                    got += await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError as error:
                got += error.partial
            except asyncio.LimitOverrunError as error:
                got += await reader.readexactly(error.consumed)
        while chunk := await reader.read(100_000):
            got += chunk
        await sending
        assert digest(got) == digest(sent)
        await finish(writer, other)

    loop.run_until_complete(main())
