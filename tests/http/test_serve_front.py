"""`netpoll serve` behind nginx and HAProxy, which keep their connections to it alive: no request is
lost and no answer is another one's, while workers are reloaded.

NETPOLL_FRONT_REQUESTS says how many requests each of them passes on.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import netpoll
from tests.support import SLOWNESS

from .serving import Running, serving

REQUESTS_COUNT = int(os.environ.get("NETPOLL_FRONT_REQUESTS", "4000"))
CLIENTS_COUNT = 24
RELOAD_PAUSE_S = 2.0
TIMEOUT_S = 60 * SLOWNESS + REQUESTS_COUNT / 300

APP = """
    import os
    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("no lifespan")
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200})
        token = scope["raw_path"] + b"|" + body
        await send({"type": "http.response.body", "body": token})
"""

NGINX = """
    daemon off;
    worker_processes 1;
    pid {folder}/nginx.pid;
    error_log {folder}/nginx.log;
    events {{ worker_connections 512; }}
    http {{
        access_log off;
        client_body_temp_path {folder}/body;
        proxy_temp_path {folder}/proxy;
        fastcgi_temp_path {folder}/fastcgi;
        uwsgi_temp_path {folder}/uwsgi;
        scgi_temp_path {folder}/scgi;
        upstream netpoll {{ server 127.0.0.1:{port}; keepalive 16; keepalive_timeout 60s; }}
        server {{
            listen 127.0.0.1:{front};
            location / {{
                proxy_pass http://netpoll;
                proxy_http_version 1.1;
                proxy_set_header Connection "";
                proxy_next_upstream off;
            }}
        }}
    }}
"""

HAPROXY = """
global
    nbthread 1
defaults
    mode http
    timeout connect 20s
    timeout client 60s
    timeout server 60s
    retries 0
listen front
    bind 127.0.0.1:{front}
    http-reuse always
    server netpoll 127.0.0.1:{port}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def in_front(kind: str, folder: Path, port: int) -> Iterator[int]:
    """A proxy in front of `port`; the port that it listens on."""
    program = shutil.which(kind, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip(f"{kind} is not installed")
    front = free_port()
    config = folder / f"{kind}.conf"
    source = NGINX if kind == "nginx" else HAPROXY
    config.write_text(source.format(folder=folder, port=port, front=front))
    said = (folder / f"{kind}.said").open("wb")
    arguments = ["-c", str(config)] if kind == "nginx" else ["-db", "-f", str(config)]
    process = subprocess.Popen([program, *arguments], stdout=said, stderr=said)
    try:
        until_s = time.monotonic() + 30 * SLOWNESS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", front)):
                break
            assert process.poll() is None, Path(said.name).read_text()
            assert time.monotonic() < until_s, "it does not listen"
            time.sleep(0.02)
        yield front
    finally:
        process.terminate()
        process.wait(30 * SLOWNESS)
        said.close()


async def talk(port: int, name: int, numbers: Iterator[int]) -> list[str]:
    """One client, which goes on until all numbers are used up. What was wrong."""
    wrong: list[str] = []
    writer: asyncio.StreamWriter | None = None
    for number in numbers:
        token = f"/{name}.{number}/{'x' * (number % 97)}"
        body = f"{number}-{name}" * (number % 13) if number % 3 == 0 else ""
        head = f"{'POST' if body else 'GET'} {token} HTTP/1.1\r\nhost: x\r\n"
        head += f"content-length: {len(body)}\r\n\r\n" if body else "\r\n"
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((head + body).encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.partition("content-length: ")[2].partition("\r\n")[0])
        found = (await reader.readexactly(length)).decode()
        if not answer.startswith("http/1.1 200 ") or found != f"{token}|{body}":
            wrong.append(f"{token}: {answer.splitlines()[0]} {found!r}")
        if "connection: close" in answer:
            writer.close()
            writer = None
    if writer is not None:
        writer.close()
    return wrong


async def talk_through(port: int, running: Running) -> tuple[list[str], int]:
    """(what was wrong, how often the workers were reloaded)."""
    numbers = iter(range(REQUESTS_COUNT))
    clients = [asyncio.ensure_future(talk(port, i, numbers)) for i in range(CLIENTS_COUNT)]
    for reloads in itertools.count():
        done, _ = await asyncio.wait(clients, timeout=RELOAD_PAUSE_S if reloads else 0)
        if len(done) == len(clients):
            return [wrong for client in clients for wrong in client.result()], reloads
        running.send(signal.SIGHUP)
    raise AssertionError("not reached")


@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_a_proxy_that_keeps_connections_alive(tmp_path: Path, backend: str, kind: str) -> None:
    loop = netpoll.new_event_loop(backend=backend)
    with (
        serving(tmp_path, backend, "app:app", "--workers", "2", source=APP) as running,
        in_front(kind, tmp_path, int(running.where.split()[1])) as port,
        contextlib.closing(loop),
    ):
        work = asyncio.wait_for(talk_through(port, running), TIMEOUT_S)
        wrong, reloads = loop.run_until_complete(work)
        assert wrong == []
        assert reloads > 0, "it was over before the first reload"
        assert running.ended() == 0
