"""Servers and certificates for the integration tests; nothing here runs without --integration."""

import contextlib
import dataclasses
import glob
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .programs import Program, free_port, running

# What is forgotten shows when it is collected; then these two make it a failure.
STRICT = ("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for text in STRICT:
                item.add_marker(pytest.mark.filterwarnings(text))


@dataclasses.dataclass(frozen=True)
class Certificates:
    """A certificate authority of our own, and one certificate for 127.0.0.1 and localhost."""

    ca: Path
    cert: Path
    key: Path

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    trustme: Any = pytest.importorskip("trustme")
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(files.ca))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(files.cert), append=True)
    issued.private_key_pem.write_to_path(str(files.key))
    return files


# ---- PostgreSQL -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Postgres:
    """A running cluster of our own: the folder of its Unix socket, its TCP port."""

    folder: Path
    port: int
    user: str


def _newest(pattern: str) -> str | None:
    found = sorted(glob.glob(pattern), key=lambda path: float(path.split("/")[4]))
    return found[-1] if found else shutil.which(Path(pattern).name)


def _unprivileged() -> tuple[str, list[str]]:
    """PostgreSQL does not run as root: the user, and what to put in front of its commands."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name, []
    return "postgres", ["runuser", "-u", "postgres", "--"]


@pytest.fixture(scope="session")
def postgres(certificates: Certificates) -> Iterator[Postgres]:
    initdb = _newest("/usr/lib/postgresql/*/bin/initdb")
    server = _newest("/usr/lib/postgresql/*/bin/postgres")
    if initdb is None or server is None:
        pytest.skip("PostgreSQL's server is not installed (Debian's package postgresql)")
    user, prefix = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="netpoll-postgres-"))
    try:
        data = folder / "data"
        data.mkdir()
        for source, name in ((certificates.cert, "server.crt"), (certificates.key, "server.key")):
            shutil.copy(source, folder / name)
            (folder / name).chmod(0o600)
        if prefix:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, user, user)
        subprocess.run(
            [*prefix, initdb, "-D", str(data), "-U", "netpoll", "-A", "trust", "--no-sync"],
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
            "ssl": "on",
            "ssl_cert_file": folder / "server.crt",
            "ssl_key_file": folder / "server.key",
            "max_connections": 60,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with running([*prefix, server, "-D", str(data), *options], cwd=folder) as program:
            program.wait_for("database system is ready to accept connections")
            yield Postgres(folder, port, "netpoll")
            _stop_postgres(program, data)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stop_postgres(program: Program, data: Path) -> None:
    """By the pid in its own file: with runuser in front the child is not the server."""
    pid = int((data / "postmaster.pid").read_text().split()[0])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)  # PostgreSQL's "fast" shutdown
    program.child.wait(20)


# ---- Redis ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Redis:
    """A running server of our own."""

    port: int
    path: Path  # its Unix socket


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("Redis' server is not installed (Debian's package redis-server)")
    folder = Path(tempfile.mkdtemp(prefix="netpoll-redis-"))
    try:
        port = free_port()
        command = [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        command += ["--unixsocket", str(folder / "socket"), "--save", "", "--appendonly", "no"]
        with running(command) as program:
            program.wait_until(lambda: True if _answers(port) else None, "a Redis that answers")
            yield Redis(port, folder / "socket")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(16).startswith(b"+PONG")
    except OSError:
        return False
