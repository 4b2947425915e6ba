"""Child processes: subprocess_exec, subprocess_shell, and asyncio's Process over them."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support import SLOWNESS, digest, pattern, until

pytestmark = pytest.mark.control

PIPE = asyncio.subprocess.PIPE
SLEEP = ("sleep", "1000")
WARNED = "will report returncode 255"


def children() -> list[str]:
    """Children of this process that are not reaped yet."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += Path(f"/proc/self/task/{thread}/children").read_text().split()
    return found


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    yield
    gc.collect()
    deadline_s = time.monotonic() + 5 * SLOWNESS
    while (left := children()) and time.monotonic() < deadline_s:
        subprocess._cleanup()  # type: ignore[attr-defined]
        time.sleep(0.01)
    for pid in map(int, left):  # not the next test's trouble
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert left == []


class Watching(asyncio.SubprocessProtocol):
    """Keeps what a subprocess protocol is told, in order."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.data = {1: bytearray(), 2: bytearray()}
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.events.append("made")
        self.transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if self.events[-1] != ("data", fd):
            self.events.append(("data", fd))
        self.data[fd] += data

    def pipe_connection_lost(self, fd: int, exc: BaseException | None) -> None:
        self.events.append(("pipe lost", fd))

    def process_exited(self) -> None:
        self.events.append("exited")
        self.exited.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.events.append("lost")
        assert exc is None
        self.lost.set_result(None)


WAITING = ("sh", "-c", "read line; exit 3")  # ends when it is told to: see end_unseen


def end_unseen(pid: int, stdin: Any) -> None:
    """Lets a WAITING child end, without a turn of the loop in which that could be noticed."""
    stdin.write(b"go\n")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def run(*program: str, stdin: bytes | None = None, **options: Any) -> tuple[int, bytes]:
    """Return code and stdout of a program."""
    process = await asyncio.create_subprocess_exec(
        *program, stdin=PIPE if stdin is not None else None, stdout=PIPE, **options
    )
    out, _ = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out


# ---- what everybody does ------------------------------------------------------------------------


async def test_exec(loop: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", "cat; echo bad >&2; exit 3", stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert process.returncode is None and process.pid in map(int, children())
    data = pattern(3_000_000)
    out, err = await process.communicate(data)
    assert (digest(out), err, process.returncode) == (digest(data), b"bad\n", 3)
    assert await process.wait() == 3


async def test_shell(loop: Any) -> None:
    process = await asyncio.create_subprocess_shell("echo $((6 * 7)) | cat; exit 4", stdout=PIPE)
    assert await process.communicate() == (b"42\n", None)
    assert process.returncode == 4


async def test_streams_of_a_process(loop: Any) -> None:
    """A dialogue: nothing waits for the end."""
    process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None and process.stdout is not None
    for number in range(100):
        process.stdin.write(b"line %d\n" % number)
        await process.stdin.drain()
        assert await process.stdout.readline() == b"line %d\n" % number
    process.stdin.write(b"a:b\nc\n" + pattern(100_000))
    assert await process.stdout.readuntil(b":") == b"a:"
    assert await process.stdout.readexactly(4) == b"b\nc\n"
    process.stdin.close()
    await process.stdin.wait_closed()
    assert digest(await process.stdout.read()) == digest(pattern(100_000))
    assert process.stdout.at_eof()
    assert await process.wait() == 0


async def test_lines_by_iteration(loop: Any) -> None:
    process = await asyncio.create_subprocess_exec("seq", "1000", stdout=PIPE)
    assert process.stdout is not None
    assert [int(line) async for line in process.stdout] == list(range(1, 1001))
    assert await process.wait() == 0


async def test_many_at_once(loop: Any) -> None:
    jobs = [run("sh", "-c", f"echo {n}; exit {n}") for n in range(40)]
    assert await asyncio.gather(*jobs) == [(n, b"%d\n" % n) for n in range(40)]


async def test_output_that_nobody_reads_stops_the_child(loop: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        "head", "-c", "3000000", "/dev/zero", stdout=PIPE, limit=1000
    )
    assert process.stdout is not None
    await asyncio.sleep(0.1)
    assert process.returncode is None
    assert len(process.stdout._buffer) < 500_000  # type: ignore[attr-defined]
    assert len(await process.stdout.read()) == 3_000_000
    assert await process.wait() == 0


@pytest.mark.skipif(
    sys.version_info < (3, 11, 7), reason="asyncio's own half of it leaves a future unretrieved"
)
async def test_input_that_nobody_reads(loop: Any) -> None:
    process = await asyncio.create_subprocess_exec(*SLEEP, stdin=PIPE)
    assert process.stdin is not None
    process.stdin.write(bytes(1_000_000))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(process.stdin.drain(), 0.05)
    process.kill()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await process.stdin.drain()
    assert await process.wait() == -signal.SIGKILL


@pytest.mark.skipif(
    sys.version_info < (3, 11, 7), reason="asyncio's own half of it leaves a future unretrieved"
)
async def test_communicate_with_who_does_not_listen(loop: Any) -> None:
    assert await run("true", stdin=bytes(3_000_000)) == (0, b"")


# ---- the protocol -------------------------------------------------------------------------------


async def test_order_of_events(loop: Any) -> None:
    code = "read line; echo out; cat >/dev/null; echo err >&2; exit 5"
    transport, protocol = await loop.subprocess_exec(Watching, "sh", "-c", code)
    assert isinstance(transport, asyncio.SubprocessTransport)
    assert protocol.events == ["made"] and protocol.transport is transport
    assert transport.get_protocol() is protocol
    assert transport.get_returncode() is None and not transport.is_closing()
    assert isinstance(transport.get_extra_info("subprocess"), subprocess.Popen)
    transport.get_pipe_transport(0).write(b"go\n")
    await until(lambda: protocol.data[1] == b"out\n")
    transport.get_pipe_transport(0).close()
    await protocol.lost
    events = protocol.events
    assert protocol.data == {1: b"out\n", 2: b"err\n"}
    assert sorted(map(str, events)) == sorted(
        map(
            str,
            [
                "made",
                ("data", 1),
                ("pipe lost", 0),
                ("data", 2),
                ("pipe lost", 1),
                ("pipe lost", 2),
                "exited",
                "lost",
            ],
        )
    )
    assert events[0] == "made" and events[-1] == "lost"
    for fd in (1, 2):
        assert events.index(("data", fd)) < events.index(("pipe lost", fd))
    assert transport.get_returncode() == 5
    transport.close()


async def test_pipes_that_were_not_asked_for(loop: Any) -> None:
    transport, protocol = await loop.subprocess_exec(
        Watching, "sh", "-c", "cat", stdin=subprocess.DEVNULL, stdout=None, stderr=subprocess.STDOUT
    )
    assert [transport.get_pipe_transport(fd) for fd in range(4)] == [None] * 4
    await protocol.lost
    assert protocol.events == ["made", "exited", "lost"]
    transport.close()


async def test_repr(loop: Any) -> None:
    transport, protocol = await loop.subprocess_shell(Watching, "exit 3")
    assert f"pid={transport.get_pid()}" in repr(transport)
    await protocol.lost
    assert "returncode=3" in repr(transport)
    transport.close()
    assert "closed" in repr(transport)


async def test_data_before_the_end_of_a_short_life(loop: Any) -> None:
    """A child that is gone before its pipes are polled: nothing is lost, the order holds."""
    for _ in range(30):
        transport, protocol = await loop.subprocess_exec(Watching, "echo", "x")
        await protocol.lost
        assert protocol.data[1] == b"x\n"
        assert protocol.events[0] == "made" and protocol.events[-1] == "lost"
        transport.close()


# ---- signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "terminate", "send_signal"])
async def test_signals(loop: Any, how: str) -> None:
    process = await asyncio.create_subprocess_exec(*SLEEP)
    number = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM}.get(how, signal.SIGUSR1)
    getattr(process, how)(*[number] if how == "send_signal" else [])
    assert await process.wait() == -number


async def test_signals_after_the_end(loop: Any) -> None:
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    for send in (process.kill, process.terminate, lambda: process.send_signal(signal.SIGINT)):
        with pytest.raises(ProcessLookupError):
            send()


@pytest.mark.netpoll_only  # asyncio's thread takes the status at once
async def test_signals_to_a_zombie(loop: Any) -> None:
    """It has ended, and we have not been told: no error, and nobody else gets the signal."""
    process = await asyncio.create_subprocess_exec(*WAITING, stdin=PIPE)
    end_unseen(process.pid, process.stdin)
    process.send_signal(signal.SIGTERM)
    process.kill()
    assert await process.wait() == 3


async def test_a_core_dump_is_a_signal(loop: Any) -> None:
    code = "import os, resource as r; r.setrlimit(r.RLIMIT_CORE, (0, 0)); os.abort()"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == -signal.SIGABRT


# ---- closing and cancelling ---------------------------------------------------------------------


async def test_close_kills(loop: Any) -> None:
    transport, protocol = await loop.subprocess_exec(Watching, *SLEEP)
    transport.close()
    transport.close()
    assert transport.is_closing()
    await protocol.lost
    assert transport.get_returncode() == -signal.SIGKILL
    assert children() == []


@pytest.mark.netpoll_only
async def test_close_after_the_end_kills_nobody(loop: Any) -> None:
    transport, protocol = await loop.subprocess_exec(Watching, *WAITING)
    end_unseen(transport.get_pid(), transport.get_pipe_transport(0))
    transport.close()
    await protocol.lost
    assert transport.get_returncode() == 3


@pytest.mark.parametrize("turns_count", range(8))
async def test_cancel_while_starting(loop: Any, turns_count: int) -> None:
    """However far it got: the child is dead and reaped when the cancelled task has ended."""
    start = asyncio.create_subprocess_exec(*SLEEP, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    task = asyncio.ensure_future(start)
    for _ in range(turns_count):
        await asyncio.sleep(0)
    task.cancel()
    try:
        process = await task
    except asyncio.CancelledError:
        await until(lambda: children() == [])
    else:  # it had started
        process.kill()
        await process.communicate()


async def test_cancel_of_wait(loop: Any) -> None:
    process = await asyncio.create_subprocess_exec(*SLEEP)
    waits = [asyncio.ensure_future(process.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waits[1].cancel()
    process.kill()
    results = await asyncio.gather(*waits, return_exceptions=True)
    assert [results[0], results[2]] == [-signal.SIGKILL] * 2
    assert isinstance(results[1], asyncio.CancelledError)


async def test_what_cannot_be_started(loop: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await asyncio.create_subprocess_exec("no such program", stdin=PIPE, stdout=PIPE)
    with pytest.raises(NotADirectoryError):
        await asyncio.create_subprocess_exec("true", cwd="/dev/null", stdout=PIPE)
    for wrong in (
        {"text": True},
        {"universal_newlines": True},
        {"encoding": "utf-8"},
        {"bufsize": 10},
    ):
        with pytest.raises(ValueError):
            await asyncio.create_subprocess_exec("true", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        await loop.subprocess_shell(Watching, ["not", "a", "string"])


async def test_connection_made_fails(loop: Any, errors: list[dict[str, Any]]) -> None:
    class Failing(Watching):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            raise ZeroDivisionError

    transport, protocol = await loop.subprocess_exec(Failing, "echo", "x")
    await protocol.lost
    assert [type(context["exception"]) for context in errors] == [ZeroDivisionError]
    errors.clear()
    assert protocol.data[1] == b"x\n"
    transport.close()


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # Popen's
@pytest.mark.netpoll_only
def test_running_when_the_loop_closes(loop_factory: Any) -> None:
    """Nobody will wait for it any more: it is killed, and a warning says so."""
    loop = loop_factory()
    transport, protocol = loop.run_until_complete(
        loop.subprocess_exec(Watching, *SLEEP, stdin=None, stdout=None, stderr=None)
    )
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport, protocol
        gc.collect()


# ---- other people's children --------------------------------------------------------------------


async def test_other_children_keep_their_status(loop: Any) -> None:
    other = subprocess.Popen(["sh", "-c", "exit 7"])
    assert await run("sh", "-c", "exit 3") == (3, b"")
    await asyncio.sleep(0.01)
    assert other.wait() == 7


@pytest.mark.netpoll_only
async def test_somebody_else_reaps(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    process = await asyncio.create_subprocess_exec(*WAITING, stdin=PIPE)
    end_unseen(process.pid, process.stdin)
    os.waitpid(process.pid, 0)
    process.kill()  # a number that is nobody's, or somebody else's: no signal is sent
    assert await process.wait() == 255
    assert WARNED in caplog.text


@pytest.mark.netpoll_only
async def test_the_popen_object_reaps(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Asked through get_extra_info, it takes the status; it is asked for it in turn."""
    transport, protocol = await loop.subprocess_exec(Watching, *WAITING)
    end_unseen(transport.get_pid(), transport.get_pipe_transport(0))
    assert transport.get_extra_info("subprocess").wait() == 3
    await protocol.lost
    assert transport.get_returncode() == 3
    assert not caplog.records
    transport.close()


