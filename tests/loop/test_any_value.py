"""Any value as an argument: what asyncio raises is raised, or what it takes is taken.

Each call is made on asyncio's loop and on netpoll's with the same values, which hypothesis chooses.
Compared are the types of what is raised. SystemError and AssertionError of netpoll's own, or a
signal, are faults whatever asyncio does.
"""

import asyncio
import contextlib
import io
import socket
import ssl
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import netpoll
from netpoll import http

from ..support import EXAMPLES_FACTOR, make_loop

hypothesis = pytest.importorskip("hypothesis", reason="values are chosen by hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

EXAMPLES = 25 * EXAMPLES_FACTOR
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


class Odd:
    """Is nothing that is asked for."""

    def __repr__(self) -> str:
        return "Odd()"


class Index:
    def __index__(self) -> int:
        return 7

    def __repr__(self) -> str:
        return "Index()"


NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 7, 65535, 65536, 2**31, 2**32, 2**63, -(2**63), 10**30]),
    st.integers(-10, 100_000),
    st.sampled_from([0.0, 1.5, -1.0, float("inf"), float("-inf"), float("nan"), True]),
)
TEXTS = st.sampled_from(
    [
        "",
        "0",
        "127.0.0.1",
        "::1",
        "127.1",
        "1.2.3.4.5",
        "a\0b",
        "\udcff",
        "ä",
        "x" * 300,
        "80",
        "::1%9",
    ]
)
OTHERS = st.sampled_from([None, b"", b"127.0.0.1", b"\xff", (), [], {}, Odd(), Index(), object, 1j])
VALUES = st.one_of(NUMBERS, TEXTS, OTHERS)
ADDRESSES = st.one_of(
    VALUES,
    st.tuples(TEXTS, NUMBERS),
    st.tuples(VALUES, VALUES),
    st.tuples(VALUES),
    st.tuples(TEXTS, NUMBERS, NUMBERS, NUMBERS),
    st.lists(VALUES, max_size=3),
)

OK = "taken"


@contextlib.contextmanager
def numeric_names_only() -> Iterator[None]:
    """A name is not looked for in the network: there is none here."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        names = ("family", "type", "proto", "flags")
        options |= dict(zip(names, args, strict=False))
        options["flags"] = options.get("flags", 0) | socket.AI_NUMERICHOST
        return real(host, port, **options)

    socket.getaddrinfo = getaddrinfo
    try:
        yield
    finally:
        socket.getaddrinfo = real


async def outcome(call: Callable[[Any], Awaitable[Any]], loop: Any) -> str:
    """How a call ends, in a word. What it makes is closed."""
    try:
        made = await asyncio.wait_for(call(loop), 5)
    except (SystemError, AssertionError) as error:
        return f"FAULT {error!r}"
    except TimeoutError:
        return "does not end"
    except Exception as error:
        return type(error).__name__
    for one in made if isinstance(made, tuple) else [made]:
        for name in ("abort", "close"):
            if callable(end := getattr(one, name, None)):
                end()
                break
    await asyncio.sleep(0)
    return OK


def outcomes(backend: str, call: Callable[[Any], Awaitable[Any]]) -> tuple[str, str]:
    """Of asyncio's loop, and of this one."""
    found = []
    for kind in ("asyncio", backend):
        loop = make_loop(kind)
        loop.set_exception_handler(lambda _loop, _context: None)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(loop.run_until_complete(outcome(call, loop)))
        finally:
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
    return found[0], found[1]


def compare(backend: str, call: Callable[[Any], Awaitable[Any]]) -> None:
    with numeric_names_only():
        theirs, ours = outcomes(backend, call)
    assert not ours.startswith("FAULT"), ours
    assert ours == theirs, f"asyncio: {theirs}; here: {ours}"


CONNECT_OPTIONS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        (
            *("ssl", "family", "proto", "flags", "sock", "local_addr", "server_hostname"),
            *("ssl_handshake_timeout", "ssl_shutdown_timeout", "happy_eyeballs_delay"),
            *("interleave", "all_errors"),
        ),
        VALUES,
    ),
)
SERVE_OPTIONS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        (
            *("family", "flags", "sock", "backlog", "ssl", "reuse_address", "reuse_port"),
            *("ssl_handshake_timeout", "ssl_shutdown_timeout", "start_serving"),
        ),
        VALUES,
    ),
)


@given(VALUES, VALUES, CONNECT_OPTIONS)
@SETTINGS
def test_create_connection(backend: str, host: Any, port: Any, options: dict[str, Any]) -> None:
    compare(backend, lambda loop: loop.create_connection(asyncio.Protocol, host, port, **options))


@given(st.one_of(st.just("127.0.0.1"), VALUES), st.one_of(st.just(0), VALUES), SERVE_OPTIONS)
@SETTINGS
def test_create_server(backend: str, host: Any, port: Any, options: dict[str, Any]) -> None:
    if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536:
        port = 0  # one that somebody has is another matter
    compare(backend, lambda loop: loop.create_server(asyncio.Protocol, host, port, **options))


@given(ADDRESSES, ADDRESSES)
@SETTINGS
def test_create_datagram_endpoint(backend: str, local: Any, remote: Any) -> None:
    compare(
        backend,
        lambda loop: loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=local, remote_addr=remote
        ),
    )


@given(st.sampled_from([socket.AF_INET, socket.AF_INET6, socket.AF_UNIX]), ADDRESSES)
@SETTINGS
def test_sock_connect(backend: str, family: int, address: Any) -> None:
    async def connect(loop: Any) -> None:
        with socket.socket(family) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)

    compare(backend, connect)


