"""Where a server listens: Unix sockets and their files, and the addresses of a host."""

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

import netpoll
from netpoll._server import listening
from tests.support import child_command

from .conftest import Serving
from .test_ends import echo, server_threads

# ---- Unix sockets -----------------------------------------------------------------------------


def reach(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(path)
        client.send(b"x")
        return client.recv(1) == b"x"


def test_a_stale_file_is_replaced(serving: Serving, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    server = serving(echo, unix=path)
    assert reach(path)
    server.close()
    assert not os.path.exists(path)


def test_a_path_in_use_is_not_taken(serving: Serving, tmp_path: Path) -> None:
    """A server that listens there, a socket of another kind and an ordinary file stay."""
    path = str(tmp_path / "socket")
    first = serving(echo, unix=path)
    with pytest.raises(OSError, match="in use") as refused:
        serving(echo, unix=path)
    assert refused.value.errno == errno.EADDRINUSE
    assert reach(path)
    first.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(OSError, match="in use"):
            serving(echo, unix=path)
    os.unlink(path)
    Path(path).write_text("a file")
    with pytest.raises(OSError, match="in use"):
        serving(echo, unix=path)
    assert Path(path).read_text() == "a file"


def test_anothers_socket_is_not_removed(serving: Serving, tmp_path: Path) -> None:
    """A rolling restart: the new server has taken the path over."""
    path = str(tmp_path / "socket")
    old = serving(echo, unix=path)
    os.unlink(path)
    serving(echo, unix=path)
    old.close()
    assert reach(path)


@pytest.mark.parametrize("kind", [str, bytes])
def test_abstract_names(serving: Serving, kind: type) -> None:
    name: Any = f"\0netpoll-test-{os.getpid()}-{serving.backend}"
    server = serving(echo, unix=name if kind is str else name.encode())
    assert reach(name)
    server.close()
    assert server_threads() == []
    assert reach_again_fails(name)


def reach_again_fails(name: str) -> bool:
    with contextlib.suppress(ConnectionRefusedError):
        return not reach(name)
    return True


def test_paths_of_every_type(serving: Serving, tmp_path: Path, monkeypatch: Any) -> None:
    """Relative ones are removed although the program has gone elsewhere."""
    monkeypatch.chdir(tmp_path)
    for path in ("relative", b"bytes", tmp_path / "path"):
        server = serving(echo, unix=path)
        name = os.path.join(str(tmp_path), os.path.basename(os.fsdecode(path)))
        assert reach(name)
        monkeypatch.chdir("/")
        server.close()
        assert not os.path.exists(name)
        monkeypatch.chdir(tmp_path)


def test_a_file_that_cannot_be_removed(serving: Serving, tmp_path: Path, monkeypatch: Any) -> None:
    """That is logged; the server stops even so."""
    path = str(tmp_path / "socket")
    server = serving(echo, unix=path)

    def refused(path: str) -> None:
        raise PermissionError(errno.EACCES, "as if the directory were another's")

    monkeypatch.setattr("netpoll._server.listening.os.unlink", refused)
    server.close()
    assert server_threads() == [] and server.sockets == ()


def test_a_start_that_fails_leaves_nothing(serving: Serving, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = netpoll.Server(echo, unix=path, backend=serving.backend)

    def fails(loop: Any) -> None:
        raise LookupError("no worker")

    server._new_worker = fails  # type: ignore[method-assign, assignment]
    with pytest.raises(LookupError):
        server.start()
    assert not os.path.exists(path) and server_threads() == []
    server.close()


# ---- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["", None, "localhost"])
def test_every_address(serving: Serving, host: str | None) -> None:
    server = serving(echo, host=host, port=0)
    assert len({sock.getsockname()[1] for sock in server.sockets}) == 1
    found = [entry[4][0] for entry in socket.getaddrinfo(
        host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)]  # fmt: skip
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:

        async def reference() -> list[str]:
            control = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, 0)
            names = [sock.getsockname()[0] for sock in control.sockets]
            control.close()
            return names

        names = runner.run(reference())
    assert sorted(sock.getsockname()[0] for sock in server.sockets) == sorted(names)
    assert set(names) <= set(found)
    client = serving.connect()
    client.send(b"x")
    assert client.recv(1) == b"x"


REFUSALS = [
    ("socket", errno.EAFNOSUPPORT),
    ("bind", errno.EADDRNOTAVAIL),
]


@pytest.mark.parametrize(("call", "number"), REFUSALS)
@pytest.mark.parametrize("host", [None, "", "localhost"])
def test_a_family_that_is_switched_off(
    serving: Serving, monkeypatch: Any, call: str, number: int, host: str | None
) -> None:
    """The other one is served, on one port; an address that is not available is no error."""

    class Socket(socket.socket):
        refused = frozenset({socket.AF_INET6})

        def __init__(self, family: int = -1, *args: Any, **options: Any) -> None:
            if call == "socket" and family in self.refused:
                raise OSError(number, os.strerror(number))
            super().__init__(family, *args, **options)

        def bind(self, address: Any) -> None:
            if call == "bind" and self.family in self.refused:
                raise OSError(number, os.strerror(number))
            super().bind(address)

    both = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(listening.socket, "getaddrinfo", lambda *args, **options: both)
        patch.setattr(listening.socket, "socket", Socket)
        server = serving(echo, host=host, port=0)
        Socket.refused = {socket.AF_INET6, socket.AF_INET}
        with pytest.raises(OSError, match="any address") as error:
            netpoll.Server(echo, host, 0, backend=serving.backend).start()
        assert error.value.errno == number
    assert [sock.family for sock in server.sockets] == [socket.AF_INET]
    client = serving.connect()
    client.send(b"x")
    assert client.recv(1) == b"x"


def test_without_ipv6(backend: str) -> None:
    """In a network namespace where the kernel has IPv6 switched off."""

    def program() -> None:
        import socket
        import subprocess

        import netpoll

        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for name in ("all", "lo", "default"):
            with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w") as file:
                file.write("1")
        for host in ("localhost", "", None):
            server = netpoll.Server(lambda conn: conn.forward(), host, 0, backend=BACKEND)
            with server, socket.create_connection(("127.0.0.1", server.port)) as client:
                client.send(b"x")
                assert client.recv(1) == b"x"
        print("right")

    command = ["unshare", "--net", *child_command(backend, program)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("unshare(1) is not installed")
    if "unshare" in done.stderr or "disable_ipv6" in done.stderr or "'ip'" in done.stderr:
        pytest.skip(f"no network namespace can be had: {done.stderr.splitlines()[-1]}")
    assert done.stdout == "right\n", done.stderr


def test_a_port_that_one_family_has_already(monkeypatch: Any) -> None:
    """With port 0, a port that is free for the first address only is not the last word."""
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        both = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
        ]
        monkeypatch.setattr(listening.socket, "getaddrinfo", lambda *args, **options: both)
        asked: list[Any] = []

        class Socket(socket.socket):
            def bind(self, address: Any) -> None:
                asked.append(address)
                super().bind((address[0], port) if len(asked) == 1 else address)

        monkeypatch.setattr(listening.socket, "socket", Socket)
        made = listening.inet_sockets("two", 0, False)
        assert len(asked) == 4 and len({sock.getsockname()[1] for sock in made}) == 1
        for sock in made:
            sock.close()
