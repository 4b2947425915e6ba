"""A ring of one's own."""

import errno
import os
import select
import signal
import threading
import time
from typing import Any

import pytest

uring = pytest.importorskip("netpoll.uring", reason="built without cffi", exc_type=ImportError)
ffi, lib = getattr(uring, "ffi", None), getattr(uring, "lib", None)


@pytest.fixture
def ring() -> Any:
    with uring.Ring(4) as ring:
        yield ring


def nop(ring: Any, user_data: int) -> None:
    entry = ring.get_sqe()
    lib.io_uring_prep_nop(entry)
    entry.user_data = user_data


def test_entries_complete_with_their_names(ring: Any) -> None:
    for i in range(4):
        nop(ring, i)
    with pytest.raises(BlockingIOError, match="submit"):
        ring.get_sqe()
    assert ring.submit_and_wait(4) == 4
    assert [ring.wait_cqe() for _ in range(4)] == [(i, 0, 0) for i in range(4)]
    assert ring.peek_cqe() is None


def test_waiting_ends_in_time(ring: Any) -> None:
    with pytest.raises(TimeoutError):
        ring.wait_cqe(0.01)
    nop(ring, 1)
    assert ring.submit() == 1
    assert ring.wait_cqe(10).user_data == 1


def test_registered_buffers_and_files(ring: Any) -> None:
    reader, writer = os.pipe()
    buffer = bytearray(16)
    ring.register_buffers([buffer])
    ring.register_files([reader])
    os.write(writer, b"fixed")
    entry = ring.get_sqe()
    lib.io_uring_prep_read_fixed(entry, 0, ffi.from_buffer(buffer), 16, (1 << 64) - 1, 0)
    entry.flags = uring.IOSQE_FIXED_FILE
    ring.submit_and_wait(1)
    assert ring.wait_cqe().res == 5
    assert buffer[:5] == b"fixed"
    ring.unregister_files()
    ring.unregister_buffers()
    with pytest.raises(OSError) as error:
        ring.unregister_buffers()
    assert error.value.errno == errno.ENXIO
    os.close(reader)
    os.close(writer)


def test_an_eventfd_counts_completions(ring: Any) -> None:
    counter = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    ring.register_eventfd(counter)
    nop(ring, 1)
    ring.submit()
    assert select.select([counter], [], [], 10)[0] == [counter]
    assert os.eventfd_read(counter) >= 1
    ring.unregister_eventfd()
    os.close(counter)


def test_what_the_kernel_knows(ring: Any) -> None:
    assert ring.supports(0)
    assert not ring.supports(250)
    assert ring.entries == 4
    assert ring.fileno() >= 0


def test_refused_set_up() -> None:
    with pytest.raises(OSError) as error:
        uring.Ring(0)
    assert error.value.errno == errno.EINVAL


def test_closed() -> None:
    ring = uring.Ring(4)
    fd = ring.fileno()
    ring.close()
    ring.close()
    for call in (ring.get_sqe, ring.submit, ring.peek_cqe, ring.wait_cqe, ring.fileno):
        with pytest.raises(ValueError, match="closed"):
            call()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_a_signals_handler_closes_it_in_a_wait() -> None:
    """The wait goes on in memory that the ring had (bug class 23)."""
    ring = uring.Ring(4)
    fd = ring.fileno()
    before = signal.signal(signal.SIGALRM, lambda *_: ring.close())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(ValueError, match="closed"):
            ring.wait_cqe(20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(OSError):
        os.fstat(fd)


def test_another_thread_closes_it_in_a_wait() -> None:
    ring = uring.Ring(4)
    fd = ring.fileno()
    buffer = bytearray(16)
    ring.register_buffers([buffer])
    closing = threading.Timer(0.05, ring.close)
    closing.start()
    with pytest.raises(TimeoutError):
        ring.wait_cqe(0.3)
    closing.join()
    buffer.extend(b"nobody exports it any more")
    with pytest.raises(OSError):
        os.fstat(fd)
    with pytest.raises(ValueError, match="closed"):
        ring.submit()


def test_another_thread_is_refused(ring: Any) -> None:
    raised: list[BaseException] = []

    def elsewhere() -> None:
        try:
            ring.submit()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert isinstance(raised[0], RuntimeError)


def test_a_child_is_refused(ring: Any) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            ring.submit()
        except RuntimeError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    nop(ring, 3)
    ring.submit_and_wait(1)
    assert ring.wait_cqe().user_data == 3


def test_waiting_lets_other_threads_run(ring: Any) -> None:
    reader, writer = os.pipe()
    buffer = bytearray(1)
    entry = ring.get_sqe()
    lib.io_uring_prep_read(entry, reader, ffi.from_buffer(buffer), 1, (1 << 64) - 1)
    ring.submit()

    def write_soon() -> None:
        time.sleep(0.05)
        os.write(writer, b"x")

    thread = threading.Thread(target=write_soon)
    thread.start()
    assert ring.wait_cqe(30).res == 1
    thread.join()
    os.close(reader)
    os.close(writer)
