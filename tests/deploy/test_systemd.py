"""The units of `deploy/systemd`: systemd's own checks, and a socket that it hands over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .shops import DEPLOY, SOURCE, ask, free_port, program, running

UNITS = DEPLOY / "systemd"
COMMAND = "/srv/shop/venv/bin/netpoll"


def said_by(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_units_are_well_formed(tmp_path: Path) -> None:
    """With a command that exists; systemd says nothing then."""
    analyze = program("systemd-analyze")
    for unit in ("shop.service", "shop.socket"):
        text = (UNITS / unit).read_text()
        (tmp_path / unit).write_text(text.replace(COMMAND, "/bin/true"))
    for unit in ("shop.service", "shop.socket"):
        assert said_by(analyze, "verify", str(tmp_path / unit)) == ""
    broken = (UNITS / "shop.service").read_text().replace(COMMAND, "/bin/true")
    (tmp_path / "shop.service").write_text(broken.replace("KillMode=mixed", "KillMode=some"))
    assert "kill mode" in said_by(analyze, "verify", str(tmp_path / "shop.service"))


def test_the_service_is_hardened() -> None:
    analyze = program("systemd-analyze")
    command = [analyze, "security", "--offline=yes", "--threshold=20", str(UNITS / "shop.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd cannot judge a file")
    assert done.returncode == 0, done.stdout[-400:]  # an exposure of 2.0 at most, of 10


def test_the_filter_of_the_service_allows_io_uring() -> None:
    """SystemCallFilter=@system-service has @aio, and what is taken off again has not."""
    analyze = program("systemd-analyze")
    assert "    @aio\n" in said_by(analyze, "syscall-filter", "@system-service")
    assert "    io_uring_setup\n" in said_by(analyze, "syscall-filter", "@aio")
    for group in ("@privileged", "@resources"):
        assert "io_uring" not in said_by(analyze, "syscall-filter", group)
    filters = [
        line.partition("=")[2]
        for line in (UNITS / "shop.service").read_text().splitlines()
        if line.startswith("SystemCallFilter=")
    ]
    assert filters == ["@system-service", "~@privileged @resources:EPERM"]


def test_a_socket_of_systemd(backend: str, tmp_path: Path) -> None:
    """systemd-socket-activate listens; the first connection starts the command, and is served."""
    activate, port = program("systemd-socket-activate"), free_port()
    (line,) = [
        line
        for line in (UNITS / "shop.service").read_text().splitlines()
        if line.startswith(f"ExecStart={COMMAND} ")
    ]
    options = line.split()[1:]
    environment = {
        "PYTHONPATH": SOURCE,
        "PATH": os.environ["PATH"],
        "NETPOLL_APP_DIR": str(DEPLOY),
        "NETPOLL_BACKEND": backend,
        "NETPOLL_WORKERS": "2",
    }
    passed = [f"--setenv={name}={value}" for name, value in environment.items()]
    command = [activate, "--listen", f"127.0.0.1:{port}", *passed]
    command += [sys.executable, "-m", "netpoll", *options]
    with running(command, port, tmp_path / "said"):
        answers = {ask(port) for _ in range(20)}
        assert {status for status, _ in answers} == {200}
        assert all(body.startswith("the shop, process ") for _, body in answers)
