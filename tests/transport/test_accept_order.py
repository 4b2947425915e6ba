"""Accepting: in which turn the protocol is made and told, who may take it, and what interrupts."""

import asyncio
import contextvars
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ..conftest import LoopFactory
from ..tls import client_context, server_context

pytestmark = pytest.mark.control

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


class Noted(asyncio.Protocol):
    """Notes its calls, and posts after each a callback that notes it, too."""

    def __init__(self, loop: Any, trace: list[str], name: str = "") -> None:
        self.loop, self.trace, self.name = loop, trace, name
        self.note("factory")

    def note(self, what: str) -> None:
        self.trace.append(f"{self.name}{what}")
        self.loop.call_soon(self.trace.append, f"{self.name}after {what}")

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("made")

    def data_received(self, data: bytes) -> None:
        self.note("data")


def run_turns(loop: Any, trace: list[str], count: int) -> None:
    def tick(number: int) -> None:
        trace.append(f"turn {number}")
        if number < count:
            loop.call_soon(tick, number + 1)
        else:
            loop.stop()

    loop.call_soon(tick, 1)
    loop.run_forever()


def serve(loop: Any, factory: Callable[[], Any], kind: str) -> tuple[Any, Any]:
    """A server, and what its clients connect to."""
    listening = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
    if kind == "unix":
        listening.bind("")  # a name of the kernel's
        server = loop.create_unix_server(factory, sock=listening)
    else:
        listening.bind(("127.0.0.1", 0))
        context = server_context() if kind == "tls" else None
        server = loop.create_server(factory, sock=listening, ssl=context)
    return loop.run_until_complete(server), listening.getsockname()


def connect(address: Any) -> socket.socket:
    client = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX)
    client.settimeout(30)
    client.connect(address)
    return client


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_factory_connection_made_and_data_each_have_a_turn(
    loop_factory: LoopFactory, kind: str
) -> None:
    loop, trace = loop_factory(), list[str]()
    server, address = serve(loop, lambda: Noted(loop, trace), kind)
    with connect(address) as client:
        client.send(b"x")
        run_turns(loop, trace, 6)
    server.close()
    run_turns(loop, [], 3)
    assert [line for line in trace if not line.startswith("turn")] == [
        *("factory", "after factory", "made", "after made", "data", "after data")
    ]
    before = [trace[: trace.index(line)] for line in ("factory", "made", "data")]
    turns = [sum(line.startswith("turn") for line in lines) for lines in before]
    assert [turn - turns[0] for turn in turns] == [0, 1, 2], trace


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_all_who_wait_are_accepted_in_one_turn(loop_factory: LoopFactory, kind: str) -> None:
    loop, trace, names = loop_factory(), list[str](), iter("ABCD")
    server, address = serve(loop, lambda: Noted(loop, trace, next(names)), kind)
    clients = [connect(address) for _ in range(3)]
    run_turns(loop, trace, 5)
    for client in clients:
        client.close()
    server.close()
    run_turns(loop, [], 4)
    assert [line for line in trace if not line.startswith("turn")] == [
        *("Afactory", "Bfactory", "Cfactory"),
        *("Aafter factory", "Amade", "Bafter factory", "Bmade", "Cafter factory", "Cmade"),
        *("Aafter made", "Bafter made", "Cafter made"),
    ]


def test_the_tls_protocol_is_made_a_turn_after_the_accept(loop_factory: LoopFactory) -> None:
    loop, trace = loop_factory(), list[str]()
    server, address = serve(loop, lambda: Noted(loop, trace), "tls")
    with connect(address):
        run_turns(loop, trace, 4)
    server.close()
    run_turns(loop, [], 4)
    assert trace.index("turn 2") < trace.index("factory") < trace.index("turn 3")


def test_each_factory_has_a_context_that_its_protocol_goes_on_in(
    loop_factory: LoopFactory,
) -> None:
    loop, seen = loop_factory(), list[str]()
    names = iter("AB")

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            seen.append(f"made {VARIABLE.get('nothing')}")

    def factory() -> Protocol:
        seen.append(f"factory {VARIABLE.get('nothing')}")
        VARIABLE.set(next(names))
        return Protocol()

    server, address = serve(loop, factory, "tcp")
    for _ in range(2):
        with connect(address):
            run_turns(loop, [], 4)
    server.close()
    run_turns(loop, [], 4)
    assert seen == ["factory nothing", "made A", "factory nothing", "made B"]


