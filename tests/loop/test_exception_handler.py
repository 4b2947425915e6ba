"""set_exception_handler, call_exception_handler, default_exception_handler."""

import asyncio
import gc
import logging
from typing import Any

import pytest

pytestmark = pytest.mark.control


def test_the_handler_gets_loop_and_context(loop: Any) -> None:
    seen: list[tuple[Any, dict[str, Any]]] = []
    loop.set_exception_handler(lambda *args: seen.append(args))
    context = {"message": "hello", "extra": 5}
    loop.call_exception_handler(context)
    assert seen == [(loop, context)]
    assert callable(loop.get_exception_handler())
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


def test_the_handler_must_be_callable(loop: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        loop.set_exception_handler("not callable")


def test_the_default_handler_logs(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_exception_handler(None)
    error = ZeroDivisionError("spam")
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.call_exception_handler({"message": "it broke", "exception": error, "what": 12})
    (record,) = caplog.records
    assert "it broke" in record.message and "what: 12" in record.message
    assert record.exc_info is not None and record.exc_info[1] is error


def test_a_handler_that_raises_is_logged(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_loop: Any, _context: dict[str, Any]) -> None:
        raise ValueError("broken handler")

    loop.set_exception_handler(broken)
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.call_soon(lambda: 1 / 0)
        loop.run_until_complete(asyncio.sleep(0.001))
    (record,) = caplog.records
    assert "Unhandled error in exception handler" in record.message


def test_a_handler_may_leave_through_an_exit(loop: Any) -> None:
    def leave(_loop: Any, _context: dict[str, Any]) -> None:
        raise SystemExit(3)

    loop.set_exception_handler(leave)
    loop.call_soon(lambda: 1 / 0)
    with pytest.raises(SystemExit):
        loop.run_forever()


def test_a_subclass_may_override_the_default_handler(
    loop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: _loop.default_exception_handler(context))
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.call_soon(lambda: 1 / 0)
        loop.run_until_complete(asyncio.sleep(0.001))
    assert len(caplog.records) == 1 and seen == []


def test_exception_never_retrieved(loop: Any, errors: list[dict[str, Any]]) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("never looked at")

    async def main() -> None:
        task = asyncio.ensure_future(broken())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()

    loop.run_until_complete(main())
    assert [context["message"] for context in errors] == ["Task exception was never retrieved"]
    errors.clear()


def test_future_exception_never_retrieved(loop: Any, errors: list[dict[str, Any]]) -> None:
    future = loop.create_future()
    future.set_exception(ZeroDivisionError())
    del future
    gc.collect()
    assert [context["message"] for context in errors] == ["Future exception was never retrieved"]
    errors.clear()
