"""Servers that suites need: started for one run, on free ports, ended by process id.

Each gives the names that projects.toml may use in braces: {postgres_host}, {redis_port}, ...
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from .. import servers
from .environment import NotToBeHad


@contextlib.contextmanager
def started(names: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """All of them, for as long as the block lasts; what suites may want to know about them."""
    found: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            found |= stack.enter_context(_SERVERS[name]())
        yield found


@contextlib.contextmanager
def _had(server: Any) -> Iterator[Any]:
    """What the context manager `server` gives; what keeps it from starting is said once."""
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(server)
        except (servers.NotInstalledError, AssertionError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or error
            raise NotToBeHad(f"a server did not start: {said!s:.500}") from None
        yield started


@contextlib.contextmanager
def _postgresql() -> Iterator[dict[str, str]]:
    user, _ = servers.unprivileged()
    limits = {"max_connections": 100, "max_prepared_transactions": 20}
    with _had(servers.postgres(user, **limits)) as started:
        yield {
            "postgres_host": "127.0.0.1",
            "postgres_port": str(started.port),
            "postgres_user": user,
            "postgres_bin": str(started.programs),
        }


@contextlib.contextmanager
def _redis() -> Iterator[dict[str, str]]:
    with _had(servers.redis("--enable-debug-command", "yes")) as started:
        yield {"redis_port": str(started.port)}


@contextlib.contextmanager
def _dbus() -> Iterator[dict[str, str]]:
    """A session bus around pytest, by dbus-run-session."""
    if shutil.which("dbus-run-session") is None:
        raise NotToBeHad("D-Bus is not installed (Debian's package dbus-daemon)")
    yield {"prefix": "dbus-run-session --"}


@contextlib.contextmanager
def _nginx() -> Iterator[dict[str, str]]:
    """The suite starts it, with a configuration of its own."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise NotToBeHad("nginx is not installed (Debian's package nginx-light)")
    yield {"nginx": program}


_SERVERS = {"postgresql": _postgresql, "redis": _redis, "dbus": _dbus, "nginx": _nginx}
