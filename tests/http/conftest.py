"""HTTP servers for the tests, and clients that see what was really sent."""

import http.client
import io
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from netpoll import http as nhttp
from tests.server.conftest import Serving, check_all_is_back


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class Client:
    """A blocking connection to a server."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer, 1xx ones too. ConnectionError when the stream ends instead."""
        reader = http.client.HTTPResponse(_Pipe(self.file), method=method)
        line = self.file.peek(1)
        if not line:
            raise ConnectionResetError("the stream has ended")
        if self.file.peek(12)[9:10] == b"1":
            status = int(self.file.readline().split()[1])
            headers = list(iter(self.file.readline, b"\r\n"))
            return Answer(status, [_pair(line) for line in headers], b"")
        reader.begin()
        return Answer(reader.status, reader.getheaders(), reader.read())

    def ask(
        self, path: str = "/", method: str = "GET", body: bytes = b"", **headers: str
    ) -> Answer:
        lines = [f"{method} {path} HTTP/1.1", "host: test"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"content-length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + body)
        return self.answer(method)

    def rest(self) -> bytes:
        """All until the server closes."""
        return self.file.read()

    def close(self) -> None:
        self.file.close()
        self.sock.close()


class _Pipe:
    """What http.client takes for a socket."""

    def __init__(self, file: io.BufferedReader) -> None:
        self.file = file

    def makefile(self, mode: str) -> "_Pipe":
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def close(self) -> None:
        pass


def _pair(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode("latin-1").partition(":")
    return name, value.strip()


class HttpServing(Serving):
    """Starts HTTP servers for one test: `http_serving(app, workers=2)`."""

    def new_server(self, app: Callable[..., Any], **options: Any) -> nhttp.Server:
        return nhttp.Server(app, backend=self.backend, **options)

    def client(self, timeout_s: float = 20.0) -> Client:
        sock = self.connect(timeout_s)
        return Client(sock)


@pytest.fixture
def http_serving(backend: str) -> Iterator[HttpServing]:
    yield from check_all_is_back(HttpServing(backend))


@pytest.fixture
def errors_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.ERROR, "netpoll.http")
    return caplog


@pytest.fixture(params=[0, 4], ids=["inline", "pool"])
def threads(request: pytest.FixtureRequest) -> int:
    """How many a WSGI application gets."""
    return request.param
