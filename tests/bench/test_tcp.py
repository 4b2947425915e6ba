"""Both sides of a benchmark's connection have the congestion control that the page names."""

import socket
from collections.abc import Iterator

import pytest

from netpoll.bench import tcp
from netpoll.bench._native import Load, LoadError
from netpoll.bench.cores import choose_pinning
from netpoll.bench.environment import describe, sentences
from netpoll.bench.server import listening_socket


def chosen(sock: socket.socket) -> str:
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return name.rstrip(b"\0").decode()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listening_socket("tcp") as sock:
        sock.setblocking(True)
        sock.settimeout(10)
        yield sock


def test_accepted_and_connecting_sockets_have_it(listener: socket.socket) -> None:
    with tcp.connect(listener.getsockname()) as near:
        accepted, _ = listener.accept()
        with accepted:
            for sock in (near, accepted):
                assert chosen(sock) == tcp.congestion_control()
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_load_asks_for_it(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    monkeypatch.setattr("netpoll.bench._native.congestion_control", lambda: "nonsense")
    with pytest.raises(LoadError, match="No such file"), Load(listener.getsockname(), 1, 64):
        pass


def test_what_may_not_be_chosen_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "UNPACED", ("nonsense", "reno"))
    assert tcp.congestion_control.__wrapped__() == "reno"
    monkeypatch.setattr(tcp, "UNPACED", ("nonsense",))
    assert tcp.congestion_control.__wrapped__() == tcp.system_congestion_control()


def test_the_report_says_when_it_is_not_the_systems() -> None:
    environment = describe(choose_pinning())
    environment["congestion_control_of_the_system"] = "bbr"
    environment["congestion_control"] = "cubic"
    assert "TCP with cubic on both sides, not bbr, the system's choice." in sentences(environment)
    environment["congestion_control"] = "bbr"
    assert not [line for line in sentences(environment) if line.startswith("TCP")]
    for key in ("congestion_control", "congestion_control_of_the_system"):  # a file of before
        del environment[key]
    assert len(sentences(environment)) == 3
