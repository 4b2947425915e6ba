"""A plain function as the handler: reading in place, writing without copies."""

import math
import os
import re
import socket
import threading
from typing import Any

import pytest

import netpoll
from tests.support import pattern, reset

from .conftest import Serving, read_exactly, wait_for


def echo(conn: netpoll.Connection) -> None:
    conn.forward(conn.lease())


def test_echo(serving: Serving) -> None:
    server = serving(echo)
    clients = [serving.connect() for _ in range(20)]
    for i, client in enumerate(clients):
        client.sendall(b"%d" % i * 10)
    for i, client in enumerate(clients):
        want = b"%d" % i * 10
        assert read_exactly(client, len(want)) == want
    stats = server.stats()
    assert stats["accepted"] == stats["connections"] == 20
    assert stats["recv_bytes"] == sum(len(b"%d" % i * 10) for i in range(20))
    assert stats["copied_bytes"] == stats["shed_bytes"] == 0
    assert stats["zc_bytes"] == stats["kernel_copied_bytes"] == 0  # small: never zero-copy


def test_large_messages_come_back_whole(serving: Serving) -> None:
    data = pattern(8 << 20)
    serving(echo)
    client = serving.connect()
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    assert read_exactly(client, len(data)) == data
    sender.join()


def test_reading_in_place(serving: Serving) -> None:
    seen: list[object] = []

    def on_data(conn: netpoll.Connection) -> None:
        if conn.available < 26:
            return
        seen.append(conn.available)
        with conn.peek_lease(3) as head:
            seen.append(bytes(head))
        seen.append(bytes(conn.lease(2)))
        seen.append(conn.skip(2))
        seen.append(conn.take(3))
        line = conn.lease_until(b"|")
        seen.append(bytes(line))
        seen.append(conn.lease_until(b"|"))
        seen.append(conn.take_line())
        seen.append(conn.take_line())
        seen.append(conn.take())
        seen.append(len(conn.lease()))
        conn.write(b"done")

    serving(on_data)
    client = serving.connect()
    client.sendall(b"abcdefghijklm|nopqrs\ntuvwx")
    assert read_exactly(client, 4) == b"done"
    assert seen == [
        26, b"abc", b"ab", 2, b"efg", b"hijklm|", None, b"nopqrs\n", None, b"tuvwx", 0,
    ]  # fmt: skip


def test_what_is_not_read_is_there_the_next_time(serving: Serving) -> None:
    def on_data(conn: netpoll.Connection) -> None:
        while (line := conn.take_line()) is not None:
            conn.write(line.upper())

    serving(on_data)
    client = serving.connect()
    for part in (b"one\ntw", b"o\nthr", b"ee", b"\n"):
        client.sendall(part)
        threading.Event().wait(0.02)
    assert read_exactly(client, 14) == b"ONE\nTWO\nTHREE\n"


def test_writev_takes_any_mix_and_more_than_iov_max(serving: Serving) -> None:
    pieces_count = 3000

    def on_data(conn: netpoll.Connection) -> None:
        lease = conn.lease()
        buffer = conn.reserve(100)
        buffer.write(b"pool")
        buffer.commit()
        conn.writev([b"<", memoryview(b"0view0")[1:5], lease, buffer, bytearray(b"mutable"), b""])
        conn.writev([b"%04d" % i for i in range(pieces_count)])

    server = serving(on_data)
    client = serving.connect()
    client.sendall(b"received")
    want = b"<viewreceivedpoolmutable" + b"".join(b"%04d" % i for i in range(pieces_count))
    assert read_exactly(client, len(want)) == want
    assert server.stats()["copied_bytes"] == len(b"mutable")  # what can still change, only


def test_a_mutable_buffer_may_be_changed_after_the_write(serving: Serving) -> None:
    def on_data(conn: netpoll.Connection) -> None:
        conn.skip()
        data = bytearray(b"before")
        conn.write(data)
        data[:] = b"after!"

    serving(on_data)
    client = serving.connect()
    client.sendall(b"x")
    assert read_exactly(client, 6) == b"before"


