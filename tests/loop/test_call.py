"""call_soon, call_later, call_at: order, contexts, handles, arguments."""

import asyncio
import contextvars
import gc
import random
import weakref
from typing import Any

import pytest

pytestmark = pytest.mark.control

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="unset")


def run_briefly(loop: Any, turns: int = 1) -> None:
    for _ in range(turns):
        loop.call_soon(loop.stop)
        loop.run_forever()


def test_call_soon_is_first_in_first_out(loop: Any) -> None:
    seen: list[int] = []
    for number in range(1000):
        loop.call_soon(seen.append, number)
    run_briefly(loop)
    assert seen == list(range(1000))


def test_what_a_callback_schedules_runs_in_the_next_turn(loop: Any) -> None:
    """Only what was ready at the start of the turn runs in it (bug class 10)."""
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        loop.call_soon(seen.append, "child")
        loop.stop()

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    loop.run_forever()
    assert seen == ["first", "second"]
    run_briefly(loop)
    assert seen == ["first", "second", "child"]


def test_cancelled_handle_does_not_run(loop: Any) -> None:
    seen: list[int] = []
    kept = loop.call_soon(seen.append, 1)
    dropped = loop.call_soon(seen.append, 2)
    dropped.cancel()
    assert dropped.cancelled() and not kept.cancelled()
    run_briefly(loop)
    assert seen == [1]
    assert not kept.cancelled()
    kept.cancel()  # after it ran: harmless
    dropped.cancel()  # twice: harmless


def test_a_callback_may_cancel_a_later_one_of_the_same_turn(loop: Any) -> None:
    seen: list[int] = []
    later: list[Any] = []
    loop.call_soon(lambda: later[0].cancel())
    later.append(loop.call_soon(seen.append, 1))
    run_briefly(loop)
    assert seen == []


def test_call_soon_does_not_keep_its_arguments(loop: Any) -> None:
    """Neither a run nor a cancelled handle holds on to what it was given (bug class 20)."""

    class Thing:
        def use(self) -> None:
            pass

    run, dropped, given, one, other = (Thing() for _ in range(5))
    refs = [weakref.ref(thing) for thing in (run, dropped, given, one, other)]
    handles = [loop.call_soon(dropped.use), loop.call_soon(print, given)]
    handles.append(loop.call_soon(print, one, other))
    loop.call_soon(run.use)
    for handle in handles:
        handle.cancel()
    del run, dropped, given, one, other
    assert [ref() for ref in refs[1:]] == [None] * 4  # not only when their turn has come
    run_briefly(loop)
    gc.collect()
    assert [ref() for ref in refs] == [None] * 5


def test_callbacks_run_in_the_context_they_were_given(loop: Any) -> None:
    seen: list[str] = []

    def note() -> None:
        seen.append(VAR.get())
        VAR.set("changed")

    context = contextvars.copy_context()
    context.run(VAR.set, "given")
    loop.call_soon(note, context=context)
    loop.call_later(0, note, context=context)
    loop.call_at(loop.time(), note, context=context)
    loop.call_soon_threadsafe(note, context=context)
    loop.run_until_complete(asyncio.sleep(0.02))
    assert seen == ["given", "changed", "changed", "changed"]
    assert VAR.get() == "unset"


def test_callbacks_copy_the_current_context(loop: Any) -> None:
    seen: list[str] = []
    token = VAR.set("then")
    try:
        loop.call_soon(lambda: seen.append(VAR.get()))
        loop.call_later(0.001, lambda: seen.append(VAR.get()))
    finally:
        VAR.reset(token)
    loop.run_until_complete(asyncio.sleep(0.02))
    assert seen == ["then", "then"]


def test_timers_fire_in_the_order_of_their_deadlines(loop: Any) -> None:
    """Bug class 19: order against asyncio."""
    seen: list[int] = []
    base_s = loop.time() + 0.01
    order = list(range(200))
    random.Random(7).shuffle(order)
    for number in order:
        loop.call_at(base_s + number * 1e-5, seen.append, number)
    loop.call_at(base_s + 0.02, loop.stop)
    loop.run_forever()
    assert seen == list(range(200))


def test_negative_and_past_deadlines_fire_at_once_and_in_order(loop: Any) -> None:
    """Bug class 19: negative delays."""
    seen: list[str] = []
    loop.call_later(-1, seen.append, "minus one")
    loop.call_later(-2, seen.append, "minus two")
    loop.call_at(0, seen.append, "zero")
    loop.call_at(-5, seen.append, "before zero")
    loop.run_until_complete(asyncio.sleep(0.01))
    assert seen == ["before zero", "zero", "minus two", "minus one"]


def test_a_timer_never_fires_early(loop: Any) -> None:
    late_s: list[float] = []
    for delay_ms in (0, 1, 2, 3, 5, 8, 13, 21):
        when_s = loop.time() + delay_ms / 1000
        loop.call_at(when_s, lambda when_s=when_s: late_s.append(loop.time() - when_s))
    loop.run_until_complete(asyncio.sleep(0.05))
    assert len(late_s) == 8
    assert min(late_s) >= -1e-6  # the clock's own resolution


def test_timer_handles(loop: Any) -> None:
    when_s = loop.time() + 100
    at = loop.call_at(when_s, print)
    later = loop.call_later(100, print)
    assert isinstance(at, asyncio.TimerHandle) and isinstance(later, asyncio.TimerHandle)
    assert isinstance(loop.call_soon(lambda: None), asyncio.Handle)
    assert at.when() == pytest.approx(when_s, abs=1e-6)
    assert later.when() >= at.when()
    assert not at.cancelled()
    at.cancel()
    later.cancel()
    assert at.cancelled() and later.cancelled()
    assert at.when() == pytest.approx(when_s, abs=1e-6)
    run_briefly(loop)


