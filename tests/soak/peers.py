"""Processes that a soak talks to, and ends with SIGKILL at any moment.

    python -m tests.soak.peers BACKEND CERTIFICATE

is one of them: it echoes, plain and over TLS, and prints its two ports.
"""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import netpoll

from ..http.soak_server import AsgiApplication

ROOT = Path(__file__).resolve().parents[2]

# What `netpoll serve` serves: answers by the path, see soak_server.py.
application = AsgiApplication(Path())


class Peer:
    """The echo of a process of its own; another one takes its place when it was killed."""

    def __init__(self, backend: str, certificate: Path) -> None:
        self.command = [sys.executable, "-m", "tests.soak.peers", backend, str(certificate)]
        self.kills_count = 0
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdout is not None
        self.plain, self.tls = json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.kills_count += 1
        self.end()
        self.start()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Fleet:
    """`netpoll serve` with two workers, of which one is killed from time to time."""

    def __init__(self, backend: str) -> None:
        self.kills_count = 0
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1000)
            self.port = listener.getsockname()[1]
            fd = listener.fileno()
            command = ["serve", "tests.soak.peers:application", "--fd", str(fd)]
            command += ["--workers", "2", "--lifespan", "off", "--backend", backend]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "netpoll", *command],
                pass_fds=[fd],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
            )
        assert self.process.stdout is not None
        self.process.stdout.readline()  # it listens: all workers are ready

    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill(self) -> None:
        workers = self.workers()
        if len(workers) < 2:
            return  # the last one's place is not taken yet
        self.kills_count += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(workers[0], signal.SIGKILL)

    def end(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()


def main() -> None:
    backend, certificate = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    options: dict[str, Any] = {"backend": backend}

    def echo(conn: netpoll.Connection) -> None:
        conn.forward()

    with (
        netpoll.Server(echo, "127.0.0.1", 0, **options) as plain,
        netpoll.Server(echo, "127.0.0.1", 0, ssl=context, **options) as tls,
    ):
        print(json.dumps([plain.port, tls.port]), flush=True)
        parent = os.getppid()
        while os.getppid() == parent:  # it does not outlive its soak
            time.sleep(1)


if __name__ == "__main__":
    main()
