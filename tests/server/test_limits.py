"""What the system does not give: descriptors, locked memory, huge pages. Each in a child."""

import asyncio
import itertools
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import netpoll
from tests.support import SLOWNESS

from .conftest import Serving, wait_for

HEAD = f"""
import errno, os, resource, socket, sys, time
sys.path[:0] = {[str(Path(netpoll.__file__).parents[1])]!r}
import encodings.idna  # getaddrinfo wants it, and later nobody may read it
import netpoll

def until(condition):
    deadline_s = time.monotonic() + {50 * SLOWNESS}
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.005)
"""

CROWD = """
count = 10_000
limit = count + 200
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
except (ValueError, OSError) as error:
    sys.exit(f"refused: {error}")
listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
address = listener.getsockname()

def crowd():
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.setblocking(False)
        assert client.connect_ex(address) in (0, errno.EINPROGRESS)
        clients.append(client)
    for client in clients:
        client.settimeout(50)
        while True:  # it is not connected yet
            try:
                client.sendall(b"x")
                break
            except OSError as error:
                if error.errno not in (errno.ENOTCONN, errno.EAGAIN, errno.EPIPE):
                    raise
                time.sleep(0.01)
    for client in clients:
        assert client.recv(1) == b"x"
    linger = b"\\1\\0\\0\\0\\0\\0\\0\\0"  # no TIME_WAIT: the ports are wanted again
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.close()

pid = os.fork()
if pid == 0:
    listener.close()
    try:
        crowd()
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)
with netpoll.Server(lambda conn: conn.forward(), sockets=[listener], backend=sys.argv[1]) as server:
    assert os.waitpid(pid, 0)[1] == 0
    until(lambda: server.stats()["connections"] == 0)
    stats = server.stats()
    assert stats["accepted"] == count and stats["flows"] == 0, stats
print("done")
"""

LOCKED = """
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
if os.geteuid() == 0:  # root's limit is none
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

def on_data(conn):
    conn.skip()
    buffer = conn.reserve(5000)
    buffer.write(b"answer")
    conn.write(buffer)

with netpoll.Server(on_data, "127.0.0.1", 0, backend=sys.argv[1]) as server:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"x")
        assert client.recv(6) == b"answer"
    print(server.stats()["backend"], server._pool.stats()["not_registered"])
"""


def child(script: str, *args: str) -> str:
    command = [sys.executable, "-c", HEAD + script, *args]
    result = subprocess.run(command, capture_output=True, text=True, timeout=55 * SLOWNESS)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_ten_thousand_connects_at_once(backend: str) -> None:
    try:
        assert child(CROWD, backend) == "done\n"
    except AssertionError as error:
        if "refused:" in str(error):
            pytest.skip("this user may not open 10 200 descriptors")
        raise


@pytest.mark.parametrize("limit_bytes", [0, 64 << 10, 8 << 20])
def test_little_locked_memory(limit_bytes: int) -> None:
    """Whatever the limit: it serves, without a ring where none can be made."""
    try:
        text = child(LOCKED, "auto", str(limit_bytes))
    except AssertionError as error:
        if "PermissionError" in str(error) or "ModuleNotFoundError" in str(error):
            pytest.skip("an unprivileged user cannot read the package here")
        raise
    assert text.startswith(("uring", "epoll"))
    if text.startswith("uring"):
        assert "MEMLOCK" in text, "16 MiB cannot be registered, and it has to say so"


def test_no_huge_pages(serving: Serving) -> None:
    """None are reserved here: "auto" takes others, "require" is a sentence for the handler."""
    if int(Path("/proc/sys/vm/nr_hugepages").read_text()):
        pytest.skip("huge pages are reserved on this machine")
    seen: list[object] = []

    def on_data(conn: netpoll.Connection) -> None:
        conn.skip()
        try:
            conn.write(conn.reserve(10))
            seen.append(None)
        except OSError as error:
            seen.append(error)

    for hugepages in ("auto", "require"):
        serving(on_data, buffers=netpoll.BufferConfig(hugepages=hugepages))
        serving.connect().sendall(b"x")
        wait_for(lambda: len(seen) == 1 + (hugepages == "require"))
    assert seen[0] is None
    assert "vm.nr_hugepages" in str(seen[1])


def test_connections_are_dealt_evenly(serving: Serving) -> None:
    server = serving(lambda conn: conn.forward(), workers=4)
    for _ in range(64):
        serving.connect()
    wait_for(lambda: server.stats()["connections"] == 64)
    assert [worker["connections"] for worker in server.stats()["workers"]] == [16] * 4


def test_adopted_connections_are_counted_by_every_worker(serving: Serving) -> None:
    """Each count has one writer: without a GIL some were lost, and a worker that seemed to have
    fewer than none got nobody any more (bug class 15)."""
    may_go_on = [True]
    numbers = itertools.count()

    async def session(conn: netpoll.Connection) -> None:
        is_adopting = next(numbers) < 2
        while is_adopting and may_go_on[0]:
            for _ in range(5):
                ours, other = socket.socketpair()
                conn.adopt(ours).close()
                other.close()
            await asyncio.sleep(0)
        await conn.fill()

    server = serving(session, workers=2)
    first = [serving.connect() for _ in range(2)]
    deadline_s = time.monotonic() + 0.5
    while time.monotonic() < deadline_s:
        serving.connect().close()
        serving.clients.pop()
    may_go_on[0] = False
    wait_for(lambda: server.stats()["connections"] == len(first), 30)
    for _ in range(20):
        serving.connect()
    wait_for(lambda: server.stats()["connections"] == 22)
    assert all(abs(worker["connections"] - 11) <= 2 for worker in server.stats()["workers"])
