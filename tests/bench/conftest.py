"""Servers for the load generator to meet: the floors, and scripted ones that misbehave."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from netpoll.bench import _native

from ..conftest import open_fds
from ..support import SLOWNESS

Handler = Callable[[socket.socket], None]


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """A test of the harness leaves no descriptor and no thread behind."""
    fds, threads = open_fds(), threading.active_count()
    yield
    assert {fd for fd in open_fds() if fd not in fds} == set()
    assert threading.active_count() <= threads


def listener(path: str | None = None) -> socket.socket:
    """A listening socket on a free port of 127.0.0.1, or at a path."""
    if path is None:
        sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        sock.listen(1024)
    return sock


@contextlib.contextmanager
def floor(
    serve: Callable[[int, int], None],
    path: str | None = None,
    make: Callable[[str | None], socket.socket] = listener,
) -> Iterator[object]:
    """A floor in a thread of this process; gives its address. It must end without an error."""
    reader, writer = os.pipe()
    failures = []
    sock = make(path)
    sock.setblocking(False)

    def run() -> None:
        try:
            serve(sock.fileno(), reader)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sock.getsockname()
    finally:
        os.write(writer, b"x")
        thread.join(10 * SLOWNESS)
        for close in (sock.close, lambda: os.close(reader), lambda: os.close(writer)):
            close()
    assert not thread.is_alive(), "the floor did not stop"
    assert failures == []


@contextlib.contextmanager
def scripted(handler: Handler, connections: int = 1) -> Iterator[tuple[str, int]]:
    """A server that gives each of so many connections to `handler`, in a thread of its own."""
    sock = listener()
    sock.settimeout(10 * SLOWNESS)

    def handle(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            handler(client)

    def run() -> None:
        clients = []
        with contextlib.suppress(OSError):
            for _ in range(connections):
                client, _ = sock.accept()
                client.settimeout(10 * SLOWNESS)
                clients.append(threading.Thread(target=handle, args=(client,)))
                clients[-1].start()
        for thread in clients:
            thread.join()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sock.getsockname()
    finally:
        # Wakes an accept that is waiting; close alone would not.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        thread.join()


def datagram_socket(path: str | None = None) -> socket.socket:
    """A bound datagram socket on a free port of 127.0.0.1, or at a path."""
    family, name = (socket.AF_UNIX, path) if path else (socket.AF_INET, ("127.0.0.1", 0))
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(name)
    return sock


@contextlib.contextmanager
def udp_floor(path: str | None = None) -> Iterator[object]:
    """The floor of datagrams in a thread of this process; gives its address."""
    with floor(_native.floor_udp_epoll, path, make=datagram_socket) as address:
        yield address


Answer = Callable[[socket.socket, bytes, object], None]


@contextlib.contextmanager
def scripted_datagrams(answer: Answer) -> Iterator[tuple[str, int]]:
    """A server that gives each datagram to `answer(sock, data, sender)`, in a thread."""
    sock = datagram_socket()
    sock.settimeout(0.05)
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                answer(sock, *sock.recvfrom(65536))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sock.getsockname()
    finally:
        ended.set()
        thread.join()
        sock.close()


def exactly(client: socket.socket, count: int) -> bytes:
    """Receives so many bytes; fewer when the peer ends."""
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


FLOORS = {"epoll": _native.floor_epoll}
if _native.floor_uring_probe() is None:
    FLOORS["uring"] = _native.floor_uring


@pytest.fixture(params=["epoll", "uring"])
def floor_serve(request: pytest.FixtureRequest) -> Callable[[int, int], None]:
    """Each floor's function; io_uring's is skipped where the kernel refuses it."""
    if request.param not in FLOORS:
        pytest.skip(f"io_uring: {_native.floor_uring_probe()}")
    return FLOORS[request.param]
