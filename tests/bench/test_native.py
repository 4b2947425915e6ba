"""The load generator judges servers rightly, and the floors are servers that pass."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from netpoll.bench import _native

from ..support import SLOWNESS
from .conftest import FLOORS, exactly, floor, listener, scripted

SIZE = 64
Serve = Callable[[int, int], None]


def echo(client: socket.socket) -> None:
    while data := client.recv(65536):
        client.sendall(data)


# ---- an honest server -----------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [1, 64, 4096, 4097, 65536, 1 << 20, (1 << 20) + 1])
def test_an_honest_server_passes(size_bytes: int) -> None:
    with scripted(echo, 3) as address, _native.Load(address, 3, size_bytes) as load:
        result = load.run(0.05)
    assert result["requests_all"] >= result["requests"]
    assert result["requests_all"] >= 3
    assert result["checked_bytes"] >= 3 * min(size_bytes, 64)
    assert sum(count for _, count in result["histogram"]) == result["requests_all"]
    assert result["elapsed_ns"] >= result["window_ns"] == 50_000_000
    largest_ns = result["histogram"][-1][0]
    assert result["latency_max_ns"] <= largest_ns <= result["latency_max_ns"] * 1.01 + 1


def test_no_time_is_one_request_per_connection() -> None:
    with scripted(echo, 5) as address, _native.Load(address, 5, SIZE) as load:
        for _ in range(3):
            assert load.run(0)["requests_all"] == 5


def test_a_server_may_answer_in_pieces() -> None:
    def trickle(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := exactly(client, SIZE):
            for byte in data:
                client.sendall(bytes([byte]))

    with scripted(trickle) as address, _native.Load(address, 1, SIZE) as load:
        assert load.run(0.05)["requests_all"] >= 1


def test_a_unix_socket_is_an_address(tmp_path: Path) -> None:
    path = str(tmp_path / "echo")
    with floor(_native.floor_epoll, path), _native.Load(path, 8, SIZE) as load:
        assert load.run(0.02)["requests_all"] >= 8


def test_between_windows_nothing_is_in_flight() -> None:
    seen = []

    def counting(client: socket.socket) -> None:
        while data := exactly(client, SIZE):
            seen.append(len(data))
            client.sendall(data)

    with scripted(counting) as address, _native.Load(address, 1, SIZE) as load:
        first = load.run(0.03)["requests_all"]
        assert len(seen) == first
        second = load.run(0.03)["requests_all"]
        assert len(seen) == first + second


# ---- servers that lie -----------------------------------------------------------------------


def wrong_byte(client: socket.socket) -> None:
    while data := exactly(client, SIZE):
        client.sendall(data[:-1] + bytes([data[-1] ^ 1]))


def canned(client: socket.socket) -> None:
    """Answers every question with the first one."""
    answer = exactly(client, SIZE)
    client.sendall(answer)
    while exactly(client, SIZE):
        client.sendall(answer)


def too_much(client: socket.socket) -> None:
    while data := exactly(client, SIZE):
        client.sendall(data + b"!")


def too_early(client: socket.socket) -> None:
    client.sendall(bytes(SIZE))
    exactly(client, 1 << 20)


def half_then_close(client: socket.socket) -> None:
    client.sendall(exactly(client, SIZE)[: SIZE // 2])


def half_then_silence(client: socket.socket) -> None:
    client.sendall(exactly(client, SIZE)[: SIZE // 2])
    client.recv(1)


def reset(client: socket.socket) -> None:
    exactly(client, SIZE)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        (wrong_byte, "other bytes"),
        (canned, "other bytes"),
        (too_much, "more bytes|other bytes"),
        (too_early, "more bytes|other bytes"),
        (half_then_close, "closed a connection"),
        (half_then_silence, "stopped answering"),
        (reset, "broke|closed"),
    ],
)
def test_a_lying_server_is_found_out(
    server: Callable[[socket.socket], None], sentence: str
) -> None:
    with scripted(server) as address, _native.Load(address, 1, SIZE, stall_s=0.2) as load:
        with pytest.raises(_native.LoadError, match=sentence):
            load.run(0.5)
        with pytest.raises(_native.LoadError):
            load.run(0.01)  # a load that met a fault is over


def test_one_liar_among_many_is_found_out() -> None:
    turn = iter([echo, wrong_byte, echo])

    def mixed(client: socket.socket) -> None:
        next(turn)(client)

    with scripted(mixed, 3) as address, _native.Load(address, 3, SIZE) as load:
        with pytest.raises(_native.LoadError, match="other bytes"):
            load.run(2)


def test_a_wrong_byte_in_a_large_answer_is_found_out() -> None:
    """Only a part of large answers is compared, but over some requests all of it."""
    size = 256 * 1024

    def wrong_in_the_middle(client: socket.socket) -> None:
        while data := exactly(client, size):
            middle = size // 2 + 1000
            client.sendall(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])

    with scripted(wrong_in_the_middle) as address, _native.Load(address, 1, size) as load:
        with pytest.raises(_native.LoadError, match="other bytes"):
            load.run(2)


def test_one_silent_connection_is_found_out_at_the_end() -> None:
    turn = iter([echo, lambda client: exactly(client, 1 << 30)])

    def mixed(client: socket.socket) -> None:
        next(turn)(client)

    with scripted(mixed, 2) as address, _native.Load(address, 2, SIZE, stall_s=0.2) as load:
        with pytest.raises(_native.LoadError, match="stopped answering"):
            load.run(0.1)


# ---- how it starts and stops ----------------------------------------------------------------


def test_nobody_listens() -> None:
    with listener() as sock:
        address = sock.getsockname()
    with pytest.raises(_native.LoadError, match=r"cannot connect.*refused"):
        _native.Load(address, 1, SIZE)


def test_a_full_backlog_does_not_hang() -> None:
    sock = socket.create_server(("127.0.0.1", 0), backlog=0)
    start = time.monotonic()
    with sock, pytest.raises(_native.LoadError, match="cannot connect"):
        _native.Load(sock.getsockname(), 50, SIZE, stall_s=0.2)
    assert time.monotonic() - start < 5 * SLOWNESS


def test_stop_fd_ends_a_run() -> None:
    reader, writer = os.pipe()
    with scripted(echo) as address:
        with _native.Load(address, 1, SIZE, stop_fd=reader) as load:
            timer = threading.Timer(0.05, os.write, (writer, b"x"))
            timer.start()
            start = time.monotonic()
            with pytest.raises(_native.LoadStopped):
                load.run(60)
            assert time.monotonic() - start < 5 * SLOWNESS
            timer.join()
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(("connections", "size_bytes"), [(0, 1), (1, 0), (1, 1 << 30), (10**6, 1)])
def test_impossible_loads_are_refused(connections: int, size_bytes: int) -> None:
    with pytest.raises(ValueError, match="cannot load"):
        _native.Load(("127.0.0.1", 1), connections, size_bytes)


@pytest.mark.parametrize("address", [("localhost", 1), "", "x" * 200])
def test_unusable_addresses_are_refused(address: object) -> None:
    with pytest.raises(ValueError):
        _native.Load(address, 1, 1)


def test_a_closed_load_says_so() -> None:
    with scripted(echo) as address:
        load = _native.Load(address, 1, SIZE)
        load.close()
        load.close()
        with pytest.raises(ValueError, match="closed"):
            load.run(0)


def test_histogram_buckets_are_narrow() -> None:
    for latency_ns in (0, 1, 255, 256, 257, 1000, 4095, 4096, 123_456, 10**9, 10**12):
        top_ns = _native.bucket_top_ns(latency_ns)
        assert latency_ns <= top_ns <= latency_ns * 1.008
    tops = [_native.bucket_top_ns(ns) for ns in range(5000)]
    assert tops == sorted(tops)
    assert _native.bucket_top_ns(10**18) == _native.bucket_top_ns(10**17)  # the last bucket


# ---- the floors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connections", "size_bytes"), [(1, 64), (64, 64), (512, 64), (16, 65536), (4, 1 << 20)]
)
def test_floors_echo(floor_serve: Serve, connections: int, size_bytes: int) -> None:
    with floor(floor_serve) as address, _native.Load(address, connections, size_bytes) as load:
        assert load.run(0.1)["requests_all"] >= connections


def test_floors_keep_what_the_peer_does_not_take_yet(floor_serve: Serve) -> None:
    """512 connections that do not read: partial writes everywhere, then all of it comes back."""
    size = 1 << 20
    with floor(floor_serve) as address, _native.Load(address, 64, size) as load:
        assert load.run(0.05)["requests_all"] >= 64
    with floor(floor_serve) as address, socket.create_connection(address) as client:
        data = os.urandom(8 << 20)
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        time.sleep(0.1)  # nobody reads: both directions fill up
        received = exactly(client, len(data))
        sender.join()
        assert received == data


def test_floors_outlive_their_clients(floor_serve: Serve) -> None:
    with floor(floor_serve) as address:
        for _ in range(50):
            client = socket.create_connection(address)
            client.sendall(b"x" * 1000)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()  # a reset, maybe in the middle of the answer
        big = socket.create_connection(address)
        big.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                big.send(b"y" * 65536)
        big.close()  # with megabytes unread
        with socket.create_connection(address) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert exactly(client, 100) == b"hello"
        with _native.Load(address, 8, SIZE) as load:
            assert load.run(0)["requests_all"] == 8


@pytest.mark.skipif("uring" not in FLOORS, reason="io_uring is refused here")
@pytest.mark.parametrize(
    "config",
    [
        {"buf_count": 1, "buf_bytes": 4096},
        {"buf_count": 2, "buf_bytes": 64, "whole_buffers": True},
        {"whole_buffers": True},
    ],
)
def test_the_uring_floor_lives_on_few_buffers(config: dict) -> None:
    """It runs out of buffers all the time, and loses nothing."""
    with floor(partial(_native.floor_uring, **config)) as address:
        for connections, size_bytes in ((100, 64), (4, 65536)):
            with _native.Load(address, connections, size_bytes) as load:
                assert load.run(0.05)["requests_all"] >= connections


def test_a_floor_reports_what_it_cannot_do(floor_serve: Serve) -> None:
    stop_reader, stop_writer = os.pipe()
    reader, writer = os.pipe()
    os.write(writer, b"x")
    with pytest.raises(OSError, match=r"[Ss]ocket"):
        floor_serve(reader, stop_reader)  # ready, but nobody can be accepted on it
    for fd in (stop_reader, stop_writer, reader, writer):
        os.close(fd)


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    child = (
        "import signal, sys, time; from netpoll.bench import _native;"
        "_native.die_with_parent(signal.SIGKILL); print('up', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys;"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE);"
        "p.stdout.readline(); print(p.pid, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        child_pid = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10 * SLOWNESS
        while time.monotonic() < deadline and _is_running(child_pid):
            time.sleep(0.01)
        assert not _is_running(child_pid)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