@pytest.mark.netpoll_only
async def test_children_that_reap_themselves(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
        assert await process.wait() == 255
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert WARNED in caplog.text


async def test_handlers_of_sigchld_are_left_alone(loop: Any) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda *_args: seen.append(1))
    try:
        handler = signal.getsignal(signal.SIGCHLD)
        assert await run("sh", "-c", "exit 3") == (3, b"")
        assert signal.getsignal(signal.SIGCHLD) is handler
        await until(lambda: seen)
    finally:
        signal.signal(signal.SIGCHLD, before)
    loop.add_signal_handler(signal.SIGCHLD, seen.append, 2)
    try:
        assert await run("sh", "-c", "exit 4") == (4, b"")
        await until(lambda: 2 in seen)
    finally:
        loop.remove_signal_handler(signal.SIGCHLD)


async def test_signal_handlers_while_children_run(loop: Any) -> None:
    """Ctrl-C goes to the whole group; who handles it in the parent also waits for the child."""
    seen: list[int] = []
    loop.add_signal_handler(signal.SIGINT, seen.append, 1)
    try:
        code = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.01; done"
        process = await asyncio.create_subprocess_exec("sh", "-c", code, stdout=PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        os.kill(os.getpid(), signal.SIGINT)
        process.send_signal(signal.SIGINT)
        assert await process.communicate() == (b"caught\n", None)
        assert process.returncode == 9
        await until(lambda: seen == [1])
    finally:
        loop.remove_signal_handler(signal.SIGINT)


# ---- where it runs ------------------------------------------------------------------------------


def test_in_another_thread(loop: Any) -> None:
    results: list[Any] = []

    async def main() -> None:
        results.append(await run("sh", "-c", "cat; exit 3", stdin=b"text"))

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    thread.join(30 * SLOWNESS)
    assert results == [(3, b"text")]


@pytest.mark.netpoll_only
async def test_no_thread_watches(loop: Any) -> None:
    before = threading.active_count()
    process = await asyncio.create_subprocess_exec(*SLEEP)
    assert threading.active_count() == before
    process.kill()
    await process.wait()


@pytest.mark.netpoll_only
async def test_a_grandchild_keeps_the_pipes(loop: Any) -> None:
    """wait() is for the process; its pipes may live on."""
    process = await asyncio.create_subprocess_shell("sleep 1000 & echo $!; exit 3", stdout=PIPE)
    assert process.stdout is not None
    grandchild = int(await process.stdout.readline())
    assert await process.wait() == 3
    os.kill(grandchild, signal.SIGKILL)
    assert await process.stdout.read() == b""


@pytest.mark.netpoll_only
@pytest.mark.parametrize("refusal", [AttributeError, PermissionError])
async def test_without_pidfd(loop: Any, monkeypatch: Any, refusal: type[Exception]) -> None:
    """An old kernel, a filter or an old Python: a thread for each child does the same."""

    def refused(_pid: int, _flags: int = 0) -> int:
        raise refusal("pidfd_open")

    monkeypatch.setattr(os, "pidfd_open", refused)
    before = threading.active_count()
    process = await asyncio.create_subprocess_exec(*SLEEP)
    assert threading.active_count() == before + 1
    process.send_signal(signal.SIGUSR1)
    assert await process.wait() == -signal.SIGUSR1
    assert await run("sh", "-c", "cat; exit 3", stdin=b"text") == (3, b"text")
    jobs = [run("sh", "-c", f"exit {n}") for n in range(10)]
    assert await asyncio.gather(*jobs) == [(n, b"") for n in range(10)]
    transport, protocol = await loop.subprocess_exec(Watching, *SLEEP)
    transport.close()
    await protocol.lost
    assert transport.get_returncode() == -signal.SIGKILL


# ---- Popen's options ----------------------------------------------------------------------------


async def test_options(loop: Any, tmp_path: Path) -> None:
    assert await run("pwd", cwd=tmp_path) == (0, os.fsencode(tmp_path.resolve()) + b"\n")
    assert await run("sh", "-c", "echo $A", env={"A": "b"}) == (0, b"b\n")
    assert await run("sh", "-c", "umask", umask=0o27) == (0, b"0027\n")
    ask = (sys.executable, "-c", "import os; print(os.getsid(0), os.getpgid(0))")
    _, out = await run(*ask, start_new_session=True)
    assert int(out.split()[0]) != os.getsid(0)
    _, out = await run(*ask, process_group=0)
    assert int(out.split()[1]) != os.getpgid(0)
    assert await run("sh", "-c", "echo $0", executable="/bin/sh") == (0, b"sh\n")


async def test_descriptors(loop: Any, tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    command = f"echo through >/dev/fd/{write_fd}"
    assert await run("sh", "-c", command, pass_fds=(write_fd,)) == (0, b"")
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        assert file.read() == b"through\n"
    (tmp_path / "in").write_bytes(b"from a file")
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        process = await asyncio.create_subprocess_exec("cat", stdin=source, stdout=target)
        assert process.stdin is None and process.stdout is None
        assert await process.wait() == 0
    assert (tmp_path / "out").read_bytes() == b"from a file"
    _, out = await run("sh", "-c", "echo out; echo err >&2", stderr=asyncio.subprocess.STDOUT)
    assert out == b"out\nerr\n"


async def test_nothing_of_the_loop_is_inherited(loop: Any) -> None:
    """close_fds=False passes on what is inheritable: no ring, epoll set or pidfd."""
    other = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    _, out = await run("ls", "-l", "/proc/self/fd", close_fds=False)
    for kind in (b"io_uring", b"eventpoll", b"eventfd", b"pidfd"):
        assert kind not in out
    await other.communicate(b"")


async def test_preexec_fn(loop: Any) -> None:
    """Python runs in the forked child, where the parent's loop is only a memory."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", "echo $PPID", stdout=PIPE, preexec_fn=lambda: os.umask(0)
    )
    assert await process.communicate() == (b"%d\n" % os.getpid(), None)
    assert await run("echo", "the loop works") == (0, b"the loop works\n")
