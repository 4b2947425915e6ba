"""`netpoll top`: who may look, what is seen, and what the screen has."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import netpoll
from netpoll import telemetry
from netpoll._telemetry import screen, window
from netpoll._telemetry.look import LookError, Watched
from tests.server.conftest import wait_for

APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("it has none")
    await send({"type": "http.response.start", "status": 503 if scope["path"] == "/no" else 200})
    await send({"type": "http.response.body", "body": b"hello"})
"""


@pytest.fixture(autouse=True)
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.delenv("NETPOLL_TOP", raising=False)
    return folder


@contextlib.contextmanager
def serving(folder: Path, *options: str, **env: str) -> Iterator[tuple[int, int]]:
    """`netpoll serve` of APP: its number and its port."""
    (folder / "shown.py").write_text(APP)
    command = [sys.executable, "-m", "netpoll", "serve", "shown:app", "--port", "0", *options]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, text=True, env=os.environ | env
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(" ")[2])
            yield process.pid, port
        finally:
            process.terminate()
            process.wait(20)


def ask(port: int, path: str = "/") -> None:
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10).close()


def top(pid: int, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "netpoll", "top", str(pid), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


# ---- the window ---------------------------------------------------------------------------------


def test_it_is_off_by_default(runtime_dir: Path, backend: str) -> None:
    with netpoll.Server(print, "127.0.0.1", 0, backend=backend):
        assert list(runtime_dir.iterdir()) == []
        done = top(os.getpid())
    assert done.returncode == 1
    assert "shows nothing: start it with NETPOLL_TOP=1" in done.stderr
    assert "there is no process" in top(2**22 + 1).stderr


def test_only_the_user_can_open_it(runtime_dir: Path) -> None:
    with telemetry.Window() as open_window:
        facts = open_window.path.stat()
        assert stat.S_ISSOCK(facts.st_mode) and stat.S_IMODE(facts.st_mode) == 0o600
        assert stat.S_IMODE(open_window.path.parent.stat().st_mode) == 0o700
        assert open_window.path.parent.parent == runtime_dir
    assert not open_window.path.exists()


def test_a_folder_that_others_can_open_is_not_taken(
    runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runtime_dir / "netpoll").mkdir()
    (runtime_dir / "netpoll").chmod(0o755)
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    monkeypatch.setattr(window, "folders", lambda *_: [runtime_dir / "netpoll", tmp_path / "link"])
    with pytest.raises(PermissionError, match="mode has to be 0700"):
        telemetry.Window()
    assert list((tmp_path / "mine").iterdir()) == []


def test_who_is_not_allowed_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "is_allowed", lambda watcher: False)
    with telemetry.Window() as open_window, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(open_window.path))
        assert sock.recv(1) == b""  # its end, before anything was asked


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_does_not_reach_it(runtime_dir: Path) -> None:
    for folder in (runtime_dir, *runtime_dir.parents):
        if folder.stat().st_mode & 0o011 == 0:
            folder.chmod(0o711)  # so that the window's own folder is what stops them
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    with telemetry.Window() as open_window:
        done = subprocess.run(
            ["/usr/bin/env", "python3", "-c", code, str(open_window.path)],
            user=65534,
            capture_output=True,
            text=True,
        )
    assert "PermissionError" in done.stderr


def test_the_kernel_says_who_it_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert window.is_allowed(ours)
        packed = window.CREDENTIALS.pack(1, 12345, 12345)

        class Stranger:
            def getsockopt(self, *_: int) -> bytes:
                return packed

        assert not window.is_allowed(Stranger())  # type: ignore[arg-type]


def test_sockets_of_killed_processes_are_swept(runtime_dir: Path) -> None:
    (runtime_dir / "netpoll").mkdir(mode=0o700)
    dead = runtime_dir / "netpoll" / "top-1234567.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(dead))
    with telemetry.Window() as first:
        assert not dead.exists() and first.path.exists()


def test_many_who_look_at_once() -> None:
    with telemetry.Window() as open_window:
        each = [socket.socket(socket.AF_UNIX) for _ in range(window.WATCHERS_MAX_COUNT + 1)]
        for sock in each:
            sock.settimeout(10)
            sock.connect(str(open_window.path))
        for sock in each[:-1]:
            sock.sendall(b"\n")
            assert sock.recv(1) == b"{"
        assert each[-1].recv(1) == b""
        for sock in each:
            sock.close()
        wait_for(lambda: top(os.getpid(), "--json", "--once").returncode == 0)


