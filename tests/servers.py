"""PostgreSQL and Redis of the tests' own: on free ports of loopback, ended by process id.

For the integration tests (fixtures in tests/integration/conftest.py) and for other projects' suites
(tests/suites/servers.py).
"""

import contextlib
import dataclasses
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from .integration.programs import Program, free_port, running


class NotInstalledError(Exception):
    """The server is not there; the text says which package has it."""


@dataclasses.dataclass(frozen=True)
class Postgres:
    """A running cluster: the folder of its Unix socket, its TCP port, where its programs are."""

    folder: Path
    port: int
    user: str
    programs: Path


@dataclasses.dataclass(frozen=True)
class Redis:
    port: int
    path: Path  # its Unix socket


def _newest(pattern: str) -> str | None:
    found = sorted(glob.glob(pattern), key=lambda path: float(path.split("/")[4]))
    return found[-1] if found else shutil.which(Path(pattern).name)


def unprivileged() -> tuple[str, list[str]]:
    """PostgreSQL does not run as root: the user, and what to put in front of its commands."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name, []
    return "postgres", ["runuser", "-u", "postgres", "--"]


@contextlib.contextmanager
def _folder(prefix: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def postgres(
    user: str, files: Iterable[tuple[Path, str]] = (), **settings: object
) -> Iterator[Postgres]:
    """A cluster with the superuser `user`; files: (source, name) pairs that go into its folder,
    which settings name by "{folder}"."""
    initdb = _newest("/usr/lib/postgresql/*/bin/initdb")
    server = _newest("/usr/lib/postgresql/*/bin/postgres")
    if initdb is None or server is None:
        raise NotInstalledError("PostgreSQL is not installed (Debian's package postgresql)")
    owner, prefix = unprivileged()
    with _folder("netpoll-postgres-") as folder:
        data = folder / "data"
        data.mkdir()
        for source, name in files:
            shutil.copy(source, folder / name)
            (folder / name).chmod(0o600)
        if prefix:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, owner, owner)
        subprocess.run(
            [*prefix, initdb, "-D", str(data), "-U", user, "-A", "trust", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=folder,
        )
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": folder,
            "fsync": "off",
        } | {name: str(value).format(folder=folder) for name, value in settings.items()}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with running([*prefix, server, "-D", str(data), *options], cwd=folder) as program:
            program.wait_for("database system is ready to accept connections")
            try:
                yield Postgres(folder, port, user, Path(server).parent)
            finally:
                _stop_postgres(program, data)


def _stop_postgres(program: Program, data: Path) -> None:
    """By the pid in its own file: with runuser in front the child is not the server."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended by itself
        pid = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGINT)  # PostgreSQL's "fast" shutdown
    program.child.wait(20)


@contextlib.contextmanager
def redis(*options: str) -> Iterator[Redis]:
    server = shutil.which("redis-server")
    if server is None:
        raise NotInstalledError("Redis is not installed (Debian's package redis-server)")
    with _folder("netpoll-redis-") as folder:
        port = free_port()
        command = [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        command += ["--unixsocket", str(folder / "socket"), "--save", "", "--appendonly", "no"]
        with running([*command, *options]) as program:
            program.wait_until(lambda: True if _answers(port) else None, "a Redis that answers")
            yield Redis(port, folder / "socket")


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(16).startswith(b"+PONG")
    except OSError:
        return False
