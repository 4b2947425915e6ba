"""Servers that choose their loop by other ways than uvicorn's option: gunicorn and hypercorn.

Granian is not here: its loop is one of a closed list of names.
"""

import asyncio
import hashlib
import signal
from pathlib import Path
from typing import Any

import pytest

from ..support import pattern
from .programs import Program, free_port, python, python_env, running

httpx = pytest.importorskip("httpx")

WORKER = """
from uvicorn_worker import UvicornWorker

class NetpollWorker(UvicornWorker):
    CONFIG_KWARGS = {"loop": "netpoll:new_event_loop", "http": "auto"}
"""

HYPERCORN = """
import asyncio, signal, sys
from hypercorn.asyncio import serve
from hypercorn.config import Config
import netpoll
from tests.integration.asgi_app import app

async def main():
    config = Config()
    config.bind = [sys.argv[1]]
    config.errorlog = "-"
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await serve(app, config, shutdown_trigger=ended.wait)

netpoll.run(main())
"""


async def talk(program: Program, port: int, backend: str, http2: bool = False) -> None:
    """A request whose answer tells the loop, then 60 whose contents are checked, at once."""
    url = f"http://127.0.0.1:{port}"
    client = httpx.AsyncClient(timeout=30, trust_env=False, http1=not http2, http2=http2)
    async with client:
        who = (await client.get(f"{url}/loop")).json()
        assert (who["module"], who["backend"]) == ("netpoll.loop", backend), program.output()

        async def once(number: int) -> None:
            body = pattern(number * 4001, number)
            posted = await client.post(f"{url}/checksum", content=body)
            assert posted.text == hashlib.sha256(body).hexdigest()
            got = await client.get(f"{url}/bytes", params={"count": number * 3001})
            assert got.content == pattern(number * 3001)

        await asyncio.gather(*(once(number) for number in range(60)))


async def test_gunicorn(loop: Any, backend: str, tmp_path: Path) -> None:
    """gunicorn with two uvicorn workers, whose class names the loop."""
    pytest.importorskip("gunicorn")
    pytest.importorskip("uvicorn_worker")
    (tmp_path / "netpoll_worker.py").write_text(WORKER)
    port = free_port()
    command = python("-m", "gunicorn", "-k", "netpoll_worker.NetpollWorker", "-w", "2")
    command += ["-b", f"127.0.0.1:{port}", "tests.integration.asgi_app:app"]
    env = python_env(backend)
    env["PYTHONPATH"] += f":{tmp_path}"
    with running(command, env) as program:
        program.wait_for("Application startup complete", 2)
        await talk(program, port, backend)
        assert await asyncio.to_thread(program.stop, signal.SIGTERM) == 0
        program.clean()


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_hypercorn(loop: Any, backend: str, http2: bool) -> None:
    """hypercorn's serve() on netpoll.run: HTTP/1.1, and HTTP/2 where httpx can speak it."""
    pytest.importorskip("hypercorn")
    if http2:
        pytest.importorskip("h2")
    port = free_port()
    command = python("-c", HYPERCORN, f"127.0.0.1:{port}")
    with running(command, python_env(backend)) as program:
        program.wait_for("Running on")
        await talk(program, port, backend, http2)
        assert await asyncio.to_thread(program.stop, signal.SIGTERM) == 0
        assert "are zero" in program.output()
        program.clean(but=r".*DeprecationWarning.*")
