"""Helpers that the tests share: child processes, checksummed data, small protocols."""

import asyncio
import contextlib
import hashlib
import inspect
import os
import socket
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable, Iterator
from typing import Any

# Sanitizer builds and busy machines are slow; every time-out in the tests goes through here.
SLOWNESS = 4.0 if os.environ.get("NETPOLL_SANITIZED") else 1.0
TEST_TIMEOUT_S = 30.0 * SLOWNESS * (10 if os.environ.get("NETPOLL_SOAK") else 1)

# Tests with hypothesis make this many times their usual number of examples (the long lane: 10).
EXAMPLES_FACTOR = int(os.environ.get("NETPOLL_EXAMPLES_FACTOR", "1"))

# A child that hangs says where, and ends, before whoever waits for it loses patience.
CHILD_DEADLINE_S = 45.0 * SLOWNESS

_CHILD_PRELUDE = '''
import ctypes, faulthandler, signal, sys
faulthandler.dump_traceback_later({deadline_s!r}, exit=True)
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it does not outlive its test
BACKEND = {backend!r}
def new_loop(**config):
    """A new loop of the kind that the parent's test asked for."""
    if BACKEND == "asyncio":
        import asyncio
        return asyncio.SelectorEventLoop()
    if BACKEND == "uvloop":
        import uvloop
        return uvloop.new_event_loop()
    import netpoll
    if config:
        return netpoll.new_event_loop(backend=BACKEND, config=netpoll.LoopConfig(**config))
    return netpoll.new_event_loop(backend=BACKEND)
'''


def make_loop(backend: str, **config: int) -> Any:
    """A new loop; `config` (LoopConfig fields) means nothing to loops that are not netpoll's."""
    if backend == "asyncio":
        return asyncio.SelectorEventLoop()
    if backend == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    import netpoll

    if backend == "sqpoll":
        backend, config = "uring", {"sqpoll_idle_ms": 20, **config}
    if config:
        return netpoll.new_event_loop(backend=backend, config=netpoll.LoopConfig(**config))
    return netpoll.new_event_loop(backend=backend)


def is_netpoll(backend: str) -> bool:
    return backend in ("uring", "epoll", "sqpoll")


def child_command(backend: str, body: Callable[..., None], *args: object) -> list[str]:
    """The command that runs `body(*args)` in a new interpreter, for CHILD_DEADLINE_S at most.

    `body` brings its own imports and finds `new_loop` and BACKEND as globals; `args` are literals.
    """
    prelude = _CHILD_PRELUDE.format(backend=backend, deadline_s=CHILD_DEADLINE_S)
    source = prelude + textwrap.dedent(inspect.getsource(body))
    call = f"{body.__name__}({', '.join(map(repr, args))})"
    return [sys.executable, "-X", "faulthandler", "-c", f"{source}\n{call}\n"]


