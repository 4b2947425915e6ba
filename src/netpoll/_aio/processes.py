"""Child processes: the transport of subprocess_exec and subprocess_shell.

subprocess.Popen starts them. Their end is a readiness like any other: pidfd_open(2) gives a
descriptor that polls readable when the process has ended, and then exactly this process is waited
for. No thread, no SIGCHLD handler, nobody else's children, and it works in every thread that runs
a loop. Where the kernel or a seccomp filter refuses pidfd_open, one thread for each child waits
instead (see docs/processes.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import select
import signal
import subprocess
import threading
import warnings
from asyncio import log
from collections.abc import Callable
from typing import Any

from netpoll._aio.host import Host
from netpoll._native.transport.pipe import ChildPipe
from netpoll.errors import REFUSED_ERRNOS

__all__ = ["SubprocessTransport"]

# What asyncio reports, too, when somebody else has taken a child's status.
UNKNOWN_RETURNCODE = 255
# wait() resumes when the process has ended; the ends of its pipes, which the kernel told before
# that, need at most this many turns of the loop to be seen and should come first.
EXIT_GRACE_TURNS_COUNT = 8


class SubprocessTransport(asyncio.SubprocessTransport):
    """One child process. Made by the loop; in the loop's thread only."""

    def __init__(
        self,
        loop: Host,
        protocol: Any,
        popen: subprocess.Popen[bytes],
        watch: ExitWatch,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__({"subprocess": popen, **(extra or {})})
        self._loop = loop
        self._protocol = protocol
        self._popen: subprocess.Popen[bytes] | None = popen
        self._watch = watch
        self._pid = popen.pid
        self._returncode: int | None = None
        self._closed = False
        self._finished = False
        self._started = False
        self._early: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._pipes: dict[int, ChildPipe] = {}
        self._exit_waiters: list[asyncio.Future[int]] | None = []
        watch.ended = self._ended

    def __repr__(self) -> str:
        info = [type(self).__name__]
        if self._closed:
            info.append("closed")
        info.append(f"pid={self._pid}")
        info.append("running" if self._returncode is None else f"returncode={self._returncode}")
        for fd, name in enumerate(("stdin", "stdout", "stderr")):
            if fd in self._pipes:
                info.append(f"{name}={self._pipes[fd].transport!r}")
        return f"<{' '.join(info)}>"

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._closed = True
            self._kill_if_running()

    # -- birth ----------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """The pipes get their transports, then the protocol its connection_made."""
        assert self._popen is not None
        popen, loop = self._popen, self._loop
        for fd, file, connect in (
            (0, popen.stdin, loop.connect_write_pipe),
            (1, popen.stdout, loop.connect_read_pipe),
            (2, popen.stderr, loop.connect_read_pipe),
        ):
            if file is not None:
                pipe = self._pipes[fd] = ChildPipe(self, fd)
                await connect(functools.partial(_same, pipe), file)
        waiter = loop.create_future()
        loop.call_soon(self._connection_made)
        loop.call_soon(_resolve, waiter)
        await waiter

    def _connection_made(self) -> None:
        try:
            self._protocol.connection_made(self)
        finally:
            self._started = True
            early, self._early = self._early, []
            for callback, args in early:
                self._loop.call_soon(callback, *args)
        if type(self._protocol) is asyncio.subprocess.SubprocessStreamProtocol:
            for fd, reader in ((1, self._protocol.stdout), (2, self._protocol.stderr)):
                if reader is not None:
                    self._pipes[fd].serve_reader(reader)

    def _give_up(self) -> None:
        """Start-up has failed or was cancelled. Runs a turn later: then what was begun is made."""
        assert self._popen is not None
        for fd, file in enumerate((self._popen.stdin, self._popen.stdout, self._popen.stderr)):
            if file is not None and (fd not in self._pipes or self._pipes[fd].transport is None):
                self._pipes.pop(fd, None)
                file.close()
        if not self._started:
            self._connection_made()
        self.close()

    def _call(self, callback: Callable[..., object], *args: Any) -> None:
        """Tells the protocol something in the next turn; not before connection_made."""
        if self._started:
            self._loop.call_soon(callback, *args)
        else:
            self._early.append((callback, args))

    # -- the end --------------------------------------------------------------------------------

    def _ended(self, returncode: int | None) -> None:
        """Called by the watch. The next turn gives what the pipes still hold a chance to be first.

        None: somebody else has taken the status.
        """
        assert self._popen is not None
        if returncode is None:
            returncode = self._popen.returncode  # perhaps by this very object's poll() or wait()
        if returncode is None:
            returncode = UNKNOWN_RETURNCODE
            log.logger.warning(
                "Unknown child process pid %d, will report returncode %d", self._pid, returncode
            )
        self._popen.returncode = returncode
        self._loop.call_soon(self._process_exited, returncode)

    def _process_exited(self, returncode: int) -> None:
        if self._loop.get_debug():
            log.logger.info("%r exited with return code %r", self, returncode)
        self._returncode = returncode
        self._call(self._protocol.process_exited)
        self._try_finish()
        if not self._finished:
            self._wake_waiters_in(EXIT_GRACE_TURNS_COUNT)

    def _wake_waiters_in(self, turns_count: int) -> None:
        """A grandchild that keeps the pipes open does not keep wait() waiting."""
        if turns_count and not self._finished:
            self._loop.call_soon(self._wake_waiters_in, turns_count - 1)
        else:
            self._wake_waiters()

    def _wake_waiters(self) -> None:
        assert self._returncode is not None
        waiters, self._exit_waiters = self._exit_waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(self._returncode)

    def _pipe_lost(self, fd: int, exc: BaseException | None) -> None:
        self._call(self._protocol.pipe_connection_lost, fd, exc)
        self._try_finish()

    def _try_finish(self) -> None:
        if self._returncode is None or self._finished:
            return
        if all(pipe.disconnected for pipe in self._pipes.values()):
            self._finished = True
            self._call(self._call_connection_lost)

    def _call_connection_lost(self) -> None:
        try:
            self._protocol.connection_lost(None)
        finally:
            self._wake_waiters()
            self._popen = None
            self._protocol = None

    async def _wait(self) -> int:
        """The return code, once the process has ended. asyncio.subprocess.Process.wait()."""
        if self._returncode is None and self._exit_waiters is not None:
            waiter: asyncio.Future[int] = self._loop.create_future()
            self._exit_waiters.append(waiter)
            return await waiter
        assert self._returncode is not None
        return self._returncode

    def close(self) -> None:
        """Closes the pipes and kills the process if it runs; its end is still waited for."""
        if self._closed:
            return
        self._closed = True
        self._kill_if_running()
        for pipe in self._pipes.values():
            if pipe.transport is not None:
                pipe.transport.close()

    def _kill_if_running(self) -> None:
        if self._popen is None or self._returncode is not None or self._watch.has_ended():
            return
        if self._loop.get_debug():
            log.logger.warning("Close running child process: kill %r", self)
        with contextlib.suppress(PermissionError):  # it has become another user's, and goes on
            self._popen.kill()

    def is_closing(self) -> bool:
        return self._closed

    # -- signals --------------------------------------------------------------------------------

    def send_signal(self, signal: int) -> None:
        """Nothing happens once the process has ended; never does another process get the signal.

        Raises ProcessLookupError after connection_lost, PermissionError for another user's process.
        """
        if self._popen is None:
            raise ProcessLookupError(f"process {self._pid} has ended")
        if self._returncode is None:
            self._watch.send_signal(signal)

    def terminate(self) -> None:
        """SIGTERM; see send_signal."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; see send_signal."""
        self.send_signal(signal.SIGKILL)

    # -- what is known about it -----------------------------------------------------------------

    @property
    def _proc(self) -> subprocess.Popen[bytes] | None:
        return self._popen

    def get_pid(self) -> int:
        return self._pid

    def get_returncode(self) -> int | None:
        """None while it runs; -N when signal N ended it."""
        return self._returncode

    def get_pipe_transport(self, fd: int) -> asyncio.BaseTransport | None:
        """The transport of the child's descriptor 0, 1 or 2; None if that is no pipe."""
        return self._pipes[fd].transport if fd in self._pipes else None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol


# ---- how the end of a process is noticed ----------------------------------------------------


class ExitWatch:
    """Tells in the loop that one child has ended, and how; sends signals to it until then."""

    ended: Callable[[int | None], object]  # set before the loop's next turn

    def stop(self) -> None:
        """No callback from here on. Safe to call twice, and on a closed loop."""
        # Whom it tells holds it: a watch that is over must not lead back.
        self.ended = _tell_nobody

    def _tell(self, returncode: int | None) -> None:
        """The end, once. None: somebody else has taken the status."""
        ended = self.ended
        self.stop()
        ended(returncode)

    def has_ended(self) -> bool:
        """Without waiting, and without taking the status."""
        raise NotImplementedError

    def send_signal(self, number: int) -> None:
        """Nothing happens when the process has ended."""
        raise NotImplementedError


class PidfdWatch(ExitWatch):
    """By a pidfd, polled by the loop. A pidfd never means another process, a pid may."""

    def __init__(self, loop: Host, pid: int) -> None:
        """Raises OSError where pidfd_open is refused."""
        self._loop = loop
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)  # close-on-exec
        try:
            loop._add_reader(self._pidfd, self._readable)
        except BaseException:
            os.close(self._pidfd)
            raise
        loop._child_watches.add(self)

    def _readable(self) -> None:
        if self.has_ended():
            self._tell(take_returncode(self._pid, self._pidfd))

    def stop(self) -> None:
        super().stop()
        if self._pidfd < 0:
            return
        if not self._loop.is_closed():
            self._loop._remove_reader(self._pidfd)
        self._loop._child_watches.discard(self)
        os.close(self._pidfd)
        self._pidfd = -1

    def has_ended(self) -> bool:
        if self._pidfd < 0:
            return not self._loop.is_closed()
        ready = select.poll()
        ready.register(self._pidfd, select.POLLIN)
        return bool(ready.poll(0))

    def send_signal(self, number: int) -> None:
        if self._pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except OSError as error:
                if error.errno not in REFUSED_ERRNOS:
                    raise
                if not self.has_ended():  # then the number is still this child's
                    os.kill(self._pid, number)


