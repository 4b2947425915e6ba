"""`netpoll serve`: what begins or ends otherwise than it should, and what goes on all the same."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netpoll import http
from netpoll import server as server_module
from netpoll._http import lifespan
from netpoll._serve.watch import EXCLUDED, INCLUDED, Watch
from netpoll._server import worker_thread
from tests.http.conftest import HttpServing
from tests.http.serving import SOURCE, children, complaint, serving
from tests.server.conftest import wait_for
from tests.support import SLOWNESS

APP = """
    import asyncio, os, sys

    if os.path.exists("broken"):
        raise RuntimeError("no file " + os.fsdecode(b"\\xff"))

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        sys.stdout.write("a line that waits in its buffer")
        await send({"type": "http.response.start", "status": 200})
        while scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
"""


# ---- a forked child is never its parent ---------------------------------------------------------


def test_a_worker_whose_output_nobody_reads_ends_alone(tmp_path: Path, backend: str) -> None:
    env = {"PYTHONUNBUFFERED": ""}
    with serving(tmp_path, backend, "app:app", "--workers", "2", source=APP, env=env) as running:
        assert running.process.stdout is not None
        running.process.stdout.close()
        before = running.pids(2)
        running.send(signal.SIGTTOU)
        wait_for(lambda: len(children(running)) == 1)
        (left,) = children(running)
        assert left in before
        assert {running.pid() for _ in range(4)} == {left}
        running.send(signal.SIGTTIN)
        wait_for(lambda: len(children(running)) == 2)
        assert running.ended() == 0
        assert "SIGKILL" not in running.errors.read_text()


LAST = """

    import logging, os
    class Handler(logging.Handler):
        def close(self):
            raise RuntimeError("a handler that does not close")
    kept = Handler()
"""


def test_a_worker_that_fails_in_its_last_step_ends_alone(tmp_path: Path, backend: str) -> None:
    with serving(tmp_path, backend, "app:app", "--workers", "2", source=APP + LAST) as running:
        before = running.pids(2)
        running.send(signal.SIGTTOU)
        wait_for(lambda: len(children(running)) == 1)
        assert set(children(running)) < before
        assert {running.pid() for _ in range(4)} == children(running)
        assert "a handler that does not close" in running.errors.read_text()
        assert running.ended() == 0


def test_a_failure_that_is_no_utf_8_leaves_the_old_workers(tmp_path: Path, backend: str) -> None:
    with serving(tmp_path, backend, "app:app", "--workers", "2", source=APP) as running:
        before = running.pids(2)
        (tmp_path / "broken").touch()
        running.send(signal.SIGHUP)
        wait_for(lambda: "the old one goes on" in running.errors.read_text())
        assert "RuntimeError: no file \\udcff" in running.errors.read_text()
        assert running.pids(2) == before
        assert running.ended() == 0


def test_a_failure_that_is_long_is_told(tmp_path: Path) -> None:
    """It is cut off, perhaps within a character."""
    for number in range(3):
        (tmp_path / "app.py").write_text(f"raise RuntimeError({number * 'x'!r} + 30000 * '\u20ac')")
        told = complaint(tmp_path, "app:app", "--workers", "1")
        assert "RuntimeError: " in told and "codec" not in told


@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
def test_what_an_application_says_when_it_exits(tmp_path: Path, workers: tuple[str, ...]) -> None:
    (tmp_path / "app.py").write_text("import sys\nsys.exit('there is no database')\n")
    assert "there is no database" in complaint(tmp_path, "app:app", *workers)


def test_as_many_generations_as_there_are_seats(tmp_path: Path, backend: str) -> None:
    """One more waits until a worker of them has ended."""
    code = (
        "import sys, netpoll._serve.supervisor as one; one.SEATS_MIN_COUNT = 4\n"
        "from netpoll._serve.command import main; sys.exit(main(sys.argv[1:]))"
    )
    with (
        contextlib.ExitStack() as streams,
        serving(
            *(tmp_path, backend, "app:app", "--workers", "1", "--timeout-drain", "0.1"),
            source=APP,
            program=(sys.executable, "-c", code),
        ) as running,
    ):
        held = []
        for _ in range(4):
            pid = running.pid()
            held.append(streams.enter_context(running.connect()))
            held[-1].sendall(b"GET /stream HTTP/1.1\r\nhost: a\r\n\r\n")
            assert held[-1].recv(1)
            running.send(signal.SIGHUP)
            if len(held) < 4:
                wait_for(lambda pid=pid: running.pid() != pid)
        time.sleep(1)
        assert running.pid() == pid, "there is no seat"
        held[0].close()
        wait_for(lambda: running.pid() != pid)
        for sock in held[1:]:
            sock.close()
        assert running.ended() == 0


def test_a_stop_waits_for_nobody_but_its_workers(tmp_path: Path, backend: str) -> None:
    took_s = []
    for _ in range(3):
        with serving(tmp_path, backend, "app:app", "--workers", "2", source=APP) as running:
            began_s = time.monotonic()
            assert running.ended() == 0
            took_s.append(time.monotonic() - began_s)
    assert min(took_s) < 0.9 * SLOWNESS


CLOSES = """
import os, socket, time