@given(ADDRESSES, st.sampled_from([b"x", b"", "x", None, 5, [b"x"], memoryview(b"xy")]))
@SETTINGS
def test_sock_sendto(backend: str, address: Any, data: Any) -> None:
    async def send(loop: Any) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await loop.sock_sendto(sock, data, address)

    compare(backend, send)


def as_time(value: Any, otherwise: Any = 0.0) -> Any:
    """What is no number, and the number that is none, stay in asyncio's heap and break its loop."""
    return value if isinstance(value, (int, float)) and value == value else otherwise


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "call_soon": lambda loop, value: loop.call_soon(value),
    "call_soon context": lambda loop, value: loop.call_soon(print, context=value),
    "call_later": lambda loop, value: loop.call_later(as_time(value, "x"), print),
    "call_at": lambda loop, value: loop.call_at(as_time(value), print),
    "add_reader": lambda loop, value: loop.add_reader(value, print),
    "remove_reader": lambda loop, value: loop.remove_reader(value),
    "remove_writer": lambda loop, value: loop.remove_writer(value),
    "add_signal_handler": lambda loop, value: loop.add_signal_handler(value, print),
    "remove_signal_handler": lambda loop, value: loop.remove_signal_handler(value),
    "set_exception_handler": lambda loop, value: loop.set_exception_handler(value),
    "set_default_executor": lambda loop, value: loop.set_default_executor(value),
    "set_task_factory": lambda loop, value: loop.set_task_factory(
        value if not callable(value) else None
    ),
    "default_exception_handler": lambda loop, value: loop.default_exception_handler(value),
    "call_exception_handler": lambda loop, value: loop.call_exception_handler(value),
}


@pytest.mark.parametrize("name", CALLS)
@given(VALUES)
@SETTINGS
def test_plain_calls(backend: str, name: str, value: Any) -> None:
    async def call(loop: Any) -> Any:
        made = CALLS[name](loop, value)
        if hasattr(made, "cancel"):
            made.cancel()

    if isinstance(value, int) and 0 <= value < 1000 and ("reader" in name or "writer" in name):
        return  # a number that somebody has
    compare(backend, call)


READS: dict[str, Callable[[Any, Any], Any]] = {
    "read": lambda reader, value: reader.read(value),
    "readexactly": lambda reader, value: reader.readexactly(value),
    "readuntil": lambda reader, value: reader.readuntil(value),
}


@pytest.mark.parametrize("name", READS)
@given(st.one_of(VALUES, st.sampled_from([b"a", b"bc", b"zz", bytearray(b"b"), (b"a",)])))
@SETTINGS
def test_streams(backend: str, name: str, value: Any) -> None:
    async def call(loop: Any) -> None:
        left, right = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=left)
        right.sendall(b"abcdefg" * 3)
        right.close()
        try:
            await READS[name](reader, value)
        finally:
            writer.close()

    compare(backend, call)


WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "write": lambda transport, value: transport.write(value),
    "writelines": lambda transport, value: transport.writelines(value),
    "set_write_buffer_limits": lambda transport, value: transport.set_write_buffer_limits(value),
    "set_write_buffer_limits low": lambda transport, value: transport.set_write_buffer_limits(
        low=value
    ),
    "get_extra_info": lambda transport, value: transport.get_extra_info(value),
    "set_protocol": lambda transport, value: transport.set_protocol(value),
}


@pytest.mark.parametrize("name", WRITES)
@given(st.one_of(VALUES, st.sampled_from([[b"a", b"b"], [1], memoryview(b"x"), bytearray(b"y")])))
@SETTINGS
def test_transports(backend: str, name: str, value: Any) -> None:
    async def call(loop: Any) -> None:
        left, right = socket.socketpair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=left)
        try:
            WRITES[name](transport, value)
        finally:
            transport.abort()
            right.close()

    compare(backend, call)


# ---- what only netpoll has: an exception that says what is wrong, and nothing else --------------

REFUSALS = (TypeError, ValueError, OSError, OverflowError)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            *netpoll.LoopConfig.__dataclass_fields__,
            *netpoll.ServerLimits.__dataclass_fields__,
            *netpoll.BufferConfig.__dataclass_fields__,
        ]
    ),
    VALUES,
    max_size=3,
)


@pytest.mark.parametrize("kind", [netpoll.LoopConfig, netpoll.ServerLimits, netpoll.BufferConfig])
@given(FIELDS)
@SETTINGS
def test_configurations(kind: Any, fields: dict[str, Any]) -> None:
    own = {name: value for name, value in fields.items() if name in kind.__dataclass_fields__}
    with contextlib.suppress(*REFUSALS):
        kind(**own)


@given(VALUES, VALUES, st.dictionaries(TEXTS, VALUES, max_size=3))
@SETTINGS
def test_responses(body: Any, status: Any, headers: dict[str, Any]) -> None:
    with contextlib.suppress(*REFUSALS):
        http.Response(body, status=status, headers=headers)
    with contextlib.suppress(*REFUSALS):
        http.Response(body, headers=list(headers.items()))


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            (
                *("host", "port", "unix", "sockets", "ssl", "workers", "reuse_port", "backend"),
                *("limits", "config", "buffers", "on_connect", "on_close"),
            ),
            VALUES,
        ),
    )
)
@SETTINGS
def test_servers(options: dict[str, Any]) -> None:
    with contextlib.suppress(*REFUSALS):
        netpoll.Server(lambda conn: None, **options)


def test_the_strategies_have_what_they_should() -> None:
    """A context, a file and a class are no addresses either."""
    for value in (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), io.BytesIO(), int):
        compare("epoll", lambda loop, value=value: loop.sock_connect(socket.socket(), value))
