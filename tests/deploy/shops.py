"""The shop of `deploy`, running, for the tests."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import netpoll
from tests.server.conftest import wait_for
from tests.support import SLOWNESS

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SOURCE = str(Path(netpoll.__file__).parents[1])
TIMEOUT_S = 30 * SLOWNESS


def program(name: str) -> str:
    """Where a program of Debian's is; the test is skipped where it is not installed."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Shop:
    """`python deploy/shop.py`: its process and its two ports."""

    def __init__(self, backend: str, *before: str) -> None:
        pytest.importorskip("prometheus_client", reason="needs pip install netpoll[prometheus]")
        command = [*before, sys.executable, str(DEPLOY / "shop.py"), "--host", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--pages-port", "0"],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": SOURCE, "NETPOLL_BACKEND": backend},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("listening on ports "), line
        self.port, self.pages_port = int(line.split()[3]), int(line.split()[5])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT_S)


@contextlib.contextmanager
def shop(backend: str = "auto", *before: str) -> Iterator[Shop]:
    running = Shop(backend, *before)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()
        assert running.process.stdout is not None
        running.process.stdout.close()


def ask(port: int, path: str = "/") -> tuple[int, str]:
    """(status, body), on a connection of its own."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    with contextlib.closing(client):
        client.request("GET", path)
        answer = client.getresponse()
        return answer.status, answer.read().decode()


def is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@contextlib.contextmanager
def running(command: list[str], port: int, said: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that listens on this port."""
    with said.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:

        def listens() -> bool:
            assert process.poll() is None, said.read_text()
            return is_listening(port)

        wait_for(listens, 30)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(2 * TIMEOUT_S)  # longer than any grace
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"it did not stop: {said.read_text()}")