def test_timer_handles_compare(loop: Any) -> None:
    early = loop.call_at(1e9, print)
    late = loop.call_at(2e9, print)
    assert early < late and late > early and early <= late and late >= early
    assert early == early and early != late
    assert len({early, late}) == 2
    early.cancel()
    late.cancel()


def test_cancelled_timers_do_not_fire(loop: Any) -> None:
    seen: list[int] = []
    handles = [loop.call_later(0.005, seen.append, n) for n in range(100)]
    for handle in handles[::2]:
        handle.cancel()
    loop.run_until_complete(asyncio.sleep(0.02))
    assert seen == list(range(1, 100, 2))


def test_a_timer_may_cancel_another_that_is_due(loop: Any) -> None:
    seen: list[str] = []
    when_s = loop.time()
    other: list[Any] = []
    loop.call_at(when_s, lambda: other[0].cancel())
    other.append(loop.call_at(when_s + 1e-7, seen.append, "cancelled"))
    loop.run_until_complete(asyncio.sleep(0.01))
    assert seen == []


def test_huge_delays_are_kept_not_run(loop: Any) -> None:
    seen: list[int] = []
    handles = [loop.call_later(delay_s, seen.append, 1) for delay_s in (86400.0, 1e9, 1e12)]
    loop.run_until_complete(asyncio.sleep(0.01))
    assert seen == []
    for handle in handles:
        handle.cancel()


def test_timers_keep_firing_under_a_flood_of_callbacks(loop: Any) -> None:
    """Bug class 10: a call_soon that goes on for ever does not starve timers."""
    turns = 0

    def flood() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(flood)

    loop.call_soon(flood)
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    assert turns > 10


def test_keyword_arguments_and_wrong_ones(loop: Any) -> None:
    with pytest.raises(TypeError):
        loop.call_soon()
    with pytest.raises(TypeError):
        loop.call_later(None, print)
    with pytest.raises(TypeError):
        loop.call_at(None, print)
    with pytest.raises(TypeError):
        loop.call_soon(print, nonsense=1)
    with pytest.raises(TypeError):
        loop.call_later("soon", print)


def test_everything_may_be_given_by_its_name(loop: Any) -> None:
    ran: list[int] = []
    loop.call_soon(callback=lambda: ran.append(1))
    loop.call_soon_threadsafe(callback=lambda: ran.append(2))
    loop.call_later(delay=0, callback=lambda: ran.append(3))
    loop.call_at(when=loop.time(), callback=lambda: ran.append(4))
    loop.run_until_complete(asyncio.sleep(0.05))
    assert sorted(ran) == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_what_is_missing_or_too_much(loop: Any, name: str) -> None:
    call = getattr(loop, name)
    first = () if name.startswith("call_soon") else (0.0,)
    with pytest.raises(TypeError):
        call()
    with pytest.raises(TypeError):
        call(*first)
    with pytest.raises(TypeError):
        call(*first, print, nonsense=1)
    with pytest.raises(TypeError):
        call(*first, print, callback=print)


def test_a_callback_that_raises_is_reported_and_the_rest_runs(
    loop: Any, errors: list[dict[str, Any]]
) -> None:
    seen: list[str] = []

    def broken() -> None:
        raise ZeroDivisionError("broken callback")

    handle = loop.call_soon(broken)
    loop.call_later(0, broken)
    loop.call_soon(seen.append, "after")
    loop.run_until_complete(asyncio.sleep(0.01))
    assert seen == ["after"]
    assert [type(context["exception"]) for context in errors] == [ZeroDivisionError] * 2
    assert errors[0]["handle"] is handle
    assert "broken" in errors[0]["message"]
    errors.clear()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exits_go_through_run_forever(loop: Any, kind: type[BaseException]) -> None:
    """The loop is in order afterwards and goes on with what was behind the exit."""
    seen: list[str] = []

    def leave() -> None:
        raise kind()

    loop.call_soon(leave)
    loop.call_soon(seen.append, "behind")
    with pytest.raises(kind):
        loop.run_forever()
    assert not loop.is_running()
    run_briefly(loop, turns=2)
    assert seen == ["behind"]


def test_time_is_monotonic_and_in_seconds(loop: Any) -> None:
    import time

    before_s = time.monotonic()
    now_s = loop.time()
    assert before_s <= now_s + 1e-6
    assert now_s <= time.monotonic() + 1e-6
    assert isinstance(now_s, float)


def test_closed_loop_takes_no_callbacks(loop: Any) -> None:
    loop.close()
    for schedule in (
        lambda: loop.call_soon(print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.call_later(1, print),
        lambda: loop.call_at(1, print),
    ):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            schedule()


def test_pending_callbacks_and_timers_die_with_the_loop(loop: Any) -> None:
    """close() with callbacks and timers queued runs none of them and keeps none (bug class 20)."""

    class Thing:
        def use(self) -> None:
            raise AssertionError("ran after close")

    things = [Thing() for _ in range(3)]
    refs = [weakref.ref(thing) for thing in things]
    loop.call_soon(things[0].use)
    loop.call_later(0.001, things[1].use)
    loop.call_soon_threadsafe(things[2].use)
    loop.close()
    del things
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3


async def test_when_is_what_call_at_was_given(loop: Any) -> None:
    """aiohttp asks whether the time of its handle is an int."""
    for when in (10**6, float(10**6), 10**6 + 0.5, True + 10**6):
        handle = loop.call_at(when, print)
        assert handle.when() == when and type(handle.when()) is type(when)
        handle.cancel()
    later = loop.call_later(1000, print)
    assert type(later.when()) is float
    later.cancel()