def test_a_forked_child_leaves_it_alone(runtime_dir: Path) -> None:
    code = """
import os, netpoll
loop = netpoll.new_event_loop()
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
    print(os.listdir(os.environ["XDG_RUNTIME_DIR"] + "/netpoll") == [f"top-{os.getpid()}.sock"])
    loop.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NETPOLL_TOP": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr
    assert list((runtime_dir / "netpoll").iterdir()) == []


# ---- what is seen -------------------------------------------------------------------------------


def test_each_loop_where_it_belongs(backend: str) -> None:
    server = netpoll.Server(print, "127.0.0.1", 0, workers=2, backend=backend)
    scheduler = netpoll.Scheduler(1, name="tasks")
    with scheduler, server:
        own = scheduler.loop(0, backend=backend)
        with telemetry.Window(server, scheduler, own):
            [found] = Watched(os.getpid()).readings()
    assert found["pid"] == os.getpid()
    assert found["loops"] == []  # the scheduler's
    [shown] = found["servers"]
    assert len(shown["loops"]) == len(shown["stats"]["workers"]) == 2
    assert shown["loops"][0]["stats"]["backend"] == backend
    [tasks] = found["schedulers"]
    assert (tasks["name"], len(tasks["loops"]), len(tasks["stats"]["workers"])) == ("tasks", 1, 1)


def test_workers_of_serve(tmp_path: Path, runtime_dir: Path) -> None:
    with serving(tmp_path, "--workers", "2", "--worker-kind", "process", "--top") as (pid, port):
        for _ in range(5):
            ask(port)
        ask(port, "/no")

        def looked() -> list[dict[str, Any]]:
            done = top(pid, "--json", "--once")
            assert done.returncode == 0, done.stderr
            found: list[dict[str, Any]] = json.loads(done.stdout)["processes"]
            return found

        wait_for(lambda: len(looked()) == 2)
        each = looked()
        requests = [one for found in each for server in found["servers"] for one in server["http"]]
        assert sum(one["ended"] for one in requests) == 6
        assert sum(one["failed"] for one in requests) == 1
        assert {found["pid"] for found in each} == {
            int(name[4:-5]) for name in os.listdir(runtime_dir / "netpoll")
        }
    assert list((runtime_dir / "netpoll").iterdir()) == []


def test_a_program_that_is_asked_by_its_environment(tmp_path: Path) -> None:
    code = "import asyncio, netpoll; netpoll.run(asyncio.sleep(60))"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"NETPOLL_TOP": "on"}
    ) as one:
        try:
            wait_for(lambda: top(one.pid, "--json", "--once").returncode == 0)
            done = top(one.pid, "--once", "--every", "0.1")
            assert re.search(rf"^ *{one.pid} loop ", done.stdout, re.MULTILINE), done.stdout
        finally:
            one.kill()


def test_the_end_of_a_process_is_told(tmp_path: Path) -> None:
    watched = Watched(os.getpid())
    with telemetry.Window():
        watched.readings()
    with pytest.raises(LookError, match="shows nothing"):
        watched.readings()
    watched.close()


# ---- the screen ---------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal, and what a program has drawn on it."""

    def __init__(self, command: list[str], rows: int, columns: int) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm", COLUMNS=str(columns), LINES=str(rows))
            os.execv(command[0], command)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        self.rows = rows
        self.drawn = ""

    def read(self) -> None:
        """What is drawn within half a second."""
        until_s = time.monotonic() + 0.5
        while select.select([self.fd], [], [], max(0.0, until_s - time.monotonic()))[0]:
            try:
                self.drawn += os.read(self.fd, 1 << 16).decode(errors="replace")
            except OSError:  # its end
                return

    @property
    def screen(self) -> list[str]:
        """The last picture: what stands behind the last time that the cursor went home."""
        last = self.drawn.rpartition("\x1b[H")[2]
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last)
        return plain.replace("\r", "").split("\n")

    def close(self) -> int:
        os.kill(self.pid, signal.SIGINT)
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        raise TimeoutError("it does not end by Ctrl-C")


def test_on_a_terminal(tmp_path: Path) -> None:
    pytest.importorskip("rich", reason="needs netpoll[top]")
    with serving(tmp_path, "--top") as (pid, port):
        command = [sys.executable, "-m", "netpoll", "top", str(pid), "--every", "0.2"]
        terminal = Terminal(command, 24, 80)
        try:

            def is_drawn() -> bool:
                ask(port)
                terminal.read()
                return any(re.match(rf" *{pid} server/0 .* [1-9]", row) for row in terminal.screen)

            wait_for(is_drawn)
            rows = terminal.screen
            assert rows[0].startswith(f"netpoll top  {pid} ")
            assert rows[3].split()[:5] == ["PID", "WORKER", "LAG", "TURN/S", "ENTR/S"]
            assert len(rows) <= 24 and max(map(len, rows)) <= 80
        finally:
            assert terminal.close() == 0


def reading(pid: int, servers: int, time_s: float) -> dict[str, Any]:
    """Of a process with so many loops."""
    loop = {"lag_s": 12.0, "stats": {"turns": 0, "enters": 0, "bufs_total": 8, "bufs_free": 2}}
    loop["stats"] |= {"ready_count": 123456, "transports_count": 999_999}  # type: ignore[operator]
    loops = [{"name": f"loop-with-a-long-name-{i}", **loop} for i in range(servers)]
    shown = {"loops": loops, "servers": [], "schedulers": []}
    return {"pid": pid, "command": "python " + "x" * 200, "time_s": time_s, **shown}


def test_what_does_not_fit_is_counted() -> None:
    rows = screen.lines([reading(2**22, 40, 1.0)], [reading(2**22, 40, 2.0)], 80, 24)
    assert len(rows) == 24 and max(map(len, rows)) <= 80
    assert rows[-1] == "... and 21 lines more: a higher window has them"
    assert rows[5].split()[-2:] == ["123k", "75%"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((0, "0"), (7, "7"), (0.5, "0.5"), (11.94, "11.9"), (999.4, "999"), (999.6, "1k")),
        *((12345, "12.3k"), (999_999, "1M"), (5_300_000, "5.3M")),
    ],
)
def test_numbers_are_short(number: float, text: str) -> None:
    assert screen.short(number) == text


def test_a_percentile_within_its_bucket() -> None:
    assert screen.quantile([0.1, 0.2, 0.4], [0, 100, 0, 0]) == pytest.approx(0.199)
    assert screen.quantile([0.1, 0.2, 0.4], [0, 0, 0, 5]) == 0.4
    assert screen.span(0.000123) == "123us"
    assert screen.span(1.5) == "1.5s"