class ThreadWatch(ExitWatch):
    """By a thread that sleeps in waitid(2) and leaves the status to be taken in the loop."""

    def __init__(self, loop: Host, pid: int) -> None:
        self._loop = loop
        self._pid = pid
        self._stopped = False
        self._taken: int | None = None  # the return code
        name = f"netpoll-waitid-{pid}"
        threading.Thread(target=self._sleep, name=name, daemon=True).start()
        loop._child_watches.add(self)

    def _sleep(self) -> None:
        with contextlib.suppress(ChildProcessError):  # somebody else has taken the status
            try:
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
            except OSError as error:
                if error.errno not in REFUSED_ERRNOS:
                    raise
                self._take(0)  # no way to wait without it
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._noticed)

    def _take(self, flags: int) -> None:
        """By waitpid(2), where waitid(2) is refused. Raises ChildProcessError."""
        pid, status = os.waitpid(self._pid, flags)
        if pid:
            self._taken = os.waitstatus_to_exitcode(status)

    def _noticed(self) -> None:
        if self._stopped:
            return
        self._tell(take_returncode(self._pid) if self._taken is None else self._taken)

    def stop(self) -> None:
        super().stop()
        self._loop._child_watches.discard(self)
        self._stopped = True

    def has_ended(self) -> bool:
        if self._stopped:
            return not self._loop.is_closed()
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self._pid, flags) is not None
        except ChildProcessError:
            return True
        except OSError as error:
            if error.errno not in REFUSED_ERRNOS:
                raise
        with contextlib.suppress(ChildProcessError):  # the thread has it, or somebody else
            self._take(os.WNOHANG)
            return self._taken is not None
        return True

    def send_signal(self, number: int) -> None:
        if not self.has_ended():  # then the number is still this child's
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)


