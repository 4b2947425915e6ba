"""Connections that a proxy makes: the header of the PROXY protocol, and what the handler sees."""

import socket
import struct
import time
from typing import Any

import pytest

import netpoll
from netpoll._native.server.networks import Networks
from tests.support import SLOWNESS
from tests.tls import HOST, client_context, server_context

from .conftest import Serving, wait_for

LOOPBACK = "127.0.0.0/8"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"
V1_NAMES = (("192.0.2.1", 56324), ("198.51.100.2", 443))


def v2(command: int, kind: int, body: bytes) -> bytes:
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", command, kind, len(body)) + body


V6 = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01"
V2 = v2(0x21, 0x21, V6 + bytes(15) + b"\x01" + struct.pack("!HH", 1, 65535) + b"\x04\0\x01x")
V2_NAMES = (("2001:db8::1", 1, 0, 0), ("::1", 65535, 0, 0))


def names(conn: netpoll.Connection) -> None:
    if conn.take().endswith(b"?"):
        conn.write(repr((conn.peername, conn.sockname)).encode())


@pytest.fixture
def proxied(serving: Serving) -> Any:
    """Starts a server behind a proxy: proxied(handler, networks=..., timeout_s=..., **options)."""
    new_server = serving.new_server

    def start(
        handler: Any = names, networks: str = LOOPBACK, timeout_s: float = 20.0, **options: Any
    ) -> netpoll.Server:
        def make(*args: Any, **kwargs: Any) -> netpoll.Server:
            server = new_server(*args, **kwargs)
            server._options["proxies"] = (Networks(networks), timeout_s)
            return server

        serving.new_server = make  # type: ignore[method-assign]
        return serving(handler, **options)

    return start


@pytest.mark.parametrize(("header", "seen"), [(V1, V1_NAMES), (V2, V2_NAMES)], ids=["v1", "v2"])
@pytest.mark.parametrize("workers", [1, 2])
def test_names_are_those_of_the_header(
    serving: Serving, proxied: Any, header: bytes, seen: object, workers: int
) -> None:
    proxied(workers=workers)
    for pieces in ([header + b"a?"], [header, b"a?"], [bytes([one]) for one in header + b"a?"]):
        client = serving.connect()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
            if len(pieces) > 2:
                time.sleep(0.001)
        assert client.recv(1000) == repr(seen).encode()


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", v2(0x20, 0, b"any thing")])
def test_a_proxy_that_speaks_for_itself(serving: Serving, proxied: Any, header: bytes) -> None:
    server = proxied()
    client = serving.connect()
    client.sendall(header + b"?")
    own = (client.getsockname(), ("127.0.0.1", server.port))
    assert client.recv(1000) == repr(own).encode()


def test_names_are_forgotten_with_their_connection(serving: Serving, proxied: Any) -> None:
    server = proxied()
    for header, seen in ((V1, V1_NAMES), (V2, V2_NAMES)) * 3:
        client = serving.connect()
        client.sendall(header + b"?")
        assert client.recv(1000) == repr(seen).encode()
        client.close()
        wait_for(lambda: server.stats()["connections"] == 0)


def test_tls_comes_behind_the_header(serving: Serving, proxied: Any) -> None:
    proxied(ssl=server_context())
    plain = serving.connect()
    plain.sendall(V1)
    with client_context().wrap_socket(plain, server_hostname=HOST) as client:
        client.sendall(b"?")
        assert client.recv(1000) == repr(V1_NAMES).encode()


def told(serving: Serving) -> list[str]:
    found = [context["message"] for context in serving.errors]
    serving.errors.clear()
    return found


def test_who_is_not_trusted_is_refused(serving: Serving, proxied: Any) -> None:
    server = proxied(networks="127.0.0.2")
    for _ in range(2):
        client = serving.connect()
        client.sendall(V1 + b"?")
        assert is_closed(client)
    wait_for(lambda: len(serving.errors) == 1)
    assert "trusted proxy" in told(serving)[0], "it is told once"
    other = socket.socket()
    other.bind(("127.0.0.2", 0))
    other.connect(("127.0.0.1", server.port))
    serving.clients.append(other)
    other.sendall(V1 + b"?")
    assert other.recv(1000) == repr(V1_NAMES).encode()


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1000) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "header", [b"GET / HTTP/1.1\r\n", V1.replace(b"443", b"0443"), b"\r\n\r\nGET", v2(0x31, 0, b"")]
)
def test_what_is_not_a_header_is_refused(serving: Serving, proxied: Any, header: bytes) -> None:
    proxied(networks="*")
    client = serving.connect()
    client.sendall(header)
    assert is_closed(client)
    assert "does not begin with" in told(serving)[0]


def test_a_header_that_does_not_come(serving: Serving, proxied: Any) -> None:
    proxied(timeout_s=0.05)
    for piece in (b"", V1[:20], V2[:30]):
        client = serving.connect()
        client.sendall(piece)
        assert is_closed(client)
    assert "does not come" in told(serving)[0]


def test_a_peer_that_goes_within_its_header(serving: Serving, proxied: Any) -> None:
    proxied()
    for piece in (b"", V1[:20], V2[:30]):
        client = serving.connect()
        client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        assert is_closed(client)


def test_a_stop_closes_who_has_not_said_it_yet(serving: Serving, proxied: Any) -> None:
    server = proxied(workers=2)
    clients = [serving.connect() for _ in range(4)]
    for client in clients:
        client.sendall(V1[:20])
    wait_for(lambda: not any(worker.is_empty for worker in server._live_workers()))
    begin_s = time.monotonic()
    server.close(30.0)
    assert time.monotonic() - begin_s < 10 * SLOWNESS
    assert all(is_closed(client) for client in clients)


def test_a_place_is_free_again(serving: Serving, proxied: Any) -> None:
    """Who is refused counts as a connection that has ended."""
    proxied(networks="*", limits=netpoll.ServerLimits(connections_max_count=1))
    for _ in range(3):
        client = serving.connect()
        client.sendall(b"nothing\r\n")
        assert is_closed(client)
    client = serving.connect()
    client.sendall(V1 + b"?")
    assert client.recv(1000) == repr(V1_NAMES).encode()
    told(serving)


def test_any_peer_of_a_unix_socket_is_trusted(serving: Serving, proxied: Any, tmp_path) -> None:
    proxied(networks="", unix=str(tmp_path / "sock"))
    client = socket.socket(socket.AF_UNIX)
    serving.clients.append(client)
    client.settimeout(20 * SLOWNESS)
    client.connect(str(tmp_path / "sock"))
    client.sendall(V1)
    client.sendall(b"?")
    assert client.recv(1000) == repr(V1_NAMES).encode()
