"""Workers of `netpoll serve` and their supervisor: what happens to them, and at each signal."""

import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

from tests.server.conftest import wait_for
from tests.support import SLOWNESS

from .serving import Running, children, is_alive, serving


def test_workers_and_their_number(tmp_path: Path, backend: str) -> None:
    with serving(tmp_path, backend, "app:wsgi", "--workers", "2") as running:
        before = running.pids(2)
        assert running.process.pid not in before
        assert running.ask().split()[-2:] == ["True", "http"]
        running.send(signal.SIGTTIN)
        wait_for(lambda: len(children(running)) == 3)
        for count in (2, 1):  # one by one: two signals at a time may be one
            running.send(signal.SIGTTOU)
            wait_for(lambda count=count: len(children(running)) == count, 20)
        assert running.pid() in before | children(running)
        assert running.ended() == 0
        assert children(running) == set()


def test_threads_get_a_second_process(tmp_path: Path, backend: str) -> None:
    args = ("app:wsgi", "--workers", "2", "--worker-kind", "thread")
    with serving(tmp_path, backend, *args) as running:
        assert children(running) == running.pids(1)
        running.send(signal.SIGTTIN)
        assert running.pids(2) == children(running)
        running.send(signal.SIGTTOU)
        wait_for(lambda: len(children(running)) == 1, 20)
        assert running.ended() == 0


def test_a_worker_that_dies_is_replaced(tmp_path: Path, backend: str) -> None:
    with serving(tmp_path, backend, "app:wsgi", "--workers", "2") as running:
        killed = min(running.pids(2))
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: killed not in children(running) and len(children(running)) == 2)
        assert killed not in running.pids(2)
        assert running.ended() == 0


def test_workers_end_with_their_supervisor(tmp_path: Path, backend: str) -> None:
    with serving(tmp_path, backend, "app:wsgi", "--workers", "2") as running:
        workers = running.pids(2)
        running.send(signal.SIGKILL)
        running.process.wait()
        wait_for(lambda: not any(is_alive(pid) for pid in workers), 20)


def test_a_reload_loses_no_request(tmp_path: Path, backend: str) -> None:
    with serving(tmp_path, backend, "app:wsgi", "--workers", "2") as running:
        before = running.pids(2)
        failures: list[BaseException] = []
        versions: list[str] = []
        is_over = threading.Event()

        def talk() -> None:
            while not is_over.is_set():
                try:
                    versions.append(running.ask().split()[1])
                except BaseException as exc:
                    failures.append(exc)

        talkers = [threading.Thread(target=talk) for _ in range(3)]
        for talker in talkers:
            talker.start()
        try:
            path = tmp_path / "app.py"
            path.write_text(path.read_text().replace("VERSION = 1", "VERSION = 22"))
            running.send(signal.SIGHUP)
            wait_for(lambda: len(children(running)) == 2 and not children(running) & before, 30)
            assert running.ask().split()[1] == "22"
        finally:
            is_over.set()
            for talker in talkers:
                talker.join()
        assert failures == []
        assert set(versions) <= {"1", "22"} and "1" in versions


def test_a_reload_that_does_not_start_changes_nothing(tmp_path: Path, backend: str) -> None:
    with serving(tmp_path, backend, "app:wsgi", "--workers", "2") as running:
        before = running.pids(2)
        (tmp_path / "app.py").write_text("import not_there\n")
        running.send(signal.SIGHUP)
        wait_for(lambda: "the old one goes on" in running.errors.read_text())
        wait_for(lambda: children(running) == before)
        assert running.pids(2) == before
        assert running.ended() == 0


def test_a_file_that_changes(tmp_path: Path, backend: str) -> None:
    with serving(tmp_path, backend, "app:wsgi", "--reload") as running:
        assert running.ask().split()[1] == "1"
        path = tmp_path / "app.py"
        path.write_text(path.read_text().replace("VERSION = 1", "VERSION = 22"))
        wait_for(lambda: running.ask().split()[1] == "22", 20)
        assert running.ended() == 0


def test_workers_are_replaced_after_a_number_of_requests(tmp_path: Path, backend: str) -> None:
    args = ("app:wsgi", "--workers", "2", "--max-requests", "5", "--max-requests-jitter", "5")
    with serving(tmp_path, backend, *args) as running:
        found: set[int] = set()
        wait_for(lambda: found.add(running.pid()) or len(found) > 3, 30)
        assert running.ended() == 0


