"""Programs that reach into the loop: asyncio's private hooks work, or are refused in a sentence."""

import asyncio
from typing import Any

import pytest

from ..support import child_output, make_loop

pytestmark = pytest.mark.control


def test_run_once_replaced_on_one_loop(loop: Any) -> None:
    turns: list[bool] = []
    original = loop._run_once

    def counted() -> None:
        turns.append(loop.is_running())
        original()

    loop._run_once = counted
    assert loop.run_until_complete(asyncio.sleep(0.01, "result")) == "result"
    assert len(turns) >= 2 and all(turns)
    del loop._run_once
    count = len(turns)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert len(turns) == count


def test_run_once_overridden_in_a_subclass(backend: str, loop: Any) -> None:
    turns: list[int] = []

    class Counting(type(loop)):  # type: ignore[misc]
        def _run_once(self) -> None:
            turns.append(1)
            super()._run_once()

    other = Counting() if backend == "asyncio" else Counting(backend)
    assert other.run_until_complete(asyncio.sleep(0.01, "result")) == "result"
    assert len(turns) >= 2
    other.close()


def test_a_loop_that_is_stepped_by_hand(loop: Any) -> None:
    seen: list[int] = []
    loop.call_soon(seen.append, 1)
    loop._run_once()
    assert seen == [1]


@pytest.mark.netpoll_only
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("by_hand", [False, True])
def test_no_turn_within_a_turn(
    loop: Any, errors: list[dict[str, Any]], by_hand: bool, debug: bool
) -> None:
    """It ran callbacks that the turn around it had counted as its own: SIGSEGV."""
    seen: list[int] = []
    loop.set_debug(debug)
    for number in range(5):
        loop.call_soon(seen.append, number)
        loop.call_soon(loop._run_once)
        loop.call_soon(loop._run_turns)
    if by_hand:
        loop._run_once()
    else:
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert seen == [0, 1, 2, 3, 4]
    assert len(errors) == 10
    for context in errors:
        assert isinstance(context["exception"], RuntimeError)
        assert "cannot run within itself" in str(context["exception"])
    errors.clear()


@pytest.mark.netpoll_only
def test_closing_within_a_turn_by_hand(loop: Any, errors: list[dict[str, Any]]) -> None:
    loop.call_soon(loop.close)
    loop.call_soon(int)
    loop._run_once()
    assert "Cannot close a running event loop" in str(errors.pop()["exception"])
    loop.close()
    for step in (loop._run_once, loop._run_turns):
        with pytest.raises(RuntimeError, match="closed"):
            step()


@pytest.mark.netpoll_only
def test_a_selector_that_is_waited_with(loop: Any) -> None:
    with pytest.raises(RuntimeError, match="has no selector to wait with"):
        loop._selector.select(0)


def _nested(module: str) -> None:
    import asyncio
    import importlib

    nest = importlib.import_module(module)
    loop = new_loop()  # type: ignore[name-defined]
    asyncio.set_event_loop(loop)
    plain = {name: getattr(type(loop), name) for name in ("run_forever", "_run_once")}
    try:
        nest.apply(loop)
    except RuntimeError as error:
        print(error)
    assert plain == {name: getattr(type(loop), name) for name in plain}
    assert loop.run_until_complete(asyncio.sleep(0.01, "still works")) == "still works"

    async def main() -> None:
        inner = asyncio.sleep(0)
        try:
            loop.run_until_complete(inner)
        except RuntimeError as error:
            print(error)
        inner.close()

    loop.run_until_complete(main())
    loop.close()


@pytest.mark.netpoll_only
@pytest.mark.parametrize("module", ["nest_asyncio", "nest_asyncio2"])
def test_nesting_is_refused_at_once(backend: str, module: str) -> None:
    pytest.importorskip(module)
    refused, nested = child_output(backend, _nested, module).splitlines()
    assert "cannot run within itself, as nest_asyncio makes" in refused
    assert "already running" in nested


def test_nothing_is_said_without_nest_asyncio(backend: str) -> None:
    loop = make_loop(backend)
    assert not hasattr(loop, "_nest_patched")
    loop.close()
