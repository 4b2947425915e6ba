"""pytest-asyncio and pytest-aiohttp: other people's test suites run on netpoll unchanged."""

import sys
from pathlib import Path

import pytest

from .programs import python, python_env, running

pytest.importorskip("pytest_asyncio")

TESTS = """
import asyncio
import pytest
import pytest_asyncio
import netpoll

@pytest_asyncio.fixture
async def server():
    async def handle(reader, writer):
        writer.write((await reader.readline()).upper())
        writer.close()
    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()

@pytest.mark.asyncio
async def test_loop():
    assert isinstance(asyncio.get_running_loop(), netpoll.EventLoop)

@pytest.mark.asyncio
async def test_fixture(server):
    reader, writer = await asyncio.open_connection(*server)
    writer.write(b"hello\\n")
    assert await reader.read() == b"HELLO"[:5] + b"\\n"
    writer.close()
    await writer.wait_closed()

@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("number", range(5))
async def test_module_loop(number):
    await asyncio.sleep(0)
    assert isinstance(asyncio.get_running_loop(), netpoll.EventLoop)

@pytest.mark.asyncio
async def test_that_fails():
    assert isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop) is False
"""

# The two ways that pytest-asyncio documents: a policy (where Python has them) and a factory.
POLICY = """
import pytest
import netpoll

@pytest.fixture(scope="session")
def event_loop_policy():
    return netpoll.EventLoopPolicy()
"""

FACTORY = """
import netpoll

def pytest_asyncio_loop_factories(config, item):
    return {"netpoll": netpoll.new_event_loop}
"""


def has_factories() -> bool:
    from pytest_asyncio import plugin

    return "pytest_asyncio_loop_factories" in dir(plugin) or any(
        hasattr(holder, "pytest_asyncio_loop_factories") for holder in vars(plugin).values()
    )


@pytest.mark.parametrize("way", ["policy", "factory"])
def test_a_suite_on_netpoll(backend: str, way: str, tmp_path: Path) -> None:
    """Three kinds of tests pass, and one that insists on another loop fails: it did run."""
    if way == "policy" and sys.version_info >= (3, 16):
        pytest.skip("this Python has no event loop policies")
    if way == "factory" and not has_factories():
        pytest.skip("this pytest-asyncio has no pytest_asyncio_loop_factories")
    (tmp_path / "conftest.py").write_text(POLICY if way == "policy" else FACTORY)
    (tmp_path / "test_it.py").write_text(TESTS)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:netpoll", "--rootdir", str(tmp_path)]
    for warning in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
        options += ["-W", f"error::{warning}"]
    command = python("-m", "pytest", *options, str(tmp_path))
    with running(command, python_env(backend), cwd=tmp_path) as program:
        assert program.child.wait(60) == 1, program.output()
        assert "1 failed, 7 passed" in program.output(), program.output()
        assert "test_that_fails" in program.output()


AIOHTTP_TESTS = """
import asyncio
import pytest
from aiohttp import web
import netpoll

async def hello(request):
    return web.Response(text=type(asyncio.get_running_loop()).__module__)

async def test_client(aiohttp_client):
    app = web.Application()
    app.router.add_get("/", hello)
    client = await aiohttp_client(app)
    for _ in range(50):
        answer = await client.get("/")
        assert await answer.text() == "netpoll.loop"
"""


def test_pytest_aiohttp(backend: str, tmp_path: Path) -> None:
    pytest.importorskip("pytest_aiohttp")
    (tmp_path / "conftest.py").write_text(POLICY)
    (tmp_path / "test_it.py").write_text(AIOHTTP_TESTS)
    options = ["-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    options += ["--rootdir", str(tmp_path)]
    command = python("-m", "pytest", *options, str(tmp_path))
    with running(command, python_env(backend), cwd=tmp_path) as program:
        assert program.child.wait(60) == 0, program.output()
        assert "1 passed" in program.output(), program.output()