def run_child(
    backend: str, body: Callable[..., None], *args: object, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Runs `body(*args)` in a child, on a loop of this backend; stdout and stderr are text."""
    command = child_command(backend, body, *args)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s * SLOWNESS, check=False
    )


@contextlib.contextmanager
def talking_child(
    backend: str, body: Callable[..., None], *args: object
) -> Iterator[subprocess.Popen[str]]:
    """A child to talk to while it runs; stdout and stderr are text. It is dead afterwards."""
    process = subprocess.Popen(
        child_command(backend, body, *args),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def child_says(process: subprocess.Popen[str], line: str) -> None:
    """The next line of a talking child; anything else fails with what it has on stderr."""
    assert process.stdout is not None
    said = process.stdout.readline()
    if said != line + "\n":
        process.kill()
        raise AssertionError(f"said {said!r}, not {line!r}\n{process.communicate()[1]}")


def child_output(backend: str, body: Callable[..., None], *args: object) -> str:
    """stdout of a child that must end well."""
    done = run_child(backend, body, *args)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pattern(size_bytes: int, seed: int = 1) -> bytes:
    """Bytes that are different at every offset a lost or doubled block could end at."""
    block = hashlib.shake_128(seed.to_bytes(8, "little")).digest(min(size_bytes, 65521))
    return (block * (size_bytes // len(block) + 1))[:size_bytes] if block else b""


class Digest:
    """What large pieces are compared by: short in a failure, and six times as fast as a hash that
    has to stand up to somebody."""

    def __init__(self) -> None:
        self.size_bytes = self.crc = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self.size_bytes += len(data)
        self.crc = zlib.crc32(data, self.crc)

    def __str__(self) -> str:
        return f"{self.size_bytes} bytes, {self.crc:08x}"


def digest(data: bytes | bytearray | memoryview) -> str:
    found = Digest()
    found.update(data)
    return str(found)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Connected TCP sockets over loopback, both nonblocking."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    left.setblocking(False)
    right.setblocking(False)
    return left, right


def unix_pair() -> tuple[socket.socket, socket.socket]:
    """Connected Unix stream sockets, both nonblocking."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    return left, right


def listener(backlog: int = 128) -> socket.socket:
    """A nonblocking TCP listener on loopback."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(backlog)
    sock.setblocking(False)
    return sock


def reset(sock: socket.socket) -> None:
    """Closes a TCP socket with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Waits for a condition, looking every few milliseconds; fails after timeout_s."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s * SLOWNESS
    while not condition():
        if loop.time() > deadline_s:
            raise AssertionError(f"did not happen in {timeout_s} s: {inspect.getsource(condition)}")
        await asyncio.sleep(0.002)


class Recorder(asyncio.Protocol):
    """Keeps everything that a connection's protocol is told, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = bytearray()
        self.transport: Any = None
        self.error: BaseException | None = None
        loop = asyncio.get_running_loop()
        self.made: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.eof: asyncio.Future[None] = loop.create_future()
        self.keep_open = False  # what eof_received returns

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append("made")
        self.transport = transport
        self.made.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self.events[-1] != "data":
            self.events.append("data")
        self.data += data

    def eof_received(self) -> bool:
        self.events.append("eof")
        self.eof.set_result(None)
        return self.keep_open

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.events.append("lost")
        self.error = exc
        self.lost.set_result(None)


class BufferedRecorder(asyncio.BufferedProtocol):
    """Like Recorder, for the protocol that brings its own buffer."""

    def __init__(self, size_bytes: int = 4096) -> None:
        self.buffer = bytearray(size_bytes)
        self.data = bytearray()
        self.events: list[str] = []
        self.transport: Any = None
        self.error: BaseException | None = None
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.eof: asyncio.Future[None] = loop.create_future()
        self.keep_open = False
        self.hints: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append("made")
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.events[-1] != "data":
            self.events.append("data")
        self.data += self.buffer[:nbytes]

    def eof_received(self) -> bool:
        self.events.append("eof")
        self.eof.set_result(None)
        return self.keep_open

    def connection_lost(self, exc: BaseException | None) -> None:
        self.events.append("lost")
        self.error = exc
        self.lost.set_result(None)


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    transport: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def pair(
    loop: Any, left: Callable[[], Any] = Recorder, right: Callable[[], Any] = Recorder
) -> tuple[Any, Any]:
    """Two protocols with a TCP connection between them: (client's, server's).

    The listener is gone when this returns.
    """
    accepted: asyncio.Future[Any] = loop.create_future()

    def factory() -> Any:
        protocol = right()
        accepted.set_result(protocol)
        return protocol

    server = await loop.create_server(factory, "127.0.0.1", 0)
    _, client = await loop.create_connection(left, *server.sockets[0].getsockname())
    served = await accepted
    await until(lambda: getattr(served, "transport", None) is not None)
    server.close()
    return client, served


async def stream_pair(
    loop: Any, limit: int = 2**16
) -> tuple[
    tuple[asyncio.StreamReader, asyncio.StreamWriter],
    tuple[asyncio.StreamReader, asyncio.StreamWriter],
]:
    """Two ends of a TCP connection as streams, the connecting one first; no listener left."""
    accepted: asyncio.Future[Any] = loop.create_future()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result((reader, writer))

    server = await asyncio.start_server(served, "127.0.0.1", 0, limit=limit)
    client = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=limit)
    other = await accepted
    server.close()
    return client, other