def _tell_nobody(_returncode: int | None) -> None:
    """Where a watch that was stopped leads."""


def returncode_of(status: os.waitid_result) -> int:
    """As Popen.returncode: the exit status, or the negative number of the signal that ended it."""
    return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status


def take_returncode(pid: int, pidfd: int = -1) -> int | None:
    """Of a child that has ended, by the newest call there is. None: nobody can tell any more."""
    ways = [(os.P_PID, pid)]  # its own number until its status is taken
    if pidfd >= 0:
        ways.insert(0, (os.P_PIDFD, pidfd))  # Linux 5.4, a version after pidfd_open
    try:
        for way in ways:
            try:
                status = os.waitid(*way, os.WEXITED | os.WNOHANG)
            except OSError as error:
                if error.errno not in REFUSED_ERRNOS:
                    raise
            else:
                return None if status is None else returncode_of(status)
        ended_pid, code = os.waitpid(pid, os.WNOHANG)
    except OSError:  # ECHILD, or all three are refused
        return None
    return os.waitstatus_to_exitcode(code) if ended_pid else None


def exit_watch(loop: Host, pid: int) -> ExitWatch:
    """A PidfdWatch where the kernel allows it, else a ThreadWatch."""
    try:
        return PidfdWatch(loop, pid)
    except (AttributeError, OSError):  # no such call in this Python; refused; no descriptor left
        return ThreadWatch(loop, pid)


# ---- starting -------------------------------------------------------------------------------


async def start_process(
    loop: Host,
    protocol: asyncio.SubprocessProtocol,
    args: Any,
    shell: bool,
    stdin: Any,
    stdout: Any,
    stderr: Any,
    bufsize: int,
    extra: dict[str, Any] | None = None,
    **kwargs: Any,
) -> SubprocessTransport:
    """Starts a child and connects its pipes; returns after protocol.connection_made.

    kwargs are Popen's. Raises what Popen raises. When it is cancelled the child is killed, and
    waited for.
    """
    popen = subprocess.Popen(
        args, shell=shell, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=bufsize, **kwargs
    )
    try:
        watch = exit_watch(loop, popen.pid)
    except BaseException:  # no thread, no memory
        popen.kill()
        popen.wait()
        raise
    transport = SubprocessTransport(loop, protocol, popen, watch, extra)
    if loop.get_debug():
        program = args if shell else args[0]
        log.logger.debug("process %r created: pid %s", program, popen.pid)
    try:
        await transport._connect()
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:
        transport._kill_if_running()
        loop.call_soon(transport._give_up)
        await transport._wait()
        raise
    return transport


def _same(pipe: ChildPipe) -> ChildPipe:
    return pipe


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
