"""The examples of HTTP run: started as a user would, talked to, stopped by a signal."""

import hashlib
import http.client
import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.http.conftest import Client
from tests.http.frames import TEXT, Peer, frame
from tests.support import SLOWNESS

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples" / "http"


@contextmanager
def example(name: str, backend: str, *args: str) -> Iterator[http.client.HTTPConnection]:
    """A running example, and a client. It must end well when it is told to."""
    command = [sys.executable, str(EXAMPLES / name), *args, "--port", "0"]
    env = os.environ | {"NETPOLL_BACKEND": backend}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on port "), line
            timeout_s = 30 * SLOWNESS
            client = http.client.HTTPConnection("127.0.0.1", int(line.split()[-1]), timeout_s)
            yield client
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout_s) == 0
            client.close()
        finally:
            process.kill()


def get(client: http.client.HTTPConnection, path: str, **headers: str) -> tuple[int, bytes]:
    client.request("GET", path, headers=headers)
    answer = client.getresponse()
    return answer.status, answer.read()


def test_every_example_is_tested() -> None:
    folder = pathlib.Path(__file__).parent
    source = "".join(path.read_text() for path in folder.glob("test_*.py"))
    assert all(f'example("{path.name}"' in source for path in EXAMPLES.glob("*.py"))


def test_functions(backend: str) -> None:
    with example("functions.py", backend) as client:
        status, body = get(client, "/sum?1+2+3")
        assert (status, json.loads(body)) == (200, {"sum": 6})
        assert get(client, "/sum?a")[0] == 400
        assert get(client, "/nothing")[0] == 404
        client.request("POST", "/length", b"x" * 300_000)
        assert client.getresponse().read() == b"300000\n"
        assert get(client, "/squares")[1].split()[-1] == b"998001"


def test_files(backend: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.txt").write_text("0123456789")
    with example("files.py", backend, str(tmp_path)) as client:
        assert get(client, "/a.txt") == (200, b"0123456789")
        assert get(client, "/a.txt", range="bytes=2-4") == (206, b"234")
        assert get(client, "/../a.txt")[0] == 404


def test_events(backend: str) -> None:
    with example("events.py", backend) as client:
        client.request("GET", "/")
        answer = client.getresponse()
        assert answer.getheader("content-type") == "text/event-stream"
        for number in range(3):
            assert answer.readline() == f"id: {number}\n".encode()
            assert answer.readline() == b"event: tick\n"
            assert answer.readline().startswith(b"data: ")
            assert answer.readline() == b"\n"


def test_starlette(backend: str) -> None:
    if importlib.util.find_spec("starlette") is None:
        pytest.skip("Starlette is not installed")
    with example("starlette_app.py", backend) as client:
        status, body = get(client, "/hello/you")
        assert (status, json.loads(body)) == (200, {"hello": "you"})
        own = (EXAMPLES / "starlette_app.py").read_bytes()
        assert get(client, "/source/starlette_app.py") == (200, own)


def test_flask(backend: str) -> None:
    pytest.importorskip("flask")
    with example("flask_app.py", backend, "--threads", "2") as client:
        assert json.loads(get(client, "/hello/you")[1]) == {"hello": "you"}
        client.request("POST", "/digest", b"x" * 300_000)
        assert client.getresponse().read() == hashlib.sha256(b"x" * 300_000).hexdigest().encode()
        assert get(client, "/numbers/1000")[1].splitlines()[-1] == b"999"
        assert get(client, "/source")[1] == (EXAMPLES / "flask_app.py").read_bytes()


def test_chat(backend: str) -> None:
    with example("chat.py", backend) as client:
        assert get(client, "/")[1].startswith(b"<!doctype html>")
        assert get(client, "/room")[0] == 404
        first, second = (
            Peer(Client(socket.create_connection((client.host, client.port), 30)), "/room")
            for _ in range(2)
        )
        second.send(frame(TEXT, b"hello"))
        heard = [first.receive().payload.decode() for _ in range(3)]
        assert heard == ["member 1 has come", "member 2 has come", "member 2: hello"]
        assert [second.receive().payload.decode() for _ in range(2)] == heard[1:]
        assert second.close() == (1000, b"")
        assert first.receive().payload == b"member 2 has left"
        first.send(frame(TEXT, bytes(5000)))
        assert first.closed() == (1009, b"")
        first.client.close()
        second.client.close()
