"""A connection that ends while code of ours is still up the stack: it ends once, and nothing of it
reaches another one. Each test is one way in which a program ends it from within a call of ours."""

import contextlib
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import netpoll
from netpoll import Connection, LoopConfig
from tests.tls import HOST, client_context, server_context

from .conftest import Serving, read_exactly, wait_for

SMALL_CQ = LoopConfig(sq_entries=8, cq_entries=16)
ONE_BY_ONE = LoopConfig(features_off=("recv_multi",))


class Log:
    """What a server's hooks were called with."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed: list[int] = []
        self.phantoms = 0
        self.conns: list[Connection] = []

    def on_connect(self, conn: Connection) -> None:
        self.opened += 1
        self.conns.append(conn)

    def on_close(self, conn: Connection, error: Any) -> None:
        self.closed.append(conn.fileno())
        self.conns.remove(conn)

    def saw(self, conn: Connection) -> None:
        self.phantoms += conn.fileno() < 0

    @property
    def hooks(self) -> dict[str, Any]:
        return {"on_connect": self.on_connect, "on_close": self.on_close}

    def is_right(self, count: int) -> None:
        wait_for(lambda: len(self.closed) >= count)
        time.sleep(0.05)
        assert (self.opened, len(self.closed), self.phantoms) == (count, count, 0)
        assert -1 not in self.closed, "on_close() of a connection that is over"


def connect(serving: Serving, tls: bool) -> socket.socket:
    client = serving.connect()
    if tls:
        client = client_context().wrap_socket(client, server_hostname=HOST)
        serving.clients.append(client)
    return client


def secured(tls: bool) -> dict[str, Any]:
    return {"ssl": server_context()} if tls else {}


def end_of(how: str) -> Callable[[Connection], None]:
    def end(conn: Connection) -> None:
        if how == "raise":
            raise ZeroDivisionError
        if how == "unread":  # raises in the middle of a read
            conn.lease(Ending(conn))
            return
        getattr(conn, how)()

    return end


class Ending:
    """Ends its connection when it is asked for a number."""

    def __init__(self, conn: Connection, value: int = 3, how: str = "abort") -> None:
        self.conn, self.value, self.how = conn, value, how

    def __index__(self) -> int:
        getattr(self.conn, self.how)()
        return self.value


both = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


@both
@pytest.mark.parametrize("how", ["close", "abort", "raise", "unread", "shutdown"])
def test_ended_in_the_call_at_the_end_of_the_stream(serving: Serving, tls: bool, how: str) -> None:
    log, calls = Log(), []

    def on_data(conn: Connection) -> None:
        log.saw(conn)
        calls.append(conn.available)
        if len(calls) == 2:
            end_of(how)(conn)

    serving(on_data, **log.hooks, **secured(tls))
    client = connect(serving, tls)
    client.send(b"half a message")
    wait_for(lambda: calls)
    socket.socket.shutdown(client, socket.SHUT_WR)
    log.is_right(1)
    assert calls == [14, 14]
    serving.errors.clear()


@both
@pytest.mark.parametrize("how", ["close", "abort", "raise"])
@pytest.mark.parametrize("where", ["on_connect", "on_data"])
def test_ended_in_a_hook(serving: Serving, tls: bool, how: str, where: str) -> None:
    log = Log()

    def on_connect(conn: Connection) -> None:
        log.on_connect(conn)
        if where == "on_connect":
            end_of(how)(conn)

    def on_data(conn: Connection) -> None:
        log.saw(conn)
        end_of(how)(conn)

    serving(on_data, on_connect=on_connect, on_close=log.on_close, **secured(tls))
    for _ in range(3):
        with contextlib.suppress(OSError):
            connect(serving, tls).send(b"x")
    log.is_right(3)
    serving.errors.clear()


def test_what_on_close_adopts_is_its_own(serving: Serving) -> None:
    """The struct was free when on_close() ran a second time, so what it adopted shared it, and
    later writes went to whoever was accepted next."""
    ours, theirs = socket.socketpair()
    adopted: list[Connection] = []
    calls = []

    def on_data(conn: Connection) -> None:
        if conn in adopted:
            conn.skip()
            return
        calls.append(conn.available)
        if len(calls) == 2:
            conn.close()

    def on_close(conn: Connection, error: Any) -> None:
        if not adopted:
            adopted.append(conn.adopt(ours))

    server = serving(on_data, on_close=on_close)
    first = serving.connect()
    first.send(b"half a message")
    wait_for(lambda: calls)
    first.shutdown(socket.SHUT_WR)
    wait_for(lambda: adopted)
    others = [serving.connect() for _ in range(8)]
    wait_for(lambda: server.stats()["connections"] == 9)
    adopted[0].loop.call_soon_threadsafe(adopted[0].write, b"secret")
    theirs.settimeout(10)
    assert theirs.recv(100) == b"secret"
    for other in others:
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(1)
    theirs.close()


@both
@pytest.mark.parametrize("config", [SMALL_CQ, ONE_BY_ONE], ids=["small_cq", "one_by_one"])
@pytest.mark.parametrize("ends", [True, False], ids=["abort", "echo"])
def test_a_cancelled_receive_that_has_bytes(
    serving: Serving, backend: str, tls: bool, config: LoopConfig, ends: bool
) -> None:
    """The last event of a receive that was to be cancelled brings bytes: the handler may end the
    connection; if it does not, the connection is read from again."""
    count, log, begun = 60, Log(), []

    def on_data(conn: Connection) -> None:
        log.saw(conn)
        if not begun:
            begun.append(1)
            for other in list(log.conns):
                if other is not conn:
                    other.pause_reading()
                    other.resume_reading()
        if ends:
            conn.abort()
        else:
            conn.forward()

    serving(on_data, config=config, **log.hooks, **secured(tls))
    clients = [connect(serving, tls) for _ in range(count)]
    wait_for(lambda: log.opened == count)
    loop = log.conns[0].loop
    blocked, go_on = threading.Event(), threading.Event()
    loop.call_soon_threadsafe(lambda: (blocked.set(), go_on.wait(10)))
    assert blocked.wait(10)
    for round_ in range(1 if ends else 3):
        for client in clients:
            client.send(b"%d" % round_)
        go_on.set()  # all of them are ready in one turn
        for client in clients if not ends else ():
            assert client.recv(1) == b"%d" % round_
    if not ends:
        for client in clients:
            client.close()
    log.is_right(count)


def ending_pieces(conn: Connection, how: str) -> Iterator[bytes]:
    yield b"first"
    getattr(conn, how)()
    yield b"second"


@both
@pytest.mark.parametrize("how", ["abort", "close", "shutdown"])
def test_writev_of_an_iterable_that_ends_the_connection(
    serving: Serving, tls: bool, how: str
) -> None:
    log, raised = Log(), []

    def on_data(conn: Connection) -> None:
        conn.take()
        with pytest.raises(ConnectionError) as info:
            conn.writev(ending_pieces(conn, how))
        raised.append(info.value)

    serving(on_data, **log.hooks, **secured(tls))
    client = connect(serving, tls)
    client.send(b"x")
    if how == "abort":
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert client.recv(10) == b""
    else:
        assert read_exactly(client, 6) == b"first", "pieces before the end are written"
    client.close()
    log.is_right(1)
    assert len(raised) == 1


def test_writev_that_fails_in_the_middle_has_written_what_came_before(serving: Serving) -> None:
    def pieces() -> Iterator[Any]:
        yield b"one "
        yield bytearray(b"two ")
        raise KeyError("three")

    def on_data(conn: Connection) -> None:
        conn.take()
        with pytest.raises(KeyError):
            conn.writev(pieces())
        with pytest.raises(TypeError):
            conn.writev([b"three ", 4])
        conn.write(b"five")

    serving(on_data)
    client = serving.connect()
    client.send(b"x")
    assert read_exactly(client, 18) == b"one two three five"


@both
@pytest.mark.parametrize("how", ["abort", "take", "close", "pause_reading"])
@pytest.mark.parametrize("method", ["lease", "peek_lease", "skip", "take"])
def test_a_number_that_runs_code(serving: Serving, tls: bool, method: str, how: str) -> None:
    """__index__ reads, or ends the connection: what is there is looked at afterwards."""
    log, got = Log(), []

    def on_data(conn: Connection) -> None:
        if got:
            conn.skip()
            return
        value = getattr(conn, method)(Ending(conn, 5, how))
        got.append(value if isinstance(value, int) else bytes(value))
        if how == "pause_reading":
            conn.resume_reading()

    serving(on_data, **log.hooks, **secured(tls))
    client = connect(serving, tls)
    client.send(b"0123456789")
    wait_for(lambda: got)
    client.close()
    log.is_right(1)
    is_over = how != "pause_reading" and not (tls and how == "close")  # which says goodbye first
    there = b"" if is_over else b"01234"
    assert got[0] == (len(there) if method == "skip" else there)


class AbortingSocket:
    def __init__(self, conn: Connection, sock: socket.socket) -> None:
        self.conn, self.sock = conn, sock

    def setblocking(self, _flag: bool) -> None:
        self.conn.abort()

    def detach(self) -> int:
        self.sock.setblocking(False)
        return self.sock.detach()


class AbortingFile:
    def __init__(self, conn: Connection, fd: int) -> None:
        self.conn, self.fd = conn, fd

    def fileno(self) -> int:
        self.conn.abort()
        return self.fd


class AbortingError(Exception):
    conn: Any = None

    @property
    def __class__(self) -> Any:  # isinstance() asks for it
        conn, AbortingError.conn = AbortingError.conn, None
        if conn is not None:
            conn.abort()
        return AbortingError


def by_adopt(conn: Connection) -> None:
    ours, theirs = socket.socketpair()
    adopted = conn.adopt(AbortingSocket(conn, ours))
    theirs.close()
    assert adopted.fileno() >= 0


def by_sendfile(conn: Connection) -> None:
    with open(__file__, "rb") as file, pytest.raises(ConnectionError):
        conn.sendfile(AbortingFile(conn, file.fileno()))


def by_count(conn: Connection) -> None:
    with open(__file__, "rb") as file, pytest.raises(ConnectionError):
        conn.sendfile(file, 0, Ending(conn))


def by_error(conn: Connection) -> None:
    error = AbortingError()
    AbortingError.conn = conn
    conn.abort(error)


def by_limit(conn: Connection) -> None:
    class Limit:
        def __le__(self, there: int) -> bool:
            conn.abort()
            return False

    assert conn.lease_until(b"\r\n", Limit()) is None


def by_buffer(conn: Connection) -> None:
    class Data:
        def __buffer__(self, _flags: int) -> memoryview:
            conn.abort()
            return memoryview(b"data")

        def __release_buffer__(self, view: memoryview) -> None:
            view.release()

    with pytest.raises(ConnectionError if sys.version_info >= (3, 12) else TypeError):
        conn.write(Data())
    conn.abort()


def by_release(conn: Connection) -> None:
    class Data:
        def __buffer__(self, _flags: int) -> memoryview:
            return memoryview(bytearray(b"data"))

        def __release_buffer__(self, view: memoryview) -> None:
            conn.abort()
            view.release()

    with contextlib.suppress(TypeError):
        conn.writev([Data()])
    conn.abort()


@both
@pytest.mark.parametrize(
    "end",
    [by_adopt, by_sendfile, by_count, by_error, by_limit, by_buffer, by_release],
)
def test_ended_by_what_a_method_was_given(serving: Serving, tls: bool, end: Any) -> None:
    log, failures, ended = Log(), [], []

    def on_data(conn: Connection) -> None:
        if conn.state is None and not ended:
            ended.append(1)
            try:
                end(conn)
            except BaseException as exc:
                failures.append(exc)

    def on_close(conn: Connection, error: Any) -> None:
        if conn in log.conns:
            log.on_close(conn, error)

    serving(on_data, on_connect=log.on_connect, on_close=on_close, **secured(tls))
    connect(serving, tls).send(b"0123456789")
    log.is_right(1)
    assert not failures


def test_a_closed_socket_is_not_adopted(serving: Serving) -> None:
    raised = []

    def on_data(conn: Connection) -> None:
        conn.take()
        sock = socket.socket()
        sock.close()
        try:
            conn.adopt(sock)
        except (OSError, ValueError) as exc:
            raised.append(exc)

    serving(on_data)
    serving.connect().send(b"x")
    wait_for(lambda: raised)


@both
def test_on_close_that_ends_all_the_others(serving: Serving, tls: bool) -> None:
    log = Log()

    def on_close(conn: Connection, error: Any) -> None:
        log.on_close(conn, error)
        for other in list(log.conns):
            other.abort()

    def on_data(conn: Connection) -> None:
        log.saw(conn)
        conn.abort()

    serving(on_data, on_connect=log.on_connect, on_close=on_close, **secured(tls))
    clients = [connect(serving, tls) for _ in range(30)]
    wait_for(lambda: log.opened == 30)
    clients[7].send(b"x")
    log.is_right(30)


@both
def test_a_pool_that_runs_code_when_it_goes(serving: Serving, tls: bool) -> None:
    """The last block of a pool is sent, and the pool's finaliser ends the connection."""
    log, ended = Log(), []

    class Pool(netpoll.BufferPool):
        conn: Any = None

        def __del__(self) -> None:
            ended.append(self.conn.fileno())
            self.conn.abort()

    def on_data(conn: Connection) -> None:
        if conn.take() == b"y":
            return
        pool = Pool(1 << 20)
        pool.conn = conn
        buffer = pool.reserve(4096)
        buffer.write(b"x" * 4096)
        conn.writev([b"a", buffer, *[b"b"] * 200])

    serving(on_data, **log.hooks, **secured(tls))
    client = connect(serving, tls)
    client.send(b"x")
    read_exactly(client, 4096 + 201)
    with contextlib.suppress(OSError):
        client.send(b"y")  # the end of a send is heard of with what comes next
    log.is_right(1)
    assert len(ended) == 1 and ended[0] >= 0


