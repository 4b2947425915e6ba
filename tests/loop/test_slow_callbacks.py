"""LoopConfig(slow_callback_ms=...): who holds the loop is named while it does."""

import asyncio
import logging
import selectors
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import netpoll
from netpoll._aio import watchdog

from ..support import SLOWNESS

LIMIT_MS = 50 * SLOWNESS
HELD_S = 4 * LIMIT_MS / 1e3


@pytest.fixture(params=["uring", "epoll"])
def watched(request: pytest.FixtureRequest) -> Iterator[netpoll.EventLoop]:
    """A loop that is watched."""
    try:
        loop = netpoll.new_event_loop(request.param, netpoll.LoopConfig(slow_callback_ms=LIMIT_MS))
    except netpoll.BackendUnavailableError as error:
        pytest.skip(str(error))
    yield loop
    loop.close()


@pytest.fixture
def reports(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was said so far of loops that are held."""
    caplog.set_level(logging.WARNING, "asyncio")
    return lambda: [m for m in caplog.messages if m.startswith("the event loop has been held")]


def hold_the_loop() -> None:
    time.sleep(HELD_S)


async def hold_in_a_task() -> None:
    hold_the_loop()


def watchers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "netpoll-watchdog"]


def test_the_stack_is_taken_while_it_runs(watched, reports) -> None:
    said_meanwhile = []

    def hold_and_look() -> None:
        hold_the_loop()
        said_meanwhile.extend(reports())

    watched.call_soon(hold_and_look)
    watched.call_later(2 * HELD_S, watched.stop)
    watched.run_forever()
    (report,) = (each for each in reports() if "in hold" in each)  # once, however long it is held
    assert said_meanwhile == [report]
    assert "in hold_and_look" in report
    assert report.rstrip().endswith("time.sleep(HELD_S)")  # the innermost call is the last
    assert "run_forever" not in report  # what is below the loop is nobody's fault


def test_a_task_is_named_as_well(watched, reports) -> None:
    watched.run_until_complete(hold_in_a_task())
    (report,) = (each for each in reports() if "in hold_in_a_task" in each)
    assert "in hold_the_loop" in report


def test_each_time_is_reported(watched, reports) -> None:
    async def hold_twice() -> None:
        hold_the_loop()
        await asyncio.sleep(HELD_S)
        hold_the_loop()

    watched.run_until_complete(hold_twice())
    assert sum("in hold_twice" in report for report in reports()) == 2


def test_a_call_in_c_has_no_python_code(watched, reports) -> None:
    watched.call_soon(time.sleep, HELD_S)
    watched.call_later(1.5 * HELD_S, watched.stop)
    watched.run_forever()
    assert any("no Python code" in report for report in reports())


def test_a_wait_of_the_program_is_not_one_of_the_loop(watched, reports) -> None:
    """A callback that waits with a selector holds the loop in the loop's own system call."""

    def select() -> None:
        with selectors.EpollSelector() as selector:
            selector.select(HELD_S)

    watched.call_soon(select)
    watched.call_later(1.5 * HELD_S, watched.stop)
    watched.run_forever()
    assert any("in select" in report for report in reports())


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each look found: whether the loop was idle."""
    found: list[bool] = []
    honest = watchdog.Watchdog._is_idle

    def look(self) -> bool:
        found.append(honest(self))
        return found[-1]

    monkeypatch.setattr(watchdog.Watchdog, "_is_idle", look)
    return found


def mostly(looks: list[bool]) -> bool:
    """A loop may wait for its core as well, on a busy machine: not every look finds it idle."""
    assert len(looks) >= 3
    return sum(looks) > len(looks) / 2


def test_a_loop_that_waits_is_idle(watched, looks) -> None:
    watched.run_until_complete(asyncio.sleep(2 * HELD_S))
    assert mostly(looks)
    looks.clear()
    watched.run_until_complete(hold_in_a_task())
    assert not mostly(looks)


def test_a_loop_whose_turns_are_patched_is_watched(reports, looks) -> None:
    class Patched(netpoll.EventLoop):
        def _run_once(self) -> None:
            super()._run_once()

    loop = Patched("epoll", netpoll.LoopConfig(slow_callback_ms=LIMIT_MS))
    try:
        loop.run_until_complete(asyncio.sleep(HELD_S))
        assert mostly(looks)
        loop.run_until_complete(hold_in_a_task())
        assert any("in hold_in_a_task" in report for report in reports())
    finally:
        loop.close()


def test_the_watcher_is_there_only_while_the_loop_runs(watched) -> None:
    assert watchers() == []

    async def count() -> int:
        return len(watchers())

    assert watched.run_until_complete(count()) == 1
    assert watchers() == []

    def end() -> None:
        raise SystemExit

    watched.call_soon(end)
    with pytest.raises(SystemExit):
        watched.run_forever()
    assert watchers() == []


def test_nobody_watches_unless_asked(reports) -> None:
    async def hold() -> int:
        hold_the_loop()
        return len(watchers())

    loop = netpoll.new_event_loop("epoll")
    try:
        assert loop.run_until_complete(hold()) == 0
    finally:
        loop.close()
    assert reports() == []


def test_where_the_kernel_does_not_say_a_wait_is_idle(
    watched, reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may hide it: Python code is found out all the same, and nothing is invented."""
    monkeypatch.setattr(watchdog.Path, "read_text", refuse)
    watched.run_until_complete(asyncio.sleep(HELD_S))
    assert reports() == []
    watched.run_until_complete(hold_in_a_task())
    assert any("in hold_in_a_task" in report for report in reports())


def refuse(path: object) -> str:
    raise PermissionError(13, "Permission denied", str(path))


@pytest.mark.parametrize("wrong", [-1, float("nan"), 1 << 31])
def test_a_limit_that_makes_no_sense(wrong: float) -> None:
    with pytest.raises(ValueError, match="slow_callback_ms"):
        netpoll.LoopConfig(slow_callback_ms=wrong)
