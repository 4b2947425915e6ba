"""What a buffer of a pool costs: reserved, written, committed, looked at, released."""

from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import netpoll

from .costs import cpu_ns, record

COUNT = 10_000
SIZES_BYTES = (64, 4096, 65536)


@pytest.fixture
def pool() -> Iterator[netpoll.BufferPool]:
    with netpoll.BufferPool(1 << 22, (512, 4096, 65536), "off") as pool:
        yield pool


@pytest.mark.parametrize("size_bytes", SIZES_BYTES)
def test_reserve_and_release(
    size_bytes: int, pool: netpoll.BufferPool, benchmark: BenchmarkFixture
) -> None:
    def work() -> None:
        for _ in range(COUNT):
            pool.reserve(size_bytes).release()

    record(benchmark, "reserve, release", lambda: cpu_ns(work, COUNT))


@pytest.mark.parametrize("size_bytes", SIZES_BYTES)
def test_a_filled_buffer(
    size_bytes: int, pool: netpoll.BufferPool, benchmark: BenchmarkFixture
) -> None:
    data = b"x" * size_bytes

    def work() -> None:
        for _ in range(COUNT):
            buffer = pool.reserve(size_bytes)
            buffer.write(data)
            buffer.commit(size_bytes)
            buffer.release()

    record(benchmark, "reserve, write, commit, release", lambda: cpu_ns(work, COUNT))


def test_a_view(pool: netpoll.BufferPool, benchmark: BenchmarkFixture) -> None:
    def work() -> None:
        for _ in range(COUNT):
            with memoryview(buffer):
                pass

    with pool.reserve(4096) as buffer:
        buffer.write(b"x" * 4096)
        buffer.commit(4096)
        record(benchmark, "a view of a buffer", lambda: cpu_ns(work, COUNT))


def test_many_at_once(pool: netpoll.BufferPool, benchmark: BenchmarkFixture) -> None:
    """Sixty are held while others come and go."""
    held = [pool.reserve(4096) for _ in range(60)]

    def work() -> None:
        for _ in range(COUNT):
            held.append(pool.reserve(4096))
            held.pop(0).release()

    record(benchmark, "reserve, release of the oldest", lambda: cpu_ns(work, COUNT))
    for buffer in held:
        buffer.release()
