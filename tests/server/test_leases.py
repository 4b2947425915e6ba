"""Leases: who owns received bytes, and for how long."""

import contextlib
import queue
import threading
from typing import Any

import pytest

import netpoll
from netpoll import LoopConfig
from tests.support import pattern

from .conftest import Serving, read_exactly, wait_for

SMALL_RING = LoopConfig(buf_count=4, buf_bytes=4096)


def test_a_lease_ends_with_its_handler(serving: Serving) -> None:
    kept: list[netpoll.Lease] = []

    def on_data(conn: netpoll.Connection) -> None:
        kept.append(conn.lease())
        conn.write(b"ok")

    serving(on_data)
    client = serving.connect()
    client.sendall(b"x")
    assert read_exactly(client, 2) == b"ok"
    lease = kept[0]
    assert lease.released
    with pytest.raises(ValueError, match="retain"):
        bytes(lease)
    with pytest.raises(ValueError, match="released"):
        memoryview(lease)
    lease.release()


def test_a_retained_lease_keeps_its_bytes(serving: Serving) -> None:
    kept: list[netpoll.Lease] = []

    def on_data(conn: netpoll.Connection) -> None:
        kept.append(conn.lease().retain())
        conn.write(b"ok")

    serving(on_data, config=SMALL_RING)
    client = serving.connect()
    for i in range(200):  # several times around the ring
        client.sendall(pattern(500, i))
        assert read_exactly(client, 2) == b"ok"
    wait_for(lambda: sum(map(len, kept)) == 200 * 500)
    together = b"".join(map(bytes, kept))
    assert together == b"".join(pattern(500, i) for i in range(200))
    for lease in kept:
        lease.release()


def test_a_memoryview_keeps_the_bytes_of_a_released_lease(serving: Serving) -> None:
    views: list[memoryview] = []

    def on_data(conn: netpoll.Connection) -> None:
        lease = conn.lease()
        views.append(memoryview(lease))
        lease.release()
        conn.write(b"ok")

    serving(on_data, config=SMALL_RING)
    client = serving.connect()
    first = pattern(100)
    client.sendall(first)
    assert read_exactly(client, 2) == b"ok"
    assert views[0] == first
    assert views[0].readonly
    for i in range(100):
        client.sendall(pattern(300, i))
        assert read_exactly(client, 2) == b"ok"
        views.pop().release()
    assert views[0] == first if views else True
    for view in views:
        view.release()


def test_several_pieces_are_joined_only_when_asked(serving: Serving) -> None:
    seen: list[object] = []
    data = pattern(20_000)

    def on_data(conn: netpoll.Connection) -> None:
        if conn.available < len(data):
            return
        lease = conn.lease()
        seen.append(lease.pieces_count)
        pieces = lease.pieces()
        seen.append(b"".join(pieces))
        with pytest.raises(BufferError):
            memoryview(lease)
        del pieces
        seen.append(bytes(memoryview(lease)))
        seen.append(lease.pieces_count)
        conn.write(b"ok")

    serving(on_data, config=LoopConfig(buf_count=16, buf_bytes=4096))
    client = serving.connect()
    client.sendall(data)
    assert read_exactly(client, 2) == b"ok"
    assert seen[0] > 1
    assert seen[1:] == [data, data, 1]


def test_a_hoarder_is_refused_and_the_others_go_on(serving: Serving) -> None:
    kept: list[netpoll.Lease] = []
    ends: list[BaseException | None] = []
    hoards = True

    def on_data(conn: netpoll.Connection) -> None:
        if conn.peek_lease(1) == b"h":
            lease = conn.lease()
            if hoards:
                kept.append(lease.retain())
        else:
            conn.forward()

    serving(
        on_data,
        config=SMALL_RING,
        limits=netpoll.ServerLimits(retained_max_bytes=10_000),
        on_close=lambda conn, error: ends.append(error),
    )
    hoarder, other = serving.connect(), serving.connect()
    hoarder.setblocking(False)
    for i in range(300):
        with contextlib.suppress(BlockingIOError, ConnectionError):
            hoarder.send(b"h" * 1000)
        data = b"%04d" % i * 250
        other.sendall(data)
        assert read_exactly(other, 1000) == data
    kept_bytes = sum(map(len, kept))
    assert 10_000 <= kept_bytes <= 20_000, "paused above the limit, never beyond twice of it"
    # What is released lets the rest come, in pieces that may be refused, too.
    hoards = False
    hoarder.close()
    for lease in kept:
        lease.release()
    wait_for(lambda: ends)
    serving.errors.clear()


