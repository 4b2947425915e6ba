"""`netpoll serve` as a user starts it, for the tests: processes, requests and signals."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netpoll
from tests.server.conftest import wait_for
from tests.support import SLOWNESS

SOURCE = str(Path(netpoll.__file__).parents[1])

APP = """
    import os, time
    VERSION = 1

    def wsgi(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        if environ["PATH_INFO"] == "/slow":
            time.sleep(0.5)
        if environ["PATH_INFO"] == "/stuck":
            time.sleep(60)
        names = ("SCRIPT_NAME", "wsgi.multiprocess", "wsgi.url_scheme")
        seen = [os.getpid(), VERSION, os.environ.get("WORD", "")]
        return [" ".join(map(str, seen + [environ[name] for name in names])).encode()]

    async def asgi(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"asgi"})

    def raw(request):
        return b"raw"

    def stream(conn):
        conn.write(conn.take()[::-1])

    async def seen_by_asgi(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        seen = scope["client"][0] + " " + scope["scheme"]
        await send({"type": "http.response.body", "body": seen.encode()})

    def seen_by_wsgi(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [(environ["REMOTE_ADDR"] + " " + environ["wsgi.url_scheme"]).encode()]

    def make():
        return wsgi

    not_callable = 3

    async def hard(scope, receive, send):
        import re
        assert scope["type"] == "http"
        if scope["path"] == "/stuck":  # and no other thread of Python runs meanwhile
            re.match("(a+)+$", "a" * 40 + "b")
        if scope["path"] == "/grow":
            globals()["kept"] = b"x" * (300 << 20)
        if scope["path"] == "/die":
            os._exit(3)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
"""


class Running:
    """A `netpoll serve`, where it listens, and its standard error."""

    def __init__(self, folder: Path, backend: str, args: tuple[str, ...], **kwargs: Any) -> None:
        self.errors = folder / "stderr"
        program = kwargs.pop("program", (sys.executable, "-m", "netpoll", "serve"))
        command = [*program, *args, "--backend", backend]
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                env=os.environ | {"PYTHONPATH": SOURCE} | kwargs.pop("env", {}),
                **kwargs,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode().strip()
        assert line.startswith("listening on "), self.errors.read_text()
        self.where = line.removeprefix("listening on ")

    def connect(self) -> socket.socket:
        if not self.where.startswith("port "):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.where)
        else:
            sock = socket.create_connection(("127.0.0.1", int(self.where.split()[1])))
        sock.settimeout(20 * SLOWNESS)
        return sock

    def ask(self, path: str = "/") -> str:
        """On a connection of its own."""
        client = http.client.HTTPConnection("test")
        client.sock = self.connect()
        with contextlib.closing(client):
            client.request("GET", path)
            return client.getresponse().read().decode()

    def pid(self) -> int:
        return int(self.ask().split()[0])

    def pids(self, count: int) -> set[int]:
        """Of so many workers that answer."""
        found: set[int] = set()
        wait_for(lambda: found.add(self.pid()) or len(found) >= count)
        return found

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, number: int = signal.SIGTERM) -> int:
        self.send(number)
        try:
            return self.process.wait(30 * SLOWNESS)
        except subprocess.TimeoutExpired:
            left = children(self)
            for pid in left:
                os.kill(pid, signal.SIGUSR2)  # it says where it is
            time.sleep(1)
            raise AssertionError(f"workers {left} do not end: {self.errors.read_text()}") from None


@contextlib.contextmanager
def serving(
    folder: Path, backend: str, *args: str, source: str = APP, **kwargs: Any
) -> Iterator[Running]:
    """Its process group is ended, whatever happens."""
    if not (folder / "app.py").exists():
        (folder / "app.py").write_text(textwrap.dedent(source))
    args = args if {"--bind", "--uds", "--fd"}.intersection(args) else (*args, "--port", "0")
    running = None
    try:
        running = Running(folder, backend, args, start_new_session=True, **kwargs)
        yield running
    finally:
        if running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait()
            assert running.process.stdout is not None
            running.process.stdout.close()


def children(running: Running) -> set[int]:
    path = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    try:
        return set(map(int, path.read_text().split()))
    except OSError:
        return set()


def is_alive(pid: int) -> bool:
    """Not when only its end has still to be looked at: then it has no memory, and no arguments."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def complaint(folder: Path, *args: str, code: int = 1) -> str:
    """What the command says that cannot serve."""
    if not (folder / "app.py").exists():
        (folder / "app.py").write_text(textwrap.dedent(APP))
    done = subprocess.run(
        [sys.executable, "-m", "netpoll", "serve", *args, "--port", "0"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": SOURCE},
        timeout=60 * SLOWNESS,
    )
    assert done.returncode == code, done.stderr
    return done.stderr