@both
def test_stop_while_handlers_run(serving: Serving, tls: bool) -> None:
    log = Log()

    def on_data(conn: Connection) -> None:
        log.saw(conn)
        conn.writev(ending_pieces(conn, "pause_reading"))
        conn.skip()
        conn.resume_reading()

    server = serving(on_data, **log.hooks, **secured(tls))
    clients = [connect(serving, tls) for _ in range(20)]
    wait_for(lambda: log.opened == 20)  # what the kernel has not handed over is not the server's
    for client in clients:
        client.send(b"x" * 1000)
    server.close(0)
    log.is_right(20)


def test_listening_goes_on_when_all_have_left_a_full_server(serving: Serving) -> None:
    serving(lambda conn: conn.forward(), limits=netpoll.ServerLimits(connections_max_count=1))
    for _ in range(20):
        first, second = serving.connect(), serving.connect()
        for client in (first, second):
            client.send(b"x")
            assert client.recv(1) == b"x"
            client.close()


def test_a_starved_connection_is_closed_at_once(serving: Serving) -> None:
    """Every receive buffer is held: to close, abort and stop need none."""
    held, closed = [], []

    def on_data(conn: Connection) -> None:
        with contextlib.suppress(BufferError):
            held.append(memoryview(conn.lease()))

    server = serving(
        on_data,
        on_close=lambda conn, error: closed.append(conn),
        config=LoopConfig(buf_count=2, buf_bytes=4096),
    )
    clients = [serving.connect() for _ in range(4)]
    for _ in range(3):
        for client in clients:
            with contextlib.suppress(OSError):
                client.send(b"x" * 4096)
        time.sleep(0.05)
    before_s = time.monotonic()
    server.close(0)
    assert time.monotonic() - before_s < 2
    assert len(closed) == 4
    for view in held:
        view.release()
