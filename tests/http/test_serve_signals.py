"""Signals that come at the worst moment: while they are taken or given back, and in a new child."""

import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netpoll._server.signals import Signals
from tests.http.serving import SOURCE, children, serving
from tests.server.conftest import wait_for
from tests.support import SLOWNESS


class Storm:
    """Sends SIGUSR1 to the process before and after each step, and counts where it arrives."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent_count = 0
        self.before_count = 0
        self.signals: Signals | None = None
        self._taken: list[int] = []
        signal.signal(signal.SIGUSR1, self._hear)
        for name in ("set_wakeup_fd", "signal"):
            monkeypatch.setattr(signal, name, self._around(getattr(signal, name)))

    def _hear(self, signum: int, frame: object) -> None:
        self.before_count += 1

    def _around(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def stormy(*args: Any, **kwargs: Any) -> Any:
            self._send()
            result = step(*args, **kwargs)
            self._send()
            return result

        return stormy

    def _send(self) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        self.sent_count += 1
        self._look()

    def _look(self) -> None:
        if self.signals is not None and self.signals.reader.fileno() >= 0:
            self._taken += self.signals.take()

    def arrived_count(self) -> int:
        self._look()
        return self.before_count + self._taken.count(signal.SIGUSR1)


@pytest.fixture
def storm(monkeypatch: pytest.MonkeyPatch) -> Any:
    before = signal.getsignal(signal.SIGUSR1)
    yield Storm(monkeypatch)
    monkeypatch.undo()
    signal.signal(signal.SIGUSR1, before)


def test_no_signal_is_lost_while_they_are_taken(storm: Storm) -> None:
    storm.signals = Signals([signal.SIGUSR1])
    # The one that came when there was a socket and the former handler is in both places.
    assert storm.sent_count <= storm.arrived_count() <= storm.sent_count + 2
    storm.signals.close()


def test_no_signal_is_lost_while_they_are_given_back(storm: Storm) -> None:
    storm.signals = Signals([signal.SIGUSR1])
    behind = storm.arrived_count() - storm.sent_count
    storm.signals.close()
    assert storm.sent_count <= storm.arrived_count() - behind <= storm.sent_count + 2


def test_a_signal_for_a_new_child_is_the_childs() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signals = Signals([signal.SIGTERM])
    try:
        pid = signals.fork(ignored=[signal.SIGHUP])
        if pid == 0:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
        assert signals.take() == []
        os.kill(os.getpid(), signal.SIGTERM)  # of the parent's, nothing has changed
        assert signals.take() == [signal.SIGTERM]
    finally:
        signals.close()
        signal.signal(signal.SIGTERM, before)


def test_a_signal_before_a_new_child_has_its_own_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bug class 65: it comes as soon as there is a child, whose handlers and socket are still its
    parent's."""

    def fork() -> int:
        pid = actual_fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return pid

    actual_fork = os.fork
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signals = Signals([signal.SIGTERM])
    try:
        monkeypatch.setattr(os, "fork", fork)
        pid = signals.fork()
        if pid == 0:
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
        assert signals.take() == []
    finally:
        signals.close()
        signal.signal(signal.SIGTERM, before)


def test_an_interrupt_while_they_are_taken_leaves_all_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    take = signal.signal

    def interrupted(number: int, handler: Any) -> Any:
        if number == signal.SIGUSR2:
            raise KeyboardInterrupt
        return take(number, handler)

    monkeypatch.setattr(signal, "signal", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Signals([signal.SIGUSR1, signal.SIGUSR2])
    assert signal.getsignal(signal.SIGUSR1) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_another_thread_cannot_take_them() -> None:
    def take() -> None:
        with pytest.raises(ValueError, match="main thread"), warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            Signals([signal.SIGUSR1])
        done.set()

    done = threading.Event()
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert done.is_set()


def test_whoever_heard_of_signals_before_still_does() -> None:
    hears, told = socket.socketpair()
    with hears, told:
        told.setblocking(False)
        assert signal.set_wakeup_fd(told.fileno()) == -1
        signals = Signals([signal.SIGUSR1])
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            signals.wake()
            assert signals.wait() == [signal.SIGUSR1, 0]
        finally:
            signals.close()
            assert signal.set_wakeup_fd(-1) == told.fileno()
        assert hears.recv(8) == bytes([signal.SIGUSR1])


SERVE = """
import os, signal, sys, netpoll
take = signal.signal
handlers = []

def stormy(number, handler):
    result = take(number, handler)
    handlers.append(number)
    if handlers.count(signal.SIGTERM) == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return result

signal.signal = stormy
netpoll.serve(lambda conn: None, "127.0.0.1", 0, backend=sys.argv[1])
print("ended")
"""


def test_serve_hears_of_a_stop_while_it_begins(backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVE, backend],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": SOURCE},
        timeout=60 * SLOWNESS,
    )
    assert (done.stdout, done.returncode) == ("ended\n", 0), done.stderr


SLOW_FORK = """
import os, time
fork = os.fork

def slow_fork():
    pid = fork()
    if pid == 0:
        time.sleep(1)  # as on a machine that has too much to do
    return pid

os.fork = slow_fork
"""

APP = """
    import pathlib, time

    def wsgi(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        pathlib.Path("begun").touch()
        time.sleep(2)
        return [b"slow"]
"""


def test_a_stop_meets_a_worker_that_has_just_been_made(tmp_path: Path, backend: str) -> None:
    """It ends, and what is in progress in another one is answered."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_FORK)
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{SOURCE}"}
    with serving(tmp_path, backend, "app:wsgi", "--workers", "1", source=APP, env=env) as running:
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(running.ask()))
        asking.start()
        wait_for((tmp_path / "begun").exists, 60)
        running.send(signal.SIGTTIN)
        wait_for(lambda: len(children(running)) == 2, 60)
        assert running.ended() == 0
        asking.join()
        assert answers == ["slow"]
        assert "second signal" not in running.errors.read_text()
