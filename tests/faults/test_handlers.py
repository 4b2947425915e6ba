"""A protocol that raises closes its own connection only, and the exception handler hears of it."""

import asyncio
import gc
from typing import Any

import pytest

from ..support import BufferedRecorder, Echo, Recorder, until

pytestmark = pytest.mark.control


class Boom(Exception):
    """What the tests' protocols raise."""


def raising(base: type, method: str) -> type:
    def boom(self: Any, *args: Any) -> Any:
        if method == "connection_lost":
            base.connection_lost(self, *args)  # type: ignore[attr-defined]
        elif method != "connection_made":
            self.events.append(method)
        else:
            base.connection_made(self, *args)  # type: ignore[attr-defined]
        raise Boom(method)

    return type(f"Raising{base.__name__}", (base,), {method: boom})


@pytest.mark.parametrize(
    ("base", "method"),
    [
        (Recorder, "data_received"),
        (Recorder, "eof_received"),
        (Recorder, "connection_made"),
        (Recorder, "connection_lost"),
        (BufferedRecorder, "get_buffer"),
        (BufferedRecorder, "buffer_updated"),
        (BufferedRecorder, "eof_received"),
    ],
)
async def test_only_its_own_connection(
    loop: Any, base: type, method: str, errors: list[dict[str, Any]]
) -> None:
    bad: list[Any] = []

    def factory() -> Any:
        if len(bad) < 1:
            bad.append(raising(base, method)())
            return bad[0]
        return Echo()

    server = await loop.create_server(factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    victim_transport, victim = await loop.create_connection(Recorder, *address)
    await until(lambda: bad)
    transport, neighbour = await loop.create_connection(Recorder, *address)

    victim_transport.write(b"trigger")
    if method in ("eof_received", "connection_lost"):
        victim_transport.write_eof()
    if method == "connection_made":
        # asyncio reports and leaves the connection open.
        await until(lambda: errors)
        victim_transport.abort()
        await victim.lost
    else:
        await asyncio.wait_for(victim.lost, 10)
        await until(lambda: errors)
    transport.write(b"unharmed")
    await until(lambda: neighbour.data == b"unharmed")
    raised = [context for context in errors if isinstance(context.get("exception"), Boom)]
    assert len(raised) == 1, errors
    if method in ("data_received", "eof_received", "get_buffer", "buffer_updated"):
        context = raised[0]
        assert context["transport"] is bad[0].transport and context["protocol"] is bad[0]
        assert method in context["message"]
        await until(lambda: bad[0].lost.done())
        assert isinstance(bad[0].error, Boom)
    errors.clear()
    transport.close()
    await neighbour.lost
    server.close()
    bad.clear()


async def test_a_factory_that_raises_on_the_server(backend: str, loop: Any) -> None:
    """Bug class 3: the accepted socket is closed, the server goes on. asyncio reports in debug."""
    loop.set_debug(True)
    kinds: list[type] = []  # only the kind: asyncio's socket lives as long as the traceback
    loop.set_exception_handler(lambda _loop, context: kinds.append(type(context["exception"])))
    count = 0

    def factory() -> Any:
        nonlocal count
        count += 1
        if count % 2:
            raise Boom("factory")
        return Echo()

    server = await loop.create_server(factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for number in range(10):
        transport, protocol = await loop.create_connection(Recorder, *address)
        transport.write(b"x")
        if number % 2:
            await until(lambda p=protocol: p.data == b"x")
            transport.close()
        elif backend == "asyncio":  # leaves the socket to the garbage collector
            await asyncio.sleep(0.01)
            gc.collect()
        await asyncio.wait_for(protocol.lost, 10)
    assert kinds == [Boom] * 5
    server.close()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exits_in_data_received_leave_the_loop(loop: Any, kind: type[BaseException]) -> None:
    """They are not for the exception handler; afterwards the loop and its neighbours go on."""

    class Leaving(Recorder):
        def data_received(self, data: bytes) -> None:
            if data == b"leave":
                raise kind()
            super().data_received(data)

    served: list[Any] = []

    def factory() -> Any:
        served.append(Leaving())
        return served[-1]

    async def connect() -> Any:
        server = await loop.create_server(factory, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        ends = [(await loop.create_connection(Recorder, *address))[1] for _ in range(2)]
        await until(lambda: len(served) == 2)
        server.close()
        return ends

    leaving, neighbour = loop.run_until_complete(connect())

    async def work() -> None:
        neighbour.transport.write(b"before")
        leaving.transport.write(b"leave")
        await asyncio.sleep(10)

    task = loop.create_task(work())
    with pytest.raises(kind):
        loop.run_until_complete(task)
    task.cancel()

    async def afterwards() -> None:
        neighbour.transport.write(b" after")
        await until(lambda: any(s.data == b"before after" for s in served))
        for end in (leaving, neighbour, *served):
            end.transport.abort()
        await asyncio.gather(*(end.lost for end in (leaving, neighbour, *served)))

    loop.run_until_complete(afterwards())


async def test_generators_and_cycles_in_handlers_are_collected(loop: Any) -> None:
    """Bug class 20: a handler that fails leaves no cycle through its traceback."""
    import weakref

    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            raise Boom("collected?")

    contexts: list[str] = []
    loop.set_exception_handler(lambda _loop, context: contexts.append(context["message"]))
    refs = []

    def factory() -> Any:
        protocol = Failing()
        refs.append(weakref.ref(protocol))
        return protocol

    server = await loop.create_server(factory, "127.0.0.1", 0)
    for _ in range(10):
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname()
        )
        transport.write(b"x")
        await protocol.lost
    server.close()
    del transport, protocol
    await asyncio.sleep(0.01)
    gc.collect()
    assert len(contexts) == 10
    assert [ref() for ref in refs].count(None) >= 9  # the last may still be named somewhere


async def test_errors_in_done_callbacks_and_tasks(loop: Any, errors: list[dict[str, Any]]) -> None:
    future = loop.create_future()
    future.add_done_callback(lambda _f: 1 / 0)
    future.set_result(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert isinstance(errors[0]["exception"], ZeroDivisionError)
    errors.clear()