def test_forwarding_to_another_connection(serving: Serving) -> None:
    conns: list[netpoll.Connection] = []

    def on_data(conn: netpoll.Connection) -> None:
        for other in conns:
            if other is not conn:
                other.forward(conn.lease())

    server = serving(on_data, on_connect=conns.append)
    left, right = serving.connect(), serving.connect()
    wait_for(lambda: len(conns) == 2)
    for i in range(50):
        left.sendall(pattern(3000, i))
        assert read_exactly(right, 3000) == pattern(3000, i)
        right.sendall(pattern(700, i))
        assert read_exactly(left, 700) == pattern(700, i)
    assert server.stats()["copied_bytes"] == 0
    conns.clear()


def test_a_lease_is_sent_once(serving: Serving) -> None:
    def on_data(conn: netpoll.Connection) -> None:
        lease = conn.lease()
        view = memoryview(lease)
        with pytest.raises(BufferError, match="memoryviews"):
            conn.forward(lease)
        view.release()
        conn.forward(lease)
        with pytest.raises(ValueError, match="released"):
            conn.forward(lease)

    serving(on_data)
    client = serving.connect()
    client.sendall(b"once")
    assert read_exactly(client, 4) == b"once"


def test_leases_come_from_connections_only() -> None:
    with pytest.raises(TypeError):
        netpoll.Lease()
    with pytest.raises(TypeError):
        netpoll.Connection()


def test_each_export_asks_again(serving: Serving) -> None:
    """A view's owner, kept beyond its lease, shows nothing: the memory is other bytes' by then."""
    exporters: list[object] = []
    ends = ["release", "forward", "handler", "write"]

    def on_data(conn: netpoll.Connection) -> None:
        lease = conn.lease()
        exporters.extend([lease, lease.pieces()[0].obj])
        match ends.pop(0):
            case "release":
                lease.release()
                conn.write(b"ok")
            case "forward":
                conn.forward(lease)
            case "write":
                conn.write(lease)
            case "handler":
                conn.write(b"ok")

    serving(on_data, config=SMALL_RING)
    client = serving.connect()
    for _ in range(len(ends)):
        client.sendall(b"ok")
        assert read_exactly(client, 2) == b"ok"
    assert len(exporters) == 8
    for exporter in exporters:
        with pytest.raises(ValueError, match="released"):
            memoryview(exporter)  # type: ignore[arg-type]


def test_a_piece_is_found_again_after_a_join(serving: Serving) -> None:
    """join() makes one piece of several, retain() may copy out of the ring: the bytes are there."""
    data = pattern(20_000)
    seen: list[tuple[int, bytes, bytes]] = []

    def on_data(conn: netpoll.Connection) -> None:
        if conn.available < len(data):
            return
        lease = conn.lease()
        pieces = lease.pieces()
        owners = [piece.obj for piece in pieces]
        sizes = [len(piece) for piece in pieces]
        del pieces
        whole = bytes(memoryview(lease))
        lease.retain()
        parts = [bytes(memoryview(owner)) for owner in owners]
        assert [len(part) for part in parts] == sizes
        seen.append((len(parts), whole, b"".join(parts)))
        lease.release()
        conn.write(b"ok")

    serving(on_data, config=LoopConfig(buf_count=8, buf_bytes=4096))
    client = serving.connect()
    client.sendall(data)
    assert read_exactly(client, 2) == b"ok"
    count, whole, parts = seen[0]
    assert count > 1
    assert whole == data
    assert parts == data


