"""add_reader and add_writer with closed objects, numbers that are reused, and unusual files."""

import asyncio
import contextlib
import ctypes
import errno
import io
import os
import pty
import select
import selectors
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..support import unix_pair, until

pytestmark = pytest.mark.control

libc = ctypes.CDLL(None, use_errno=True)


def ways(loop: Any, is_writer: bool) -> tuple[Callable[..., Any], Callable[..., bool]]:
    if is_writer:
        return loop.add_writer, loop.remove_writer
    return loop.add_reader, loop.remove_reader


# ---- objects that were closed ------------------------------------------------------------------


@pytest.mark.parametrize("is_writer", [False, True])
async def test_a_closed_object_is_found(loop: Any, is_writer: bool) -> None:
    add, remove = ways(loop, is_writer)
    left, right = unix_pair()
    add(left, print)
    left.close()
    assert remove(left) is True
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        remove(left)
    right.close()


@pytest.mark.netpoll_only  # asyncio's epoll set refuses the change of a closed number
async def test_both_directions_of_a_closed_object(loop: Any) -> None:
    left, right = unix_pair()
    loop.add_reader(left, print)
    loop.add_writer(left, print)
    left.close()
    assert loop.remove_writer(left) is True
    assert loop.remove_writer(left) is False  # it is watched still, for reading
    assert loop.remove_reader(left) is True
    with pytest.raises(ValueError):
        loop.remove_reader(left)
    right.close()


async def test_a_closed_object_is_watched_no_further(loop: Any) -> None:
    left, right = unix_pair()
    loop.add_reader(left, print)
    left.close()
    loop.add_reader(left, print)  # a handler for another
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        loop.add_writer(left, print)
    assert caught.value.errno == errno.EBADF
    with contextlib.suppress(ValueError):  # asyncio has forgotten all of it with that
        loop.remove_reader(left)
    right.close()


async def test_the_view_finds_closed_objects(loop: Any) -> None:
    left, right = unix_pair()
    number = left.fileno()
    loop.add_reader(left, print)
    key = loop._selector.get_key(left)
    assert (key.fileobj, key.fd, key.events) == (left, number, selectors.EVENT_READ)
    assert loop._selector.get_map()[left] == loop._selector.get_map()[number] == key
    left.close()
    assert loop._selector.get_key(left) == key
    assert loop._selector.get_map().get(left) == key
    assert loop.remove_reader(left)
    with pytest.raises(ValueError):
        loop._selector.get_key(left)
    with pytest.raises(KeyError):
        loop._selector.get_key(number)
    assert loop._selector.get_map().get(number) is None
    right.close()


@pytest.mark.parametrize("named", ["object", "number"])
async def test_a_closed_objects_number_is_another_files(loop: Any, named: str) -> None:
    """What is removed is the old file's watcher; the new file has one of its own."""
    left, right = unix_pair()
    number = left.fileno()
    loop.add_reader(left, print)
    left.close()
    others = unix_pair()
    assert others[0].fileno() == number
    assert loop.remove_reader(left if named == "object" else number)
    got: list[bytes] = []
    loop.add_reader(others[0], lambda: got.append(others[0].recv(10)))
    others[1].send(b"new")
    await until(lambda: got == [b"new"])
    assert loop.remove_reader(others[0])
    for sock in (right, *others):
        sock.close()


@pytest.mark.netpoll_only  # asyncio's selector does not look, and the new file is never ready
async def test_a_number_that_is_reused_while_watched(loop: Any) -> None:
    left, right = unix_pair()
    calls: list[str] = []
    loop.add_reader(left, calls.append, "old")
    await asyncio.sleep(0)
    left.close()
    others = unix_pair()
    assert others[0].fileno() not in (right.fileno(), -1)
    loop.add_reader(others[0], lambda: calls.append(others[0].recv(10).decode()))
    await asyncio.sleep(0.01)
    right.close()  # readiness of the old file
    await asyncio.sleep(0.01)
    others[1].send(b"new")
    await until(lambda: calls)
    assert calls == ["new"]
    assert loop.remove_reader(others[0])
    for sock in others:
        sock.close()


# ---- what has no poll is refused, all else is taken --------------------------------------------


def from_libc(name: str, *args: Any) -> int:
    number = getattr(libc, name)(*args)
    if number < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return number


def duplicate(file: Any) -> int:
    with file:
        return os.dup(file.fileno())


def opened(path: str) -> Callable[[], int]:
    return lambda: os.open(path, os.O_RDONLY | os.O_NONBLOCK)