def test_small_writes_of_a_turn_leave_together(serving: Serving) -> None:
    def on_data(conn: netpoll.Connection) -> None:
        conn.skip()
        for i in range(500):
            conn.write(b"%03d" % i)

    server = serving(on_data)
    client = serving.connect()
    client.sendall(b"x")
    assert read_exactly(client, 1500) == b"".join(b"%03d" % i for i in range(500))
    assert server.stats()["submissions"] < 50


def test_cork_holds_back_until_uncork(serving: Serving) -> None:
    def on_data(conn: netpoll.Connection) -> None:
        if conn.take() == b"go":
            conn.uncork()
        else:
            conn.cork()
            conn.write(b"held back")

    serving(on_data)
    client = serving.connect()
    client.sendall(b"x")
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(10)
    client.sendall(b"go")
    assert read_exactly(client, 9) == b"held back"


def test_sendfile_is_in_order_with_writes(serving: Serving, tmp_path) -> None:
    content = pattern(3 << 20)
    path = tmp_path / "file"
    path.write_bytes(content)

    def on_data(conn: netpoll.Connection) -> None:
        conn.skip()
        conn.write(b"head")
        with open(path, "rb") as file:
            assert conn.sendfile(file, 1000, 2 << 20) == 2 << 20
        conn.write(b"tail")

    server = serving(on_data, limits=netpoll.ServerLimits(pending_max_bytes=8 << 20))
    client = serving.connect()
    client.sendall(b"x")
    want = b"head" + content[1000 : 1000 + (2 << 20)] + b"tail"
    assert read_exactly(client, len(want)) == want
    assert server.stats()["file_bytes"] == 2 << 20


def test_hooks_and_state(serving: Serving) -> None:
    events: list[object] = []

    def on_connect(conn: netpoll.Connection) -> None:
        conn.state = {"count": 0}
        events.append(conn.peername[0])

    def on_data(conn: netpoll.Connection) -> None:
        conn.state["count"] += 1
        conn.forward()

    def on_close(conn: netpoll.Connection, error: BaseException | None) -> None:
        events.append((conn.state["count"], error))

    server = serving(on_data, on_connect=on_connect, on_close=on_close)
    client = serving.connect()
    for _ in range(3):
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    client.close()
    wait_for(lambda: not server.stats()["connections"])
    assert events == ["127.0.0.1", (3, None)]


def test_a_reset_is_told_and_costs_only_its_connection(serving: Serving) -> None:
    errors: list[BaseException | None] = []
    server = serving(echo, on_close=lambda conn, error: errors.append(error))
    other = serving.connect()
    client = serving.connect()
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    reset(client)
    wait_for(lambda: errors)
    assert isinstance(errors[0], ConnectionResetError)
    other.sendall(b"still here")
    assert read_exactly(other, 10) == b"still here"
    assert server.stats()["connections"] == 1


def test_half_close_gets_its_answer(serving: Serving) -> None:
    serving(echo)
    client = serving.connect()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert read_exactly(client, 100) == b"question"


def test_shutdown_keeps_reading(serving: Serving) -> None:
    got: list[bytes] = []

    def on_data(conn: netpoll.Connection) -> None:
        got.append(conn.take())
        if got == [b"first"]:
            conn.write(b"bye")
            conn.shutdown()
            with pytest.raises(ConnectionError, match="shutdown"):
                conn.write(b"more")

    serving(on_data)
    client = serving.connect()
    client.sendall(b"first")
    assert read_exactly(client, 100) == b"bye"
    client.sendall(b"second")
    wait_for(lambda: got == [b"first", b"second"])


def test_pause_and_resume_reading(serving: Serving) -> None:
    held: list[netpoll.Connection] = []

    def on_data(conn: netpoll.Connection) -> None:
        conn.forward()
        conn.pause_reading()
        held.append(conn)

    serving(on_data)
    client = serving.connect()
    client.sendall(b"one")
    assert read_exactly(client, 3) == b"one"
    client.sendall(b"two")
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(10)
    held[0].loop.call_soon_threadsafe(held[0].resume_reading)
    assert read_exactly(client, 3) == b"two"


def test_a_connection_belongs_to_its_thread(serving: Serving) -> None:
    held: list[netpoll.Connection] = []
    serving(lambda conn: held.append(conn) or conn.forward())
    client = serving.connect()
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
        held[0].write(b"y")
    held[0].loop.call_soon_threadsafe(held[0].write, b"y")
    assert client.recv(1) == b"y"


