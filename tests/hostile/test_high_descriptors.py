"""Descriptors with high numbers: near a million, and above the 1023 that select(2) knows.

Where a hard limit may not be raised, the highest numbers below it.
"""

import os
import signal
from pathlib import Path

from tests.http.serving import SOURCE, children, serving
from tests.server.conftest import wait_for

from .machines import output

HIGHEST = 1_000_000

NEAR_A_MILLION = """
import asyncio, fcntl, resource, socket
import netpoll

TOP = {highest}
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (TOP + 1000, TOP + 1000))
except (ValueError, OSError):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    TOP = hard - 1000
numbers = iter(range(TOP, TOP + 1000))

def raised(sock):
    \"\"\"The same socket, with a number near a million.\"\"\"
    number = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, next(numbers))
    sock.close()
    moved = socket.socket(fileno=number)
    moved.setblocking(False)
    return moved
"""


def near_a_million(backend: str, code: str) -> str:
    return output(backend, code, before=NEAR_A_MILLION.format(highest=HIGHEST))


def test_a_loop_with_high_numbers(backend: str) -> None:
    """Everything that is kept by descriptor: watchers, transports, hints, operations."""
    code = """
    async def main():
        loop = asyncio.get_running_loop()
        left, right = map(raised, socket.socketpair())
        readable = loop.create_future()
        loop.add_reader(left, lambda: readable.done() or readable.set_result(left.recv(10)))
        await loop.sock_sendall(right, b"watched")
        print(await readable)
        loop.remove_reader(left)
        await loop.sock_sendall(right, b"received")
        print(await loop.sock_recv(left, 10))
        right.close()

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
            def data_received(self, data):
                self.transport.write(data)

        listener = raised(socket.create_server(("127.0.0.1", 0)))
        server = await loop.create_server(Echo, sock=listener)
        client = raised(socket.create_connection(listener.getsockname()))
        reader, writer = await asyncio.open_connection(sock=client)
        assert writer.get_extra_info("socket").fileno() >= TOP
        for size in (5, 300_000):
            writer.write(b"e" * size)
            assert await reader.readexactly(size) == b"e" * size
        writer.close()
        server.close()

        datagrams = raised(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind(("127.0.0.1", 0))
        got = loop.create_future()
        class Datagrams(asyncio.DatagramProtocol):
            def datagram_received(self, data, address):
                got.set_result(data)
        transport, _ = await loop.create_datagram_endpoint(Datagrams, sock=datagrams)
        transport.sendto(b"datagram", datagrams.getsockname())
        print(await got)
        transport.close()

    netpoll.run(main(), backend=BACKEND)
    """
    assert near_a_million(backend, code) == "b'watched'\nb'received'\nb'datagram'\n"


def test_a_server_with_high_numbers(backend: str) -> None:
    """Its listener, and what it accepts when the low numbers are taken."""
    code = """
    listener = raised(socket.create_server(("127.0.0.1", 0)))
    address = listener.getsockname()

    def upper(conn):
        conn.write(bytes(conn.take()).upper())

    with netpoll.Server(upper, sockets=[listener], backend=BACKEND):
        client = socket.create_connection(address)
        client.sendall(b"line")
        print(client.recv(10))
        client.close()
    """
    assert near_a_million(backend, code) == "b'LINE'\n"


def test_serve_with_the_low_numbers_taken(tmp_path: Path, backend: str) -> None:
    """A supervisor and its workers, started by who left them more than a thousand descriptors."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\ntaken = [os.dup(0)]\nwhile taken[-1] < 1100:\n    taken.append(os.dup(0))\n"
    )
    env = {"PYTHONPATH": f"{tmp_path}:{SOURCE}"}
    with serving(tmp_path, backend, "app:wsgi", "--workers", "2", env=env) as running:
        before = running.pids(2)
        numbers = {int(name) for name in os.listdir(f"/proc/{min(before)}/fd")}
        assert set(range(1100)) - numbers == set()
        running.send(signal.SIGHUP)
        wait_for(lambda: len(children(running)) == 2 and not children(running) & before, 30)
        running.pids(2)
        assert running.ended() == 0
        assert "Traceback" not in running.errors.read_text()


def test_signals_of_a_program_with_many_descriptors(backend: str) -> None:
    code = """
    import asyncio, os, signal
    import netpoll

    taken = [os.dup(0)]
    while taken[-1] < 1100:
        taken.append(os.dup(0))

    async def main():
        loop = asyncio.get_running_loop()
        heard = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, heard.set_result, "heard")
        os.kill(os.getpid(), signal.SIGUSR1)
        print(await heard)
        child = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
        print(await child.wait())

    netpoll.run(main(), backend=BACKEND)
    """
    assert output(backend, code) == "heard\n3\n"