FILES: dict[str, Callable[[], int]] = {
    "null": opened("/dev/null"),
    "zero": opened("/dev/zero"),
    "full": opened("/dev/full"),
    "random": opened("/dev/random"),
    "urandom": opened("/dev/urandom"),
    "ptmx": opened("/dev/ptmx"),
    "mounts": opened("/proc/mounts"),
    "status": opened("/proc/self/status"),
    "attribute": opened("/sys/kernel/uevent_seqnum"),
    "directory": opened("/"),
    "program": opened("/proc/self/exe"),
    "path": lambda: os.open("/", os.O_PATH),
    "memfd": lambda: os.memfd_create("x"),
    "deleted": lambda: duplicate(tempfile.TemporaryFile()),
    "eventfd": lambda: os.eventfd(0),
    "timerfd": lambda: from_libc("timerfd_create", 1, 0),
    "inotify": lambda: from_libc("inotify_init1", 0),
    "signalfd": lambda: from_libc("signalfd", -1, ctypes.create_string_buffer(128), 0),
    "pidfd": lambda: os.pidfd_open(os.getpid()),
    "epoll": lambda: duplicate(select.epoll()),
    "terminal": lambda: pty.openpty()[0],
    "pipe": lambda: os.pipe()[0],
    "socket": lambda: socket.socket().detach(),
}


def epoll_verdict(fd: int) -> int:
    """What epoll_ctl says: the reference for both backends."""
    with select.epoll() as asked:
        try:
            asked.register(fd, select.EPOLLIN)
        except OSError as error:
            return error.errno or errno.EIO
    return 0


@contextlib.contextmanager
def own_fds() -> Iterator[None]:
    """Closes what was opened meanwhile."""
    before = open_numbers()
    yield
    for number in open_numbers() - before:
        os.close(number)


def open_numbers() -> set[int]:
    names = os.listdir("/proc/self/fd")
    return {int(name) for name in names if os.path.lexists(f"/proc/self/fd/{name}")}


@pytest.mark.parametrize("is_writer", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_files_are_taken_as_epoll_takes_them(loop: Any, name: str, is_writer: bool) -> None:
    add, remove = ways(loop, is_writer)
    with own_fds():
        try:
            fd = FILES[name]()
        except OSError as error:
            pytest.skip(f"{name}: {error}")
        verdict = epoll_verdict(fd)
        if verdict:
            with pytest.raises(OSError) as caught:
                add(fd, print)
            assert caught.value.errno == verdict
            assert remove(fd) is False
        else:
            add(fd, print)
            assert remove(fd) is True


def test_refused_without_a_descriptor_left(loop: Any) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    file = tempfile.TemporaryFile()
    left, right = unix_pair()
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, limits[1]))
    try:
        with pytest.raises(PermissionError):
            loop.add_reader(file, print)
        loop.add_reader(left, print)
        assert loop.remove_reader(left)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for thing in (file, left, right):
        thing.close()


class Numbered:
    """An object with a fileno() that returns, or raises, what it was given."""

    def __init__(self, number: Any) -> None:
        self.number = number

    def fileno(self) -> Any:
        if isinstance(self.number, BaseException):
            raise self.number
        return self.number


@pytest.mark.parametrize("is_writer", [False, True])
async def test_what_stands_for_a_file(loop: Any, is_writer: bool) -> None:
    add, remove = ways(loop, is_writer)
    left, right = unix_pair()
    for number in (left.fileno(), str(left.fileno()), float(left.fileno())):
        add(Numbered(number), print)
        assert remove(left.fileno())
    for wrong in (None, "x", 1.5, b"1", io.StringIO(), Numbered(None), Numbered("x"), Numbered(-7),
                  -7, Numbered(ValueError()), Numbered(TypeError())):  # fmt: skip
        with pytest.raises(ValueError, match="Invalid file"):
            add(wrong, print)
        with pytest.raises(ValueError, match="Invalid file"):
            remove(wrong)
    for other in (RuntimeError, OSError):
        with pytest.raises(other):
            add(Numbered(other()), print)
        with pytest.raises(other):
            remove(Numbered(other()))
    for huge in (1 << 31, 1 << 40, 1 << 80, Numbered(1 << 40)):
        with pytest.raises((OverflowError, OSError)):
            add(huge, print)
        assert remove(huge) is False
    left.close()
    right.close()


async def test_pipe_transports_refuse_files(loop: Any) -> None:
    with own_fds():
        for connect in (loop.connect_read_pipe, loop.connect_write_pipe):
            for file in (tempfile.TemporaryFile(), open(os.memfd_create("x"), "r+b", 0)):
                with pytest.raises(ValueError, match="Pipe transport is"):
                    await connect(asyncio.Protocol, file)
                file.close()


@pytest.mark.parametrize("fd", [1 << 20, 1 << 30])
def test_a_number_that_is_no_descriptor_takes_no_memory(loop_factory: Any, fd: int) -> None:
    """By the way around the checks of add_reader: the backend refuses it itself."""
    loop = loop_factory()
    with pytest.raises(OSError) as raised:
        loop._add_reader(fd, print)
    assert raised.value.errno == errno.EBADF


def test_terminals_where_select_has_no_epoll(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """gevent takes it out of the module."""
    monkeypatch.delattr(select, "epoll")
    with own_fds():
        ours, theirs = pty.openpty()
        loop.add_reader(ours, loop.stop)
        os.write(theirs, b"x")
        loop.run_forever()
        assert loop.remove_reader(ours)
        with tempfile.TemporaryFile() as file, pytest.raises(PermissionError):
            loop.add_reader(file, print)
