"""One process that serves: alone, or as a worker of a supervisor."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from netpoll import http
from netpoll._native.server.seats import Seats
from netpoll._serve import systemd
from netpoll._serve.application import AppError, load_app, make_server
from netpoll._server.signals import Signals, readable
from netpoll._server.worker_thread import StartGivenUpError
from netpoll._telemetry.shown import close_window
from netpoll.loop import EventLoop
from netpoll.server import Server

__all__ = ["DRAIN", "ENDING", "FAILED", "READY", "STOP", "Place", "flush_output", "run"]

log = logging.getLogger("netpoll.serve")

# How often requests and memory are looked at, and how often a loop tells that it runs.
LOOK_S = 1.0
BEAT_S = 1.0
# How often a worker that drains looks whether its last connection has gone.
DRAIN_LOOK_S = 0.02
# What a worker and its supervisor tell each other.
READY = b"ready"
ENDING = b"ending"
FAILED = b"failed "  # and why
DRAIN = b"drain"
STOP = b"stop"  # to one that drains
STOPS = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}


@dataclass
class Place:
    """Where a process serves. channel: to its supervisor, whose end is the process's; None: it is
    alone. seats: of all processes on these sockets."""

    sockets: list[socket.socket]
    ready: Callable[[], object]
    channel: socket.socket | None = None
    seats: Seats | None = None


def run(options: argparse.Namespace, place: Place) -> int:
    """Serves until it is told to stop. Raises AppError when it cannot."""
    app = load_app(options)
    server = make_server(app, options, place.sockets, place.seats)
    # Ctrl-C in a terminal goes to all processes: of a worker it is the supervisor's business.
    taken = {*STOPS, signal.SIGUSR1} - ({signal.SIGINT} if place.channel else set())
    signals = Signals(taken)
    server._on_failure = signals.wake
    end = End()
    try:
        try:
            server._is_given_up = partial(is_told_to_stop, signals, place.channel)
            server.start()
        except StartGivenUpError:
            return 0
        except http.LifespanError as exc:
            raise AppError(f"{options.app} does not start: {exc}", 3) from exc
        except (OSError, RuntimeError) as exc:  # RuntimeError: the system has no thread for it
            raise AppError(f"it cannot serve: {exc}") from exc
        if place.seats is not None:
            Pulse(place.seats, server._loops()).start()
        place.ready()
        if place.channel is not None:
            place.channel.sendall(READY)
        end = Watcher(options, place, server, signals).wait()
        if place.channel is None:
            systemd.notify("STOPPING=1")
        else:
            with contextlib.suppress(OSError):  # the supervisor has gone
                place.channel.sendall(ENDING)
            if end.drains:
                end = _drain(server, options.timeout_drain, signals, place.channel)
    finally:
        grace_s = 0.0 if end.is_quick else options.timeout_graceful_shutdown
        _stop(server, grace_s, signals)
        signals.close()
        close_window()
    return 0


def is_told_to_stop(signals: Signals, channel: socket.socket | None) -> bool:
    """Before it serves. All that a supervisor has to say then is that it has gone."""
    if STOPS.intersection(signals.take()):
        return True
    return channel is not None and bool(readable([channel], 0.0))


class Pulse:
    """Writes into the process's seat when all its loops have run."""

    def __init__(self, seats: Seats, loops: list[EventLoop]) -> None:
        self._seats = seats
        self._loops = loops
        self._times = [time.monotonic()] * len(loops)

    def start(self) -> None:
        self._seats.beat(time.monotonic())
        for index, loop in enumerate(self._loops):
            loop.call_soon_threadsafe(self._beat, index)

    def _beat(self, index: int) -> None:
        self._times[index] = time.monotonic()
        self._seats.beat(min(self._times))
        self._loops[index].call_later(BEAT_S, self._beat, index)


@dataclass
class End:
    """How a process ends: at once, or when its idle connections have had time to leave."""

    is_quick: bool = False
    drains: bool = False


class Watcher:
    """What the main thread waits for while the others serve."""

    def __init__(
        self, options: argparse.Namespace, place: Place, server: Server, signals: Signals
    ) -> None:
        self._place = place
        self._server = server
        self._signals = signals
        self._requests_max = options.max_requests
        if self._requests_max:
            self._requests_max += random.randint(0, options.max_requests_jitter)
        self._memory_max_bytes = options.max_memory

    def wait(self) -> End:
        channel = self._place.channel
        waited = [self._signals.reader] if channel is None else [self._signals.reader, channel]
        looks = self._requests_max or self._memory_max_bytes
        while True:
            found = readable(waited, LOOK_S if looks else None)
            numbers = self._signals.take()
            if signal.SIGUSR1 in numbers:
                reopen(self._server)
            if signal.SIGQUIT in numbers:
                return End(is_quick=True)
            if {signal.SIGTERM, signal.SIGINT, 0}.intersection(numbers):
                return End()  # 0: a thread of the server has failed
            if channel in found:
                assert channel is not None
                # Of a supervisor that has died, the end; else it asks to make room.
                return End(drains=channel.recv(64) == DRAIN)
            if looks and self._has_enough():
                return End(drains=True)

    def _has_enough(self) -> bool:
        server = self._server
        if self._requests_max and isinstance(server, http.Server):
            count = server.requests
            if count >= self._requests_max:
                log.info("%d requests were served: this worker ends", count)
                return True
        if self._memory_max_bytes:
            used_bytes = memory_bytes()
            if used_bytes >= self._memory_max_bytes:
                log.info("it has %d MiB of memory: this worker ends", used_bytes >> 20)
                return True
        return False


def memory_bytes() -> int:
    """Resident in this process."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reopen(server: Server) -> None:
    """The access log, which may have been moved away."""
    try:
        if isinstance(server, http.Server):
            server.reopen_access_log()
    except OSError as exc:
        log.error("the access log cannot be opened again, the old one goes on: %s", exc)


def _drain(server: Server, patience_s: float, signals: Signals, channel: socket.socket) -> End:
    """Others serve already: who is idle here leaves with its next answer, and has so much time for
    it. A signal ends the wait, and so does the supervisor."""
    until_s = time.monotonic() + patience_s
    server._drain(until_s)
    while time.monotonic() < until_s and not all(
        worker.is_empty for worker in server._live_workers()
    ):
        found = readable([signals.reader, channel], DRAIN_LOOK_S)
        numbers = STOPS.intersection(signals.take())
        if numbers:
            return End(is_quick=signal.SIGQUIT in numbers)
        if channel in found and channel.recv(64) != DRAIN:
            break
    return End()


def _stop(server: Server, grace_s: float, signals: Signals) -> None:
    """With grace; a second signal ends it. Raises what has ended the server by itself."""
    failures: list[BaseException] = []

    def stop(within_s: float) -> None:
        try:
            server.close(within_s)
        except BaseException as exc:
            failures.append(exc)

    def begin(within_s: float) -> threading.Thread:
        thread = threading.Thread(target=stop, args=(within_s,))
        try:
            thread.start()
        except RuntimeError:  # the system has none: then nobody listens for a second signal
            thread.run()
        else:
            stopping.append(thread)
        return thread

    stopping: list[threading.Thread] = []
    first = begin(grace_s)
    while first.is_alive():
        first.join(0.01)
        if STOPS.intersection(signals.take()):
            log.warning("a second signal: what is in progress ends now")
            begin(0.0)
    for thread in stopping:
        thread.join()
    flush_output()
    if failures:
        raise failures[0]


def flush_output() -> None:
    """What the program has printed. Nobody may read it, or keep it: that ends nothing."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