def test_a_face_is_the_same_as_long_as_somebody_holds_it(serving: Serving) -> None:
    held: set[netpoll.Connection] = set()

    def on_data(conn: netpoll.Connection) -> None:
        held.add(conn)
        conn.forward()

    serving(on_data)
    clients = [serving.connect() for _ in range(3)]
    for _ in range(5):
        for client in clients:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
    assert len(held) == 3


def test_after_the_end_methods_say_so(serving: Serving) -> None:
    held: list[netpoll.Connection] = []
    server = serving(lambda conn: held.append(conn) or conn.close())
    client = serving.connect()
    client.sendall(b"x")
    assert client.recv(1) == b""
    wait_for(lambda: not server.stats()["connections"])
    conn = held[0]
    assert conn.closed
    assert conn.fileno() == -1
    assert conn.available == conn.pending == 0
    assert bytes(conn.lease()) == b""
    with pytest.raises(ConnectionError, match="over"):
        conn.write(b"y")
    conn.close()
    conn.abort()


def test_unix_socket(serving: Serving, tmp_path) -> None:
    path = str(tmp_path / "socket")
    server = serving(echo, unix=path)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(b"over unix")
        assert read_exactly(client, 9) == b"over unix"
    server.close()
    assert not os.path.exists(path)


def test_workers_get_even_shares(serving: Serving) -> None:
    server = serving(echo, workers=4)
    clients = [serving.connect() for _ in range(64)]
    for client in clients:
        client.sendall(b"x")
    for client in clients:
        assert client.recv(1) == b"x"
    counts = [one["connections"] for one in server.stats()["workers"]]
    assert sum(counts) == 64
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, ValueError),
        ({"port": 0, "unix": "x"}, ValueError),
        ({"port": 0, "workers": 0}, ValueError),
        ({"port": 0, "ssl": True}, TypeError),
    ],
)
def test_arguments_that_make_no_sense(arguments, error) -> None:
    with pytest.raises(error):
        netpoll.Server(echo, **arguments)


@pytest.mark.parametrize(
    ("limit", "error", "sentence"),
    [
        (
            {"pending_max_bytes": 0},
            ValueError,
            "pending_max_bytes must be a whole number of bytes above 0, not 0",
        ),
        (
            {"unread_max_bytes": None},
            TypeError,
            "unread_max_bytes must be a whole number of bytes above 0, not None",
        ),
        (
            {"retained_max_bytes": 1 << 60},
            ValueError,
            (
                "retained_max_bytes must be a whole number of bytes above 0 "
                f"and below {1 << 46}, not {1 << 60}"
            ),
        ),
        (
            {"connections_max_count": 1.5},
            TypeError,
            "connections_max_count must be a whole number above 0, or None for no limit, not 1.5",
        ),
        (
            {"idle_timeout_s": math.nan},
            ValueError,
            "idle_timeout_s must be a number of seconds above 0, or None for no limit, not nan",
        ),
        (
            {"handshake_timeout_s": "60"},
            TypeError,
            "handshake_timeout_s must be a number of seconds above 0, not '60'",
        ),
        (
            {"when_full": "explode"},
            ValueError,
            "when_full must be 'close' or 'raise', not 'explode'",
        ),
    ],
)
def test_limits_that_make_no_sense(limit: Any, error: Any, sentence: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
        netpoll.ServerLimits(**limit)


def test_a_handler_must_be_callable() -> None:
    with pytest.raises(TypeError, match="handler"):
        netpoll.Server(None, port=0)


def test_a_taken_port_is_an_error_of_start(serving: Serving) -> None:
    server = serving(echo)
    second = netpoll.Server(echo, "127.0.0.1", server.port, backend=serving.backend)
    with pytest.raises(OSError, match="in use"):
        second.start()


def test_closing_after_writing_nothing(serving: Serving) -> None:
    def on_data(conn: netpoll.Connection) -> None:
        conn.skip()
        conn.write(b"")
        conn.close()

    serving(on_data)
    client = serving.connect(5)
    client.sendall(b"x")
    assert client.recv(1) == b""
