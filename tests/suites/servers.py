"""Servers that suites need: started for one run, on free ports, ended by process id.

Each gives the names that projects.toml may use in braces: {postgres_host}, {redis_port}, ...
"""

import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .environment import NotToBeHad

START_TIMEOUT_S = 60.0


@contextlib.contextmanager
def started(names: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """All of them, for as long as the block lasts; what suites may want to know about them."""
    found: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            found |= stack.enter_context(_SERVERS[name]())
        yield found


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _newest(pattern: str) -> str | None:
    found = sorted(glob.glob(pattern), key=lambda path: float(path.split("/")[4]))
    return found[-1] if found else shutil.which(Path(pattern).name)


@contextlib.contextmanager
def _program(command: list[str], folder: Path, end: int = signal.SIGTERM) -> Iterator[int]:
    """Its process id; the whole group is ended afterwards."""
    with open(folder / "log", "wb") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield child.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, end)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _wait_for_port(port: int, folder: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    log = (folder / "log").read_text(errors="replace")[-500:]
    raise NotToBeHad(f"a server did not start: {log}")


@contextlib.contextmanager
def _folder(owner: str | None = None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="np-server-"))
    if owner is not None:
        shutil.chown(folder, owner, owner)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _postgresql() -> Iterator[dict[str, str]]:
    """A cluster of its own. PostgreSQL does not run as root."""
    initdb = _newest("/usr/lib/postgresql/*/bin/initdb")
    server = _newest("/usr/lib/postgresql/*/bin/postgres")
    if initdb is None or server is None:
        raise NotToBeHad("PostgreSQL is not installed (Debian's package postgresql)")
    root = os.getuid() == 0
    prefix = ["runuser", "-u", "postgres", "--"] if root else []
    user = "postgres" if root else pwd.getpwuid(os.getuid()).pw_name
    with _folder("postgres" if root else None) as folder:
        data = folder / "data"
        command = [*prefix, initdb, "-D", str(data), "-U", user, "-A", "trust", "--no-sync"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise NotToBeHad(f"initdb: {done.stderr[-300:]}")
        port = _free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": folder,
            "fsync": "off",
            "max_connections": 100,
            "max_prepared_transactions": 20,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with _program([*prefix, server, "-D", str(data), *options], folder, signal.SIGINT):
            _wait_for_port(port, folder)
            yield {
                "postgres_host": "127.0.0.1",
                "postgres_port": str(port),
                "postgres_user": user,
                "postgres_bin": str(Path(server).parent),
            }


@contextlib.contextmanager
def _redis() -> Iterator[dict[str, str]]:
    server = shutil.which("redis-server")
    if server is None:
        raise NotToBeHad("Redis is not installed (Debian's package redis-server)")
    port = _free_port()
    with _folder() as folder:
        command = [server, "--port", str(port), "--save", "", "--dir", str(folder)]
        with _program([*command, "--enable-debug-command", "yes"], folder):
            _wait_for_port(port, folder)
            yield {"redis_port": str(port)}


@contextlib.contextmanager
def _dbus() -> Iterator[dict[str, str]]:
    """A session bus around pytest, by dbus-run-session."""
    if shutil.which("dbus-run-session") is None:
        raise NotToBeHad("D-Bus is not installed (Debian's package dbus-daemon)")
    yield {"prefix": "dbus-run-session --"}


_SERVERS = {"postgresql": _postgresql, "redis": _redis, "dbus": _dbus}
