"""What a handler pays for the bytes that it received: leases, copies, lines."""

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import netpoll

from .costs import cpu_ns, record

MESSAGES_COUNT, MESSAGE_BYTES = 500, 64
MESSAGE = b"x" * (MESSAGE_BYTES - 1) + b"\n"

Work = Callable[[netpoll.Connection], None]


class Receiver:
    """A server on a loop of its own with one connection, on whose bytes a piece of work is done."""

    def __init__(self, backend: str) -> None:
        self.loop = netpoll.new_event_loop(backend=backend)
        listener = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(listener.getsockname())
        self.work: Work | None = None
        self.done: asyncio.Future[float] | None = None
        self.server = netpoll.Server(self.on_data, sockets=[listener])
        self.loop.run_until_complete(self.server.__aenter__())

    def on_data(self, conn: netpoll.Connection) -> None:
        if conn.available < MESSAGES_COUNT * MESSAGE_BYTES:
            return
        assert self.work is not None
        assert self.done is not None
        work = self.work
        figure = cpu_ns(lambda: work(conn), MESSAGES_COUNT)
        if conn.available:
            conn.skip()
        self.done.set_result(figure)

    def one_round(self, work: Work) -> float:
        self.work, self.done = work, self.loop.create_future()
        self.client.sendall(MESSAGE * MESSAGES_COUNT)
        return self.loop.run_until_complete(asyncio.wait_for(self.done, 10))

    def close(self) -> None:
        self.client.close()
        self.loop.run_until_complete(self.server.__aexit__(None, None, None))
        self.loop.close()


@pytest.fixture(params=["uring", "epoll"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    try:
        receiver = Receiver(request.param)
    except netpoll.BackendUnavailableError as reason:
        pytest.skip(str(reason))
    yield receiver
    receiver.close()


def lease_and_release(conn: netpoll.Connection) -> None:
    for _ in range(MESSAGES_COUNT):
        conn.lease(MESSAGE_BYTES).release()


def peek_and_release(conn: netpoll.Connection) -> None:
    for _ in range(MESSAGES_COUNT):
        conn.peek_lease(MESSAGE_BYTES).release()


def lease_retain_and_release(conn: netpoll.Connection) -> None:
    for _ in range(MESSAGES_COUNT):
        conn.lease(MESSAGE_BYTES).retain().release()


def view(conn: netpoll.Connection) -> None:
    with conn.lease(MESSAGE_BYTES) as lease:
        for _ in range(MESSAGES_COUNT):
            with memoryview(lease):
                pass


def copy(conn: netpoll.Connection) -> None:
    with conn.lease(MESSAGE_BYTES) as lease:
        for _ in range(MESSAGES_COUNT):
            lease.tobytes()


def take(conn: netpoll.Connection) -> None:
    for _ in range(MESSAGES_COUNT):
        conn.take(MESSAGE_BYTES)


def take_line(conn: netpoll.Connection) -> None:
    for _ in range(MESSAGES_COUNT):
        conn.take_line()


def lease_until(conn: netpoll.Connection) -> None:
    for _ in range(MESSAGES_COUNT):
        lease = conn.lease_until(b"\n")
        assert lease is not None
        lease.release()


def skip(conn: netpoll.Connection) -> None:
    for _ in range(MESSAGES_COUNT):
        conn.skip(MESSAGE_BYTES)


WORKS = (
    *(lease_and_release, peek_and_release, lease_retain_and_release, view, copy),
    *(take, take_line, lease_until, skip),
)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_received_bytes(work: Work, receiver: Receiver, benchmark: BenchmarkFixture) -> None:
    record(
        benchmark,
        f"{work.__name__.replace('_', ' ')}, {MESSAGE_BYTES} B",
        lambda: receiver.one_round(work),
    )