@pytest.mark.parametrize("interrupt", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_an_interrupt_out_of_connection_made_leaves_the_connection(
    loop_factory: LoopFactory, kind: str, interrupt: type[BaseException]
) -> None:
    loop, got = loop_factory(), list[bytes]()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            raise interrupt

        def data_received(self, data: bytes) -> None:
            got.append(data)
            self.transport.write(data)
            loop.call_soon(loop.stop)

    server, address = serve(loop, Protocol, kind)
    with connect(address) as client:
        with pytest.raises(interrupt):
            loop.run_forever()
        client.send(b"still here")
        loop.run_forever()
        assert client.recv(100) == b"still here"
    assert got == [b"still here"]
    server.close()
    run_turns(loop, [], 4)


def test_an_interrupt_out_of_a_tls_connection_made_leaves_the_connection(
    loop_factory: LoopFactory,
) -> None:
    loop = loop_factory()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            raise SystemExit

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    answers: list[bytes] = []

    def talk() -> None:
        with client_context().wrap_socket(connect(address), server_hostname="localhost") as client:
            client.send(b"still here")
            answers.append(client.recv(100))
        loop.call_soon_threadsafe(loop.stop)

    server, address = serve(loop, Protocol, "tls")
    thread = threading.Thread(target=talk)
    thread.start()
    with pytest.raises(SystemExit):
        loop.run_forever()
    loop.run_forever()
    thread.join()
    assert answers == [b"still here"]
    server.close()
    run_turns(loop, [], 6)


@pytest.mark.netpoll_only  # asyncio forgets the failed one's socket unclosed
def test_an_interrupt_out_of_a_factory_leaves_the_others(loop_factory: LoopFactory) -> None:
    loop, made = loop_factory(), list[int]()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            made.append(1)

    def factory() -> Protocol:
        if not has_failed:
            has_failed.append(True)
            raise SystemExit
        return Protocol()

    has_failed: list[bool] = []
    server, address = serve(loop, factory, "tcp")
    clients = [connect(address) for _ in range(3)]
    with pytest.raises(SystemExit):
        loop.run_forever()
    run_turns(loop, [], 5)
    assert len(made) == 2
    for client in clients:
        client.close()
    server.close()
    run_turns(loop, [], 4)


@pytest.mark.netpoll_only  # asyncio forgets the socket unclosed
@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_a_server_that_is_closed_meanwhile_takes_no_connection(
    loop_factory: LoopFactory, kind: str
) -> None:
    loop, trace = loop_factory(), list[str]()

    class Closing(Noted):
        def __init__(self) -> None:
            super().__init__(loop, trace)
            server.close()

    server, address = serve(loop, Closing, kind)
    with connect(address) as client:
        run_turns(loop, [], 6)
        assert client.recv(1) == b""
    assert trace == ["factory", "after factory"]


def test_a_busy_process_leaves_connections_to_the_others(loop_factory: LoopFactory) -> None:
    """Whatever it is busy with: here a callback."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        idle, busy = loop_factory(), loop_factory()
        released, is_busy = threading.Event(), threading.Event()
        accepted: list[str] = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                accepted.append("idle" if asyncio.get_running_loop() is idle else "busy")
                transport.close()

        def hold() -> None:
            is_busy.set()
            released.wait(60)

        servers = [
            loop.run_until_complete(loop.create_server(Protocol, sock=listening.dup()))
            for loop in (busy, idle)
        ]
        threads = [threading.Thread(target=loop.run_forever) for loop in (busy, idle)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)  # both wait in the kernel
        busy.call_soon_threadsafe(hold)
        assert is_busy.wait(30)
        try:
            for _ in range(20):
                with socket.create_connection(listening.getsockname(), timeout=30) as client:
                    assert client.recv(1) == b""
            assert accepted == ["idle"] * 20
        finally:
            released.set()
            for loop, thread, server in zip((busy, idle), threads, servers, strict=True):
                loop.call_soon_threadsafe(server.close)
                loop.call_soon_threadsafe(loop.stop)
                thread.join()
                run_turns(loop, [], 3)
