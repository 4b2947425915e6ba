"""The examples of the server run: started as a user would, talked to, stopped by a signal."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import netpoll
from tests.support import SLOWNESS, pattern

from .conftest import read_exactly

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "server"


@contextmanager
def example(name: str, backend: str, *args: str) -> Iterator[int]:
    """A running example; gives the port. It must end well when it is told to."""
    command = [sys.executable, str(EXAMPLES / name), *args, "--port", "0"]
    env = os.environ | {"NETPOLL_BACKEND": backend}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    with process:
        try:
            line = process.stdout.readline()
            assert line.startswith("listening on port "), line
            yield int(line.split()[-1])
            process.send_signal(signal.SIGTERM)
            assert process.wait(30 * SLOWNESS) == 0
        finally:
            process.kill()


def test_the_command(backend: str) -> None:
    command = [sys.executable, "-m", "netpoll", "serve", "echo:on_data", "--port", "0"]
    path = os.pathsep.join((str(EXAMPLES), str(Path(netpoll.__file__).parents[1])))
    process = subprocess.Popen(
        [*command, "--backend", backend],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    with process:
        try:
            port = int(process.stdout.readline().split()[-1])
            with connect(port) as client:
                client.sendall(b"hello")
                assert read_exactly(client, 5) == b"hello"
            process.send_signal(signal.SIGINT)
            assert process.wait(30 * SLOWNESS) == 0
        finally:
            process.kill()


def test_a_command_that_names_no_handler() -> None:
    command = [sys.executable, "-m", "netpoll", "serve"]
    for handler, code in (("no_such_module:f", 1), ("json:no_such_name", 1), ("json", 2)):
        done = subprocess.run([*command, handler], capture_output=True, text=True, timeout=60)
        assert done.returncode == code
        assert done.stderr.startswith("netpoll: ")


def connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.settimeout(20 * SLOWNESS)
    return client


def test_every_example_is_tested() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {"echo.py", "lines.py", "rpc.py", "proxy.py", "chat.py", "files.py"}


def test_echo(backend: str) -> None:
    with example("echo.py", backend, "--workers", "2") as port, connect(port) as client:
        client.sendall(b"hello")
        assert read_exactly(client, 5) == b"hello"


def test_lines(backend: str) -> None:
    with example("lines.py", backend) as port, connect(port) as client:
        client.sendall(b"set a 1\nget a\nget b\nfly\nquit\n")
        assert read_exactly(client, 100) == b"ok\n1\nnothing\nerror: what?\nbye\n"


def test_rpc(backend: str) -> None:
    def call(client: socket.socket, method: str, *params: object) -> dict:
        body = json.dumps({"method": method, "params": params}).encode()
        client.sendall(struct.pack(">I", len(body)) + body[:3])
        client.sendall(body[3:])
        (size,) = struct.unpack(">I", read_exactly(client, 4))
        return json.loads(read_exactly(client, size))

    with example("rpc.py", backend) as port, connect(port) as client:
        assert call(client, "add", 1, 2) == {"result": 3}
        assert call(client, "upper", "x" * 5000) == {"result": "X" * 5000}
        assert "KeyError" in call(client, "fly")["error"]


def test_proxy(backend: str) -> None:
    data = pattern(8 << 20)
    with (
        example("echo.py", backend) as upstream,
        example("proxy.py", backend, "127.0.0.1", str(upstream)) as port,
        connect(port) as client,
    ):
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        assert read_exactly(client, len(data)) == data
        sender.join()


def test_chat_with_a_thousand(backend: str) -> None:
    count = 200 if SLOWNESS > 1 else 1000
    with example("chat.py", backend) as port, ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for _ in range(count)]
        for client in clients:
            assert read_exactly(client, 8) == b"welcome\n"
        clients[0].sendall(b"hello everybody\n")
        for client in clients:
            assert read_exactly(client, 16) == b"hello everybody\n"


def test_files(backend: str, tmp_path: Path) -> None:
    content = pattern(1 << 20)
    (tmp_path / "data.bin").write_bytes(content)
    (tmp_path / "index.html").write_text("<h1>hello</h1>")
    with example("files.py", backend, str(tmp_path)) as port, connect(port) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = b"Content-Length: 14\r\nContent-Type: text/html\r\n\r\n<h1>hello</h1>"
        assert read_exactly(client, 17 + len(head)) == b"HTTP/1.1 200 OK\r\n" + head
        client.sendall(
            b"GET /../../etc/passwd HTTP/1.1\r\n\r\n"
            b"GET /data.bin HTTP/1.1\r\nConnection: close\r\n\r\n"
        )
        answer = read_exactly(client, 2 << 20)
        assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert answer.endswith(b"\r\n\r\n" + content)
