"""signal.set_wakeup_fd() is the program's: Twisted, trio's guest mode and GUI toolkits use it."""

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ..support import child_output, child_says, talking_child, until

pytestmark = pytest.mark.control


@contextmanager
def own_pipe() -> Iterator[tuple[int, int]]:
    """A pipe to be set as wake-up descriptor, and SIGUSR1 handled by nobody in particular."""
    ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    handler = signal.signal(signal.SIGUSR1, lambda *_args: None)
    try:
        yield ends
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, handler)
        for fd in ends:
            os.close(fd)


def current_wakeup_fd() -> int:
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return fd


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_programs_own_pipe_is_served(loop: Any, when: str) -> None:
    got: list[bytes] = []

    async def main() -> None:
        if when == "during":
            assert signal.set_wakeup_fd(write_end) == -1  # trio warns of anybody else's
        loop.add_reader(read_end, lambda: got.append(os.read(read_end, 100)))
        for count in range(1, 4):
            os.kill(os.getpid(), signal.SIGUSR1)
            await until(lambda count=count: len(got) == count)
        loop.remove_reader(read_end)

    with own_pipe() as (read_end, write_end):
        if when == "before":
            signal.set_wakeup_fd(write_end)
        loop.run_until_complete(main())
        assert got == [bytes([signal.SIGUSR1])] * 3
        assert current_wakeup_fd() == write_end  # it outlives the run


async def test_none_is_set_without_handlers(loop: Any) -> None:
    assert current_wakeup_fd() == -1
    await asyncio.sleep(0.01)
    assert current_wakeup_fd() == -1


def test_handlers_take_it_as_on_asyncio(loop: Any) -> None:
    seen: list[int] = []

    async def main() -> None:
        loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
        loop.add_signal_handler(signal.SIGUSR2, seen.append, 2)
        assert current_wakeup_fd() not in (-1, write_end)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            count = len(seen)
            os.kill(os.getpid(), number)
            await until(lambda count=count: len(seen) == count + 1)
        assert loop.remove_signal_handler(signal.SIGUSR1)
        assert current_wakeup_fd() not in (-1, write_end)
        assert loop.remove_signal_handler(signal.SIGUSR2)
        assert current_wakeup_fd() == -1

    with own_pipe() as (_, write_end):
        signal.set_wakeup_fd(write_end)
        loop.run_until_complete(main())
        assert seen == [1, 2]
        assert current_wakeup_fd() == -1


def test_handlers_from_before_the_run(loop: Any) -> None:
    """What arrived between two runs is served in the next."""
    seen: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    try:
        for count in range(1, 4):
            os.kill(os.getpid(), signal.SIGUSR1)
            loop.run_until_complete(until(lambda count=count: len(seen) == count))
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.parametrize("when", ["before", "during"])
def test_handlers_of_a_loop_in_another_thread(loop: Any, when: str) -> None:
    """The main thread adds the handler; its callback runs in the loop's thread."""
    called = threading.Event()
    threads: list[int] = []

    def handler() -> None:
        threads.append(threading.get_ident())
        called.set()

    runner = threading.Thread(target=loop.run_forever)
    if when == "before":
        loop.add_signal_handler(signal.SIGUSR1, handler)
    runner.start()
    while not loop.is_running():
        time.sleep(0.001)
    if when == "during":
        loop.add_signal_handler(signal.SIGUSR1, handler)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert called.wait(10)
    assert threads == [runner.ident]
    assert loop.remove_signal_handler(signal.SIGUSR1)
    loop.call_soon_threadsafe(loop.stop)
    runner.join()


@pytest.mark.parametrize("has_own_pipe", [False, True])
@pytest.mark.parametrize("has_timer", [False, True])
def test_a_signal_ends_the_wait(loop: Any, has_own_pipe: bool, has_timer: bool) -> None:
    """Python's handler runs at once, however deep the loop sleeps, and whoever has the pipe."""

    class Alarm(Exception):
        pass

    def handler(*_args: object) -> None:
        raise Alarm

    timer = loop.call_later(1000, print) if has_timer else None
    with own_pipe() as (_, write_end):
        if has_own_pipe:
            signal.set_wakeup_fd(write_end)
        handler_before = signal.signal(signal.SIGALRM, handler)
        try:
            for _ in range(50):
                start_s = time.monotonic()
                with pytest.raises(Alarm):
                    # The second one is for a loop that has slept through the first.
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.005), 30)
                    loop.run_forever()
                signal.setitimer(signal.ITIMER_REAL, 0)
                assert time.monotonic() - start_s < 15
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler_before)
    if timer is not None:
        timer.cancel()


def test_a_handler_may_use_the_loop(loop: Any) -> None:
    """What a plain handler schedules or stops is done, though the loop was about to sleep."""
    with own_pipe():
        signal.signal(signal.SIGUSR1, lambda *_args: loop.call_soon_threadsafe(loop.stop))
        for _ in range(200):
            loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
            loop.run_forever()


def _trio_guest() -> None:
    import asyncio
    import os
    import signal
    import warnings

    import trio

    warnings.simplefilter("error")

    async def guest() -> str:
        with trio.open_signal_receiver(signal.SIGUSR1) as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            async for number in signals:
                await trio.sleep(0.01)
                return f"trio got {number}"
        return "nothing"

    async def host() -> str:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        return (await done).unwrap()

    loop = new_loop()  # type: ignore[name-defined]
    print(loop.run_until_complete(host()))
    loop.close()


def test_trio_as_a_guest(backend: str) -> None:
    pytest.importorskip("trio")
    assert child_output(backend, _trio_guest) == f"trio got {int(signal.SIGUSR1)}\n"


def _served() -> None:
    import os
    import signal
    import threading

    import netpoll

    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    os.set_blocking(read_end, True)
    signal.set_wakeup_fd(write_end)
    signal.signal(signal.SIGUSR1, lambda *_args: None)

    def ready(server: object) -> None:
        print("ready", flush=True)

    thread = threading.Thread(target=lambda: print(os.read(read_end, 1), flush=True))
    thread.start()
    netpoll.serve(print, "127.0.0.1", 0, ready=ready, backend=BACKEND)
    thread.join()
    print(signal.set_wakeup_fd(-1) == write_end)


@pytest.mark.netpoll_only
def test_serve_passes_signals_on(backend: str) -> None:
    with talking_child(backend, _served) as child:
        child_says(child, "ready")
        child.send_signal(signal.SIGUSR1)
        child_says(child, repr(bytes([signal.SIGUSR1])))
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate()
        assert (child.returncode, out) == (0, "True\n"), err
