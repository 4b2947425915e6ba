"""A protocol that raises closes its own connection only, and the exception handler hears of it."""

import asyncio
import gc
import os
import socket
from typing import Any

import pytest

from ..support import BufferedRecorder, Echo, Recorder, pair, unix_pair, until

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


class Interrupting:
    """Interrupts the loop once, when it is called."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind: type[BaseException] | None = kind

    def __call__(self) -> None:
        kind, self.kind = self.kind, None
        if kind is not None:
            raise kind


def run_interrupted(loop: Any, kind: type[BaseException], work: Any) -> Any:
    """Runs a coroutine's task, as a program does that has caught an interrupt and goes on."""
    task = loop.create_task(work)
    with pytest.raises(kind):
        loop.run_until_complete(task)
    return loop.run_until_complete(asyncio.wait_for(task, 10))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("base", [Recorder, BufferedRecorder])
def test_an_interrupt_out_of_eof_received(
    loop: Any, base: type[Any], kind: type[BaseException]
) -> None:
    """Who has been told of the end, and could not hear it out, is told again."""
    interrupt = Interrupting(kind)

    class Leaving(base):  # type: ignore[misc]
        def eof_received(self) -> bool:
            self.events.append("eof")
            interrupt()
            return False

    async def work() -> Any:
        client, served = await pair(loop, right=Leaving)
        client.transport.write(b"x")
        client.transport.write_eof()
        await asyncio.gather(client.lost, served.lost)
        return served

    served = run_interrupted(loop, kind, work())
    assert served.events == ["made", "data", "eof", "eof", "lost"]
    assert served.error is None


SIZE_BYTES = 4 * 2**20


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("medium", ["stream", "pipe"])
def test_an_interrupt_out_of_resume_writing(
    backend: str, loop: Any, medium: str, kind: type[BaseException]
) -> None:
    """What is still unsent then leaves all the same, and a close() that waits for it is done."""
    if backend == "asyncio" and medium == "pipe":
        pytest.skip("asyncio resumes when all has left, and then forgets to close")
    interrupt = Interrupting(kind)
    lost: list[BaseException | None] = []

    class Leaving(asyncio.Protocol):
        def resume_writing(self) -> None:
            interrupt()

        def connection_lost(self, exc: BaseException | None) -> None:
            lost.append(exc)

    async def work() -> int:
        if medium == "stream":
            left, right = unix_pair()
            transport, _ = await loop.create_connection(Leaving, sock=left)
            reader = open(right.detach(), "rb", 0)
        else:
            reading, writing = os.pipe()
            transport, _ = await loop.connect_write_pipe(Leaving, open(writing, "wb", 0))
            reader = open(reading, "rb", 0)
        os.set_blocking(reader.fileno(), False)
        transport.set_write_buffer_limits(high=SIZE_BYTES // 2, low=SIZE_BYTES // 2)
        transport.write(bytes(SIZE_BYTES))
        transport.close()
        got = 0
        with reader:
            while got < SIZE_BYTES:
                got += len(reader.read(2**20) or b"")
                await asyncio.sleep(0)
            await until(lambda: lost)
        return got

    assert run_interrupted(loop, kind, work()) == SIZE_BYTES
    assert lost == [None]


@pytest.mark.netpoll_only  # asyncio's sendto() lets it out itself
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_out_of_error_received(loop: Any, kind: type[BaseException]) -> None:
    """The datagrams behind the one that could not be sent leave all the same."""
    interrupt = Interrupting(kind)

    class Leaving(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.lost: asyncio.Future[None] = loop.create_future()

        def error_received(self, exc: Exception) -> None:
            interrupt()

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(None)

    async def work() -> list[bytes]:
        with socket.socket(type=socket.SOCK_DGRAM) as receiver:
            receiver.bind(("127.0.0.1", 0))
            receiver.setblocking(False)
            transport, protocol = await loop.create_datagram_endpoint(
                Leaving, remote_addr=receiver.getsockname()
            )
            transport.set_write_buffer_limits(2**20)  # all leave at the end of the turn
            for data in (b"1", bytes(70_000), b"2", b"3"):
                transport.sendto(data)
            got = [await loop.sock_recv(receiver, 10) for _ in range(3)]
            transport.close()
            await protocol.lost
        return got

    assert run_interrupted(loop, kind, work()) == [b"1", b"2", b"3"]