def test_systemd_is_told(tmp_path: Path, backend: str) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(20 * SLOWNESS)
        with serving(
            tmp_path, backend, "app:wsgi", "--workers", "2", env={"NOTIFY_SOCKET": path}
        ) as running:
            assert listener.recv(100) == b"READY=1"
            running.send(signal.SIGHUP)
            assert listener.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert listener.recv(100) == b"READY=1"
            running.send(signal.SIGTERM)
            assert listener.recv(100) == b"STOPPING=1"


# ---- reload: what a client sees -----------------------------------------------------------------


def asked(client: socket.socket) -> http.client.HTTPResponse:
    client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    response = http.client.HTTPResponse(client)
    response.begin()
    response.read()
    return response


def test_an_idle_connection_outlives_a_reload(tmp_path: Path, backend: str) -> None:
    """It closes with its next answer, which says so: its client may be about to ask."""
    args = ("app:asgi", "--workers", "2", "--timeout-drain", "60")
    with serving(tmp_path, backend, *args) as running:
        before = running_pids(running, 2)
        clients = [running.connect() for _ in range(8)]
        for client in clients:
            assert asked(client).getheader("connection") is None
        running.send(signal.SIGHUP)
        wait_for(lambda: "makes room" in running.errors.read_text(), 60)
        for client in clients:
            # Its worker hears of it a little later than we do.
            wait_for(lambda client=client: asked(client).getheader("connection") == "close", 60)
            assert client.recv(1) == b""
            client.close()
        wait_for(lambda: not children(running) & before, 60)
        assert running.ended() == 0


def running_pids(running: Running, count: int) -> set[int]:
    wait_for(lambda: len(children(running)) == count)
    return children(running)


def test_who_does_not_ask_again_is_not_waited_for(tmp_path: Path, backend: str) -> None:
    args = ("app:asgi", "--workers", "1", "--timeout-drain", "0.3")
    with serving(tmp_path, backend, *args) as running, running.connect() as client:
        before = running_pids(running, 1)
        asked(client)
        running.send(signal.SIGHUP)
        wait_for(lambda: children(running) and not children(running) & before, 60)
        assert client.recv(1) == b""
        assert running.ended() == 0


def test_a_stop_ends_who_drains(tmp_path: Path, backend: str) -> None:
    args = ("app:asgi", "--workers", "1", "--timeout-drain", "600")
    with serving(tmp_path, backend, *args) as running, running.connect() as client:
        before = running_pids(running, 1)
        asked(client)
        running.send(signal.SIGHUP)
        wait_for(lambda: len(children(running) - before) == 1, 60)
        time.sleep(0.5)
        assert children(running) & before
        assert running.ended() == 0


# ---- workers that go wrong ----------------------------------------------------------------------


def test_a_worker_that_is_stuck_says_where_and_is_replaced(tmp_path: Path, backend: str) -> None:
    """It holds the lock of its interpreter: none of its own threads could tell."""
    args = ("app:hard", "--workers", "1", "--timeout", "3")
    with serving(tmp_path, backend, *args) as running, running.connect() as client:
        stuck = running.pid()
        client.sendall(b"GET /stuck HTTP/1.1\r\nhost: x\r\n\r\n")
        wait_for(lambda: "is stuck" in running.errors.read_text(), 60)
        wait_for(lambda: not is_alive(stuck), 60)
        assert running.pid() != stuck
        assert "in hard" in running.errors.read_text(), "faulthandler says where"
        assert running.ended() == 0


def test_a_worker_that_is_busy_is_not_stuck(tmp_path: Path, backend: str) -> None:
    args = ("app:wsgi", "--workers", "1", "--timeout", "2")
    with serving(tmp_path, backend, *args) as running:
        before = running.pid()
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s:
            assert int(running.ask("/slow").split()[0]) == before
        assert "stuck" not in running.errors.read_text()


