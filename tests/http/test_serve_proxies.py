"""`netpoll serve` behind a proxy: who the client is."""

import contextlib
import http.client
from pathlib import Path

import pytest

from .serving import Running, serving


@pytest.mark.parametrize("app", ["seen_by_asgi", "seen_by_wsgi"])
def test_a_proxy_says_who_the_client_is(tmp_path: Path, backend: str, app: str) -> None:
    headers = {"X-Forwarded-For": "6.6.6.6, 1.2.3.4, 10.0.0.7", "X-Forwarded-Proto": "https"}

    def ask(running: Running) -> list[str]:
        client = http.client.HTTPConnection("test")
        client.sock = running.connect()
        with contextlib.closing(client):
            client.request("GET", "/", headers=headers)
            return client.getresponse().read().decode().split()

    with serving(
        *(tmp_path, backend, f"app:{app}", "--proxy-headers"),
        *("--forwarded-allow-ips", "127.0.0.0/8,10.0.0.0/8"),
    ) as running:
        assert ask(running) == ["1.2.3.4", "https"]
    with serving(
        *(tmp_path, backend, f"app:{app}", "--proxy-headers", "--forwarded-allow-ips", "10.1.1.1"),
    ) as running:
        assert ask(running) == ["127.0.0.1", "http"]
    with serving(tmp_path, backend, f"app:{app}") as running:
        assert ask(running) == ["127.0.0.1", "http"]


@pytest.mark.parametrize("app", ["seen_by_asgi", "seen_by_wsgi"])
def test_a_proxy_of_connections_says_who_the_client_is(
    tmp_path: Path, backend: str, app: str
) -> None:
    args = (f"app:{app}", "--proxy-protocol", "--proxy-allow-from", "127.0.0.0/8")
    with serving(tmp_path, backend, *args) as running, running.connect() as client:
        client.sendall(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n")
        for _ in range(2):
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            response = http.client.HTTPResponse(client)
            response.begin()
            assert response.read() == b"1.2.3.4 http"
        with running.connect() as other:
            other.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert other.recv(100) == b"", "who does not say it is refused"
        assert running.ended() == 0