def test_leases_are_released_by_many_threads(serving: Serving) -> None:
    """The lender's list and its counters, without a GIL too."""
    retained: queue.SimpleQueue[netpoll.Lease | None] = queue.SimpleQueue()
    rounds, size = 300, 16

    def on_data(conn: netpoll.Connection) -> None:
        while conn.available >= size:
            retained.put(conn.lease(size).retain())
            conn.peek_lease(size)
        conn.write(b"k")

    def release() -> None:
        while (lease := retained.get()) is not None:
            with memoryview(lease):
                lease.release()
            lease.release()

    def send() -> None:
        client = serving.connect()
        for _ in range(rounds):
            client.sendall(bytes(size * 40))
            client.recv(100)

    serving(on_data, workers=2)
    releasing = [threading.Thread(target=release) for _ in range(4)]
    sending = [threading.Thread(target=send) for _ in range(3)]
    for thread in releasing + sending:
        thread.start()
    for thread in sending:
        thread.join()
    for _ in releasing:
        retained.put(None)
    for thread in releasing:
        thread.join()


@pytest.mark.parametrize("how", ["whole", "pieces"])
def test_what_memoryviews_keep_counts_as_retained(serving: Serving, how: str) -> None:
    """Views that outlive the handler cannot be taken back: who keeps too many is not read from,
    then lost; the others are served, by half of the ring."""
    views: list[memoryview] = []
    errors: list[Any] = []

    def on_data(conn: netpoll.Connection) -> None:
        if bytes(conn.peek_lease(1)) != b"A":
            conn.forward()
            return
        lease = conn.lease()
        views.extend([memoryview(lease)] if how == "whole" else lease.pieces())
        conn.write(b"k")

    server = serving(
        on_data,
        on_close=lambda conn, error: errors.append(error),
        limits=netpoll.ServerLimits(retained_max_bytes=16384),
        config=SMALL_RING,
    )
    hoarder, other = serving.connect(), serving.connect()
    kept_bytes = 0
    while kept_bytes <= 16384:
        hoarder.sendall(b"A" * 2000)
        assert hoarder.recv(1) == b"k"
        kept_bytes += 2000
        other.send(b"hello")
        assert read_exactly(other, 5) == b"hello"
    hoarder.sendall(b"A" * 2000)
    hoarder.settimeout(0.1)
    with pytest.raises(TimeoutError):
        hoarder.recv(1)
    stats = server.stats()
    assert stats["copied_bytes"] > 0, "beyond half of the ring they are copied"
    assert all(bytes(view).strip(b"A") == b"" for view in views)
    while views:  # and it is read from again
        views.pop().release()
    hoarder.settimeout(10)
    assert hoarder.recv(1) == b"k"
    views.clear()
    assert not errors


def test_memoryviews_of_more_than_twice_the_limit_lose_the_connection(serving: Serving) -> None:
    views: list[memoryview] = []
    errors: list[Any] = []

    def on_data(conn: netpoll.Connection) -> None:
        if conn.available == 4000:
            views.append(memoryview(conn.lease()))

    server = serving(
        on_data,
        on_close=lambda conn, error: errors.append(error),
        limits=netpoll.ServerLimits(retained_max_bytes=1000),
    )
    hoarder, other = serving.connect(), serving.connect()
    hoarder.sendall(b"A" * 4000)
    assert hoarder.recv(1) == b""
    assert isinstance(errors[0], BufferError)
    assert "memoryviews" in str(errors[0])
    assert views[0] == b"A" * 4000
    other.close()
    wait_for(lambda: server.stats()["connections"] == 0)
    views.clear()


def test_views_of_a_connection_that_is_over_go_without_it(serving: Serving) -> None:
    views: list[memoryview] = []

    def on_data(conn: netpoll.Connection) -> None:
        views.append(memoryview(conn.lease()))
        conn.close()

    server = serving(on_data, config=SMALL_RING)
    for i in range(20):
        client = serving.connect()
        client.send(b"%d" % i * 500)
        assert client.recv(1) == b""
    wait_for(lambda: server.stats()["connections"] == 0)
    assert [bytes(view[:1]) for view in views[:10]] == [b"%d" % i for i in range(10)]
    assert server.stats()["copied_bytes"] > 0
    views.clear()
