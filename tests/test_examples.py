"""The examples run: each is started as a user would, talked to, and stopped by a signal."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import netpoll
from netpoll.probe import choose_backend

from .support import TEST_TIMEOUT_S

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@contextmanager
def example(name: str, backend: str, *args: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A running example and where it listens: "host:port" or a path."""
    try:
        choose_backend(backend)
    except netpoll.BackendUnavailableError as exc:
        pytest.skip(str(exc))
    command = [sys.executable, str(EXAMPLES / name), "--backend", backend]
    command += args or ("--port", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.rstrip().endswith(f"with {backend}"), line
            yield line.split(" on ")[1].split(" with ")[0], process
        finally:
            process.kill()


def connect(where: str) -> socket.socket:
    host, port = where.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=TEST_TIMEOUT_S)


def talk(sock: socket.socket, sent: bytes) -> bytes:
    """Sends, ends its side, and reads to the end."""
    with sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def read_line(file) -> bytes:
    line = file.readline()
    assert line.endswith(b"\n"), line
    return line.rstrip()


def assert_ends(process: subprocess.Popen[str], number: int) -> str:
    process.send_signal(number)
    out, _ = process.communicate(timeout=TEST_TIMEOUT_S)
    assert process.returncode == 0
    return out


def test_every_example_is_tested() -> None:
    """Those of servers have a folder and tests of their own."""
    tested = {"echo_protocol.py", "echo_streams.py", "chat.py", "line_server.py"}
    elsewhere = {"scheduler.py"}  # tests/sched/test_example.py
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested | elsewhere


def test_echo(backend: str) -> None:
    for name in ("echo_protocol.py", "echo_streams.py"):
        with example(name, backend) as (where, process):
            data = bytes(range(256)) * 1000
            assert talk(connect(where), data) == data
            with connect(where):  # a client that stays does not keep the server from ending
                assert "stopped" in assert_ends(process, signal.SIGINT)


def test_chat(backend: str) -> None:
    with example("chat.py", backend) as (where, process):
        with connect(where) as ann, connect(where) as bob:
            a, b = ann.makefile("rb"), bob.makefile("rb")
            assert read_line(a) == read_line(b) == b"your name?"
            ann.sendall(b"ann\n")
            assert read_line(a) == b"* here: ann"
            bob.sendall(b"bob\n")
            assert read_line(b) == b"* here: ann, bob"
            assert read_line(a) == b"* bob came in"
            bob.sendall(b"hello\n")
            assert read_line(a) == b"<bob> hello"
            bob.shutdown(socket.SHUT_WR)
            assert read_line(a) == b"* bob left"
            assert "stopped" in assert_ends(process, signal.SIGINT)


def test_line_server(backend: str) -> None:
    with example("line_server.py", backend) as (where, process):
        sent = b"SET a 1 2\nGET a\nGET b\nDEL a\nDEL a\nSTATS\nFLY\nSET\n"
        lines = talk(connect(where), sent).decode().splitlines()
        assert lines[:5] == ["+", "1 2", "-", "+", "-"]
        assert lines[5].startswith("turns=")
        assert lines[6:] == ["! unknown verb 'FLY'", "! wrong number of arguments for SET"]
        assert "stopped with 0 values" in assert_ends(process, signal.SIGTERM)


def test_line_server_on_a_unix_socket(backend: str, tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    with example("line_server.py", backend, "--unix", path) as (where, process):
        assert where == path
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TEST_TIMEOUT_S)
        sock.connect(path)
        assert talk(sock, b"SET a 1\nGET a\n") == b"+\n1\n"
        assert "stopped with 1 values" in assert_ends(process, signal.SIGINT)
