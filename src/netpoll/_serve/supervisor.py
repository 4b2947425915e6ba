"""Processes that serve the same sockets, and the one that keeps them running.

    supervisor ── fork ──► worker: imports the application, serves the inherited sockets
               ◄─ socket ─ "ready", "ending", "failed"; its end: the other one has gone
               ◄─ memory ─ a seat: when its loops have run, how many connections it has

The supervisor opens the sockets and imports nothing of the application. So a reload is a new
generation of workers: when all of them are ready, the old ones are asked to make room. Connections
that come meanwhile wait in the sockets, which stay open throughout.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import math
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from netpoll import http
from netpoll._native.server.seats import Seats
from netpoll._serve import process, systemd
from netpoll._serve.application import AppError, runs_threads
from netpoll._serve.watch import Watch
from netpoll._server.signals import Signals, readable

__all__ = ["Supervisor"]

log = logging.getLogger("netpoll.serve")

# How long the supervisor sleeps at most: it looks whether the workers' loops run.
LOOK_S = 1.0
# A worker that dies before it was ready, or so soon after, has another cause than chance: the next
# one is started after a pause, which grows from the first to the last of these.
YOUNG_S = 2.0
PAUSE_MIN_S = 0.5
PAUSE_MAX_S = 30.0
# What a worker has beyond its grace until it is killed: for its lifespan, and for its own end. What
# one that is stuck has to say where.
KILL_AFTER_S = http.LIFESPAN_END_S + 8.0
TELL_S = 1.0
# Old and new ones at a reload, those that still end, and what SIGTTIN may add.
SEATS_MIN_COUNT = 64
FAILED_MAX_BYTES = 64 * 1024
SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1),
    *(signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD),
)

# What a worker runs: told its end of the channel and the seats, it returns its exit status.
Work = Callable[[socket.socket, Seats], int]


@dataclass(eq=False)
class Worker:
    pid: int
    channel: socket.socket
    generation: int
    seat: int
    begin_s: float = field(default_factory=time.monotonic)
    ready_s: float = math.inf
    is_ending: bool = False
    has_hung_up: bool = False  # its end of the channel is closed: its process will have ended
    kill_at_s: float = math.inf  # in time.monotonic()
    reason: str = ""  # why it does not start

    @property
    def is_ready(self) -> bool:
        return self.ready_s < math.inf


class Supervisor:
    """Keeps options.workers processes at `work`. ready(): called when the first ones are."""

    def __init__(
        self, options: argparse.Namespace, work: Work, ready: Callable[[], object]
    ) -> None:
        self._wanted = 1 if runs_threads(options) else options.workers or 1
        self._end_s = options.timeout_graceful_shutdown + KILL_AFTER_S
        self._drain_s = options.timeout_drain
        self._silence_max_s = options.timeout or math.inf
        self._work = work
        self._ready = ready
        self._seats = Seats(max(SEATS_MIN_COUNT, 4 * self._wanted))
        self._workers: list[Worker] = []
        self._generation = 0
        self._served_generation = -1  # the last one that was ready
        self._next_start_s = 0.0
        self._pause_s = 0.0
        self._looked_s = time.monotonic()
        self._code: int | None = None  # the exit status, when all ends
        self._signals = Signals(SIGNALS)
        self._watch = Watch(options, self._fork) if options.reload else None
        self._watchdog_s = systemd.watchdog_s()

    def run(self) -> int:
        """Until SIGTERM or SIGINT; 0, or the exit status of the workers that never were ready."""
        try:
            while True:
                self._tend()
                if self._code is not None and not self._workers:
                    break
                self._wait()
                for number in self._signals.take():
                    self._hear(number)
                self._look_at_files()
        finally:
            for worker in self._workers:
                os.kill(worker.pid, signal.SIGKILL)
            if self._watch is not None:
                self._watch.close()
            self._signals.close()
        return self._code or 0

    def _wait(self) -> None:
        channels = (worker.channel for worker in self._workers if not worker.has_hung_up)
        waited = [self._signals.reader, *channels]
        if self._watch is not None:
            waited.append(self._watch.channel)
        now_s = time.monotonic()
        wake_s = min(now_s + LOOK_S, *(worker.kill_at_s for worker in self._workers), math.inf)
        if len(self._current()) < self._wanted and self._code is None:
            wake_s = min(wake_s, self._next_start_s)
        readable(waited, max(0.0, wake_s - now_s))

    def _look_at_files(self) -> None:
        if self._watch is None:
            return
        changed = self._watch.changed()
        if self._watch.is_over:
            log.error("the process that watches files has ended: they are not watched any more")
            self._watch.close()
            self._watch = None
        elif changed and self._code is None:
            log.info("%s has changed", changed)
            self._hear(signal.SIGHUP)

    def _hear(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            is_quick = number == signal.SIGQUIT or self._code is not None
            self._code = self._code or 0
            systemd.notify("STOPPING=1")
            for worker in self._workers:
                self._stop(worker, is_quick)
        elif number == signal.SIGHUP and self._code is None:
            log.info("a new generation of workers is started")
            systemd.notify("RELOADING=1")
            self._generation += 1
            self._next_start_s = self._pause_s = 0.0
        elif number == signal.SIGUSR1:
            for worker in self._workers:
                if worker.is_ready:  # before, it has no ear for it, and opens them anew anyway
                    os.kill(worker.pid, signal.SIGUSR1)
        elif number == signal.SIGTTIN:
            self._wanted = min(self._wanted + 1, self._seats.count // 4)
        elif number == signal.SIGTTOU:
            self._wanted = max(1, self._wanted - 1)

    def _going_on(self) -> list[Worker]:
        return [worker for worker in self._workers if not worker.is_ending]

    def _current(self) -> list[Worker]:
        """Of the newest generation, those that go on."""
        return [one for one in self._going_on() if one.generation == self._generation]

    # ---- what has to be done ------------------------------------------------------------------

    def _tend(self) -> None:
        now_s = time.monotonic()
        # Who was stopped itself, or had no processor, knows nothing of the others.
        was_away = now_s - self._looked_s > 5 * LOOK_S
        self._looked_s = now_s
        if self._watchdog_s:
            systemd.notify("WATCHDOG=1")
        for worker in list(self._workers):
            self._listen(worker)
            if not was_away:
                self._feel(worker)
            if time.monotonic() > worker.kill_at_s:
                log.error("worker %d does not end: it is killed", worker.pid)
                os.kill(worker.pid, signal.SIGKILL)
                worker.kill_at_s = math.inf
            self._reap(worker)
        if self._code is not None:
            return
        current = self._current()
        if time.monotonic() >= self._next_start_s:
            while len(current) < self._wanted and (started := self._start()) is not None:
                current.append(started)
        if len(current) >= self._wanted and all(worker.is_ready for worker in current):
            self._are_ready(current)

    def _are_ready(self, current: list[Worker]) -> None:
        if self._served_generation != self._generation:
            if self._served_generation < 0:
                self._ready()
            else:
                log.info("the new generation serves, the old one makes room")
                systemd.notify("READY=1")
            self._served_generation = self._generation
        superfluous = [w for w in self._workers if w.generation != self._generation]
        for worker in superfluous + current[self._wanted :]:
            if not worker.is_ending:
                self._let_go(worker)

    def _listen(self, worker: Worker) -> None:
        try:
            while word := worker.channel.recv(FAILED_MAX_BYTES):
                if word == process.READY:
                    worker.ready_s = time.monotonic()
                elif word == process.ENDING:
                    self._expect_end(worker, self._end_s + self._drain_s)
                elif word.startswith(process.FAILED):
                    reason = word.removeprefix(process.FAILED)
                    worker.reason = reason.decode(errors="replace")  # it may be cut off
            worker.has_hung_up = True
        except (BlockingIOError, ConnectionError):
            return

    def _feel(self, worker: Worker) -> None:
        """Its loops have to run, however busy they are."""
        if not worker.is_ready or worker.is_ending:
            return
        silence_s = self._seats.silence_s(worker.seat)
        if silence_s > self._silence_max_s:
            log.error(
                "worker %d is stuck: its event loop has not run for %.0f s. It says where, and is "
                "killed",
                *(worker.pid, silence_s),
            )
            self._expect_end(worker, TELL_S)
            os.kill(worker.pid, signal.SIGUSR2)  # faulthandler's, in _be_worker

    def _reap(self, worker: Worker) -> None:
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if pid == 0:
            return
        self._listen(worker)  # its last words
        self._workers.remove(worker)
        self._seats.leave(worker.seat)
        worker.channel.close()
        if worker.is_ending:
            return
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            log.error("worker %d has died of %s", pid, signal.Signals(-code).name)
        elif worker.is_ready:
            log.error("worker %d has ended with exit status %d", pid, code)
        if time.monotonic() - worker.ready_s < YOUNG_S or not worker.is_ready:
            self._pause()
        else:
            self._pause_s = 0.0
        if not worker.is_ready:
            self._not_started(worker.generation, worker.reason, code)

    def _pause(self) -> None:
        self._pause_s = min(PAUSE_MAX_S, max(PAUSE_MIN_S, 2 * self._pause_s))
        self._next_start_s = time.monotonic() + self._pause_s

    def _not_started(self, generation: int, reason: str, code: int) -> None:
        """A worker has died before it was ready, or there is no process for it."""
        is_newer = generation == self._generation != self._served_generation
        if not is_newer:
            if reason:
                log.error("a worker does not start: %s", reason)
            return
        if reason:
            print(f"netpoll: {reason}", file=sys.stderr, flush=True)
        for other in self._current():
            self._let_go(other)
        if self._served_generation >= 0:
            log.error("the new generation does not start: the old one goes on")
            self._generation = self._served_generation
            systemd.notify("READY=1")
        elif self._watch is not None:
            log.error("the application does not start: waiting for a file to change")
            self._next_start_s = math.inf
        else:
            self._code = self._code or (code if code > 0 else 1)

    def _expect_end(self, worker: Worker, within_s: float) -> None:
        worker.is_ending = True
        worker.kill_at_s = min(worker.kill_at_s, time.monotonic() + within_s)

    def _stop(self, worker: Worker, is_quick: bool) -> None:
        is_draining = worker.is_ready and worker.is_ending
        self._expect_end(worker, self._end_s)
        if is_quick:
            os.kill(worker.pid, signal.SIGQUIT)
        elif is_draining:  # perhaps it stops already: a signal would be its second one
            self._tell(worker, process.STOP)
        else:
            os.kill(worker.pid, signal.SIGTERM)  # it is not reaped yet: the number is its own

    def _tell(self, worker: Worker, word: bytes) -> None:
        try:
            worker.channel.send(word)
        except OSError:
            log.debug("worker %d has gone by itself", worker.pid)

    def _let_go(self, worker: Worker) -> None:
        """Others serve in its place, or nobody is to."""
        if worker.is_ready:
            self._expect_end(worker, self._end_s + self._drain_s)
            self._tell(worker, process.DRAIN)
        else:
            self._stop(worker, is_quick=False)

    def _start(self) -> Worker | None:
        """None: there is no process, descriptor or seat for it. It is tried again after a pause."""
        free = set(range(self._seats.count)) - {worker.seat for worker in self._workers}
        if not free:  # until one of those ends that make room, which takes a bounded time
            self._next_start_s = time.monotonic() + PAUSE_MIN_S
            return None
        seat = min(free)
        process.flush_output()
        try:
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with its:
                pid = self._fork_with(ours)
                if pid == 0:
                    self._end_as_worker(its, seat)
        except OSError as exc:
            self._pause()
            reason = f"no process for a worker: {exc.strerror or exc}"
            self._not_started(self._generation, reason, 1)
            return None
        ours.setblocking(False)
        worker = Worker(pid, ours, self._generation, seat)
        self._workers.append(worker)
        return worker

    def _fork_with(self, channel: socket.socket) -> int:
        try:
            pid = self._fork()
        except OSError:
            channel.close()
            raise
        if pid == 0:
            channel.close()
        return pid

    def _fork(self) -> int:
        """What a terminal sends to all processes is the supervisor's business alone."""
        return self._signals.fork(
            ignored=(signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)
        )

    def _end_as_worker(self, channel: socket.socket, seat: int) -> NoReturn:
        """In the child process, which does not leave this function: it would go on as the
        supervisor that it is a copy of, and end the workers that it takes for its own."""
        code = 1
        try:
            code = self._be_worker(channel, seat)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code & 0xFF)

    def _be_worker(self, channel: socket.socket, seat: int) -> int:
        """Its copies of the others' channels would keep these open."""
        code = 1
        try:
            faulthandler.register(signal.SIGUSR2, all_threads=True)
            for other in self._workers:
                other.channel.close()
            if self._watch is not None:
                self._watch.channel.close()
            self._seats.take(seat)
            code = self._work(channel, self._seats)
        except AppError as exc:
            code = exc.code
            reason = str(exc).encode(errors="backslashreplace")
            with contextlib.suppress(OSError):  # the supervisor has gone
                channel.send(process.FAILED + reason[: FAILED_MAX_BYTES // 2])
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
            if not isinstance(exc.code, int | None):
                print(exc.code, file=sys.stderr)  # as the interpreter does at its end
        except BaseException:
            traceback.print_exc()
        finally:
            logging.shutdown()
            process.flush_output()
        return code