def test_a_worker_that_grows_is_replaced(tmp_path: Path, backend: str) -> None:
    args = ("app:hard", "--workers", "1", "--max-memory", "250M")
    with serving(tmp_path, backend, *args) as running:
        before = running.pid()
        assert int(running.ask("/grow")) == before, "it answers first"
        wait_for(lambda: running.pid() != before, 60)
        assert "MiB of memory" in running.errors.read_text()
        assert running.ended() == 0


def test_workers_that_die_at_once_are_not_started_all_the_time(
    tmp_path: Path, backend: str
) -> None:
    with serving(tmp_path, backend, "app:hard", "--workers", "1") as running:
        until_s = time.monotonic() + 4
        while time.monotonic() < until_s:
            with contextlib.suppress(OSError, http.client.HTTPException):
                running.ask("/die")
            time.sleep(0.01)
        deaths = running.errors.read_text().count("has ended with exit status 3")
        assert 1 <= deaths <= 5, "0.5 s, 1 s, 2 s and 4 s are between them"
        assert running.ended() == 0


def test_a_first_generation_waits_for_its_files_to_change(tmp_path: Path, backend: str) -> None:
    (tmp_path / "app.py").write_text("1 / 0\n")

    def mend() -> None:
        wait_for(lambda: "waiting for a file" in (tmp_path / "stderr").read_text(), 60)
        (tmp_path / "app.py").write_text("async def asgi(s, r, send):\n    pass\n")

    mender = threading.Thread(target=mend)
    (tmp_path / "stderr").touch()
    mender.start()
    try:
        with serving(tmp_path, backend, "app:asgi", "--reload", "--lifespan", "off") as running:
            assert "ZeroDivisionError" in running.errors.read_text()
            assert running.ended() == 0
    finally:
        mender.join()


# ---- other ways to run --------------------------------------------------------------------------


def test_files_are_watched_without_watchfiles(tmp_path: Path, backend: str) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "watchfiles.py").write_text("raise ModuleNotFoundError")
    env = {"PYTHONPATH": f"{hidden}:{os.environ.get('PYTHONPATH', '')}"}
    args = ("app:wsgi", "--reload", "--reload-include", "*.txt", "--reload-exclude", "not*")
    with serving(tmp_path, backend, *args, env=env) as running:
        first = running.pid()
        for name, is_watched in (("not.py", False), ("x.md", False), ("x.txt", True)):
            (tmp_path / name).write_text("changed")
            if is_watched:
                wait_for(lambda: running.pid() != first, 60)
            else:
                time.sleep(1)
                assert running.pid() == first, name
        assert "x.txt has changed" in running.errors.read_text()
        assert running.ended() == 0


def test_workers_that_are_threads(tmp_path: Path, backend: str) -> None:
    args = ("app:asgi", "--workers", "3", "--worker-kind", "thread")
    with serving(tmp_path, backend, *args) as running:
        (worker,) = children(running)
        names = [path.read_text() for path in Path(f"/proc/{worker}/task").glob("*/comm")]
        assert len(names) > 3
        assert {running.ask() for _ in range(20)} == {"asgi"}
        running.send(signal.SIGHUP)
        wait_for(lambda: worker not in children(running) and len(children(running)) == 1, 60)
        assert running.ask() == "asgi"
        assert running.ended() == 0


def test_only_requests_in_progress_go_with_a_worker(tmp_path: Path, backend: str) -> None:
    """Kill after kill, and who is with another worker, or comes later, does not notice."""
    with serving(tmp_path, backend, "app:wsgi", "--workers", "3") as running:
        failures: list[Any] = []
        asked_count = 0
        is_over = threading.Event()

        def talk() -> None:
            nonlocal asked_count
            while not is_over.is_set():
                try:
                    running.ask()
                    asked_count += 1
                except BaseException as exc:
                    failures.append(exc)

        talkers = [threading.Thread(target=talk) for _ in range(3)]
        for talker in talkers:
            talker.start()
        kills = 5
        try:
            for _ in range(kills):
                wait_for(lambda: len(children(running)) == 3, 60)
                victim = min(children(running))
                os.kill(victim, signal.SIGKILL)
                wait_for(lambda victim=victim: victim not in children(running), 60)
        finally:
            is_over.set()
            for talker in talkers:
                talker.join()
        assert len(failures) <= 3 * kills
        assert asked_count > 0 and running.ask()
        assert running.ended() == 0
