"""Runs the programs of a page and talks to them, as somebody does who has just installed netpoll.

    python tests/readme.py README.md

Needs nothing but Python and netpoll. A page's programs are its blocks of Python. One that listens
on a port gets a free one instead, is asked something, and is stopped.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

FENCED = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PORT = re.compile(r"\b(?:8000|8888)\b")
PATIENCE_S = 30.0


def blocks(page: Path) -> list[str]:
    """The blocks of Python of a page of Markdown."""
    return FENCED.findall(page.read_text())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def connect(port: int) -> socket.socket:
    """Once the port is listened on."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        if time.monotonic() > until_s:
            raise TimeoutError(f"nobody listens on port {port}")
        time.sleep(0.02)


@contextlib.contextmanager
def serving(code: str) -> Iterator[int]:
    """A program that serves until it is told to stop; its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program.py")
        program.write_text(PORT.sub(str(port), code))
        with running([sys.executable, str(program)], port):
            yield port


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A command that listens on this port until it is told to stop."""
    process = subprocess.Popen(command)
    try:
        connect(port).close()
        yield
        assert process.poll() is None, "the program has ended"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()


def exchange(port: int, sent: bytes) -> bytes:
    """Everything that is answered until the other side ends; ours ends with what was sent."""
    with connect(port) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def talk(code: str) -> None:
    """Runs a program and asks it what it is for."""
    with serving(code) as port:
        ask(code, port)


def ask(code: str, port: int) -> None:
    """HTTP where a program has that, else an echo."""
    if "http" in code:
        answer = exchange(port, b"GET /you HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), answer
        assert b"/you" in body, answer
    else:
        sent = b"one line\n" * 1000
        assert exchange(port, sent) == sent


def main() -> None:
    (page,) = sys.argv[1:]
    programs = blocks(Path(page))
    assert len(programs) == 3, "a loop, a server, HTTP"
    for code in programs:
        began_s = time.monotonic()
        talk(code)
        spent_ms = (time.monotonic() - began_s) * 1000
        backend = os.environ.get("NETPOLL_BACKEND", "auto")
        print(f"{code.count(chr(10))} lines on {backend}: {spent_ms:.0f} ms", flush=True)


if __name__ == "__main__":
    main()