for number in map(int, os.listdir("/proc/self/fd")):
    try:
        sock = socket.socket(fileno=os.dup(number))
    except OSError:
        continue
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        os.close(number)
    sock.close()
time.sleep(1000)
"""


def test_a_worker_that_hangs_up_is_not_asked_all_the_time(tmp_path: Path, backend: str) -> None:
    """Its process may take a while to end; this one closes what it has not opened."""
    (tmp_path / "app.py").write_text(CLOSES)
    command = [sys.executable, "-m", "netpoll", "serve", "app:app", "--port", "0", "-w", "1"]
    process = subprocess.Popen(
        [*command, "--backend", backend], cwd=tmp_path, env=os.environ | {"PYTHONPATH": SOURCE}
    )
    try:
        wait_for(lambda: len(children_of(process.pid)) == 1)
        time.sleep(1)
        before = cpu_ticks(process.pid)
        time.sleep(1)
        assert cpu_ticks(process.pid) - before < 20
    finally:
        for pid in children_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def children_of(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def cpu_ticks(pid: int) -> int:
    """Of a hundredth of a second."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


# ---- the beginning ------------------------------------------------------------------------------


def test_an_application_may_take_its_time_to_start(
    http_serving: HttpServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_thread, "START_TIMEOUT_S", 0.2)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await asyncio.sleep(0.6)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    http_serving(app)


SLOW = """
import asyncio, pathlib, time

async def app(scope, receive, send):
    pathlib.Path("begun").touch()
    if pathlib.Path("block").exists():
        time.sleep(1000)
    try:
        await asyncio.sleep(1000)
    finally:
        pathlib.Path("cancelled").touch()
"""


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_stop_while_it_starts(
    tmp_path: Path, backend: str, workers: tuple[str, ...], blocks: bool
) -> None:
    (tmp_path / "app.py").write_text(SLOW)
    if blocks:
        (tmp_path / "block").touch()
    command = [sys.executable, "-m", "netpoll", "serve", "app:app", "--port", "0", *workers]
    process = subprocess.Popen(
        [*command, "--backend", backend], cwd=tmp_path, env=os.environ | {"PYTHONPATH": SOURCE}
    )
    try:
        wait_for((tmp_path / "begun").exists, 60)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10 * SLOWNESS) == 0
        assert (tmp_path / "cancelled").exists() is not blocks
    finally:
        process.kill()
        process.wait()


# ---- the end ------------------------------------------------------------------------------------


class Ending:
    """An application that takes its time at its end."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s
        self.steps: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.steps.append("begun")
        await asyncio.sleep(self.takes_s)
        self.steps.append("ended")
        await send({"type": "lifespan.shutdown.complete"})


def test_a_shutdown_has_its_time_whatever_the_grace(
    http_serving: HttpServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "THREAD_TIMEOUT_S", 0.2)
    app = Ending(1.5)
    http_serving(app).close(0.1)
    assert app.steps == ["begun", "ended"]


def test_who_closes_twice_is_in_a_hurry(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "THREAD_TIMEOUT_S", 0.2)
    monkeypatch.setattr(lifespan, "SHUTDOWN_TIMEOUT_S", 3.0)
    app = Ending(1000)
    server = http.Server(app, "127.0.0.1", 0, backend=backend).start()
    closing = threading.Thread(target=server.close)
    closing.start()
    wait_for(lambda: app.steps)
    began_s = time.monotonic()
    server.close(0.0)
    closing.join()
    assert time.monotonic() - began_s < 2 * SLOWNESS
    server._threads[0].thread.join(30)


# ---- files that are watched ---------------------------------------------------------------------


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Without its process."""
    one = Watch.__new__(Watch)
    one._folders, one._include, one._exclude = [tmp_path], INCLUDED, EXCLUDED
    for name in "abcdef":
        (tmp_path / name / name).mkdir(parents=True)
        (tmp_path / name / name / "file.py").touch()
    yield one


def test_folders_that_go_while_they_are_looked_at(watch: Watch, tmp_path: Path) -> None:
    found = watch._times()
    first = Path(next(found)[0])
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    assert list(found) == []
    assert first.name == "file.py"


def test_names_that_lead_nowhere(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "ring.py").symlink_to("ring.py")
    (tmp_path / "gone.py").symlink_to("nothing.py")
    assert len(dict(watch._times())) == 6


def test_what_is_excluded_is_not_walked_through(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node_modules" / "inner").mkdir(parents=True)
    (tmp_path / "node_modules" / "inner" / "x.py").touch()
    seen: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: seen.append(str(path)) or scandir(path))
    assert len(dict(watch._times())) == 6
    assert not any("node_modules" in path for path in seen)


@pytest.mark.parametrize("glob", ["a", "a/*", "a/", "a/*.py", "a/a/file.py", "{folder}/a"])
def test_what_is_excluded_may_be_a_path(watch: Watch, tmp_path: Path, glob: str) -> None:
    watch._exclude = [glob.format(folder=tmp_path)]
    assert not watch.is_watched(tmp_path / "a" / "a" / "file.py")
    assert watch.is_watched(tmp_path / "b" / "b" / "file.py")
    assert len(dict(watch._times())) == 5
