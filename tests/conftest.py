"""Loops for the tests, and the proof that nothing is left behind.

A test that takes `backend`, `loop` or `loop_factory` runs on uring and on epoll. With the marker
`control` (usually on the whole module) it runs on asyncio as well: a test that asyncio does not
pass says nothing about netpoll. `netpoll_only` takes a test of such a module out again.

An `async def` test runs on its `loop`. When the test is over, its loops are closed, and then:
no operation is in flight, every receive buffer is back, no timer, transport or callback is left,
the open file descriptors are those from before, no thread is left, and the loop's exception handler
was told nothing that the test does not take off `errors`.
"""

import asyncio
import contextlib
import gc
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .support import SLOWNESS, TEST_TIMEOUT_S, is_netpoll, make_loop

WITH_LARGE_FIXTURES = ("tests/test_site.py", "tests/test_structure.py")
ZERO_COUNTERS = ("ops_live", "ready_count", "timers_count", "transports_count")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loops",
        default="asyncio,uring,epoll",
        help="the loops to test, out of asyncio (the control), uring, epoll, sqpoll (uring with "
        "a polling kernel thread), uvloop",
    )
    parser.addoption(
        "--integration",
        action="store_true",
        help="real programs and servers: tests/integration (./test --integration installs them)",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.name == "integration" and not config.getoption("--integration"):
        return True
    return None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "control: run on asyncio, too")
    config.addinivalue_line("markers", "control_since(version): not on the control before it")
    config.addinivalue_line("markers", "netpoll_only: not on the control, whatever the module says")
    config.addinivalue_line("markers", "conformance: CPython's own asyncio tests")
    config.addinivalue_line("markers", "xdist_group(name): in one process, one after another")


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Who runs one after another, in one process of several: the tests of the harness, which
    measure, and those of a file whose fixture is a large one.

    By their place, not by a mark of theirs: on pytest 9.2, pytest-xdist 3.8 writes the group into
    an attribute that nobody reads.
    """
    from xdist.scheduler import LoadGroupScheduling

    class Scheduling(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            place = nodeid.partition("::")[0]
            if place in WITH_LARGE_FIXTURES:
                return place
            return "bench" if place.startswith("tests/bench/") else super()._split_scope(nodeid)

    return Scheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" not in metafunc.fixturenames:
        return
    loops = metafunc.config.getoption("--loops").split(",")
    own = metafunc.definition
    if own.get_closest_marker("netpoll_only") or not own.get_closest_marker("control"):
        loops = [name for name in loops if is_netpoll(name)]
    since = own.get_closest_marker("control_since")
    if since and sys.version_info < since.args[0]:
        loops = [name for name in loops if is_netpoll(name)]
    metafunc.parametrize("backend", loops)


def pytest_collection_finish() -> None:
    """What was made until now stays: the collections of the fixtures pass it over."""
    gc.collect()
    gc.freeze()


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """`async def` tests run on their loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    loop = pyfuncitem.funcargs["loop"]
    test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    loop.run_until_complete(asyncio.wait_for(test, TEST_TIMEOUT_S))
    return True


def open_fds() -> dict[int, str]:
    """What every open file descriptor of this process is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the directory's own
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


class LoopFactory:
    """Makes loops for one test and closes them: `loop_factory(sq_entries=8, buf_count=2)`."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.loops: list[Any] = []
        self.errors: list[dict[str, Any]] = []

    def __call__(self, **config: int) -> Any:
        try:
            loop = make_loop(self.backend, **config)
        except OSError as error:
            if type(error).__name__ == "BackendUnavailableError":
                pytest.skip(str(error))
            raise
        loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        self.loops.append(loop)
        return loop

    def close(self) -> None:
        """Ends what a test left running, then closes every loop."""
        for loop in self.loops:
            if loop.is_closed():
                continue
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=10 * SLOWNESS))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
        asyncio.set_event_loop(None)

    def leaks(self) -> list[str]:
        """What the counters of the closed loops say."""
        found = []
        for loop in self.loops if is_netpoll(self.backend) else ():
            stats = loop.stats()
            found += [f"{name} == {stats[name]}" for name in ZERO_COUNTERS if stats[name]]
            if stats["bufs_free"] != stats["bufs_total"]:
                found.append(f"bufs_free == {stats['bufs_free']} of {stats['bufs_total']}")
        return found


def _extra_fds(before: dict[int, str]) -> list[str]:
    return [f"{fd} -> {to}" for fd, to in open_fds().items() if before.get(fd) != to]


def _wait_for_none(what: Callable[[], list[str]], timeout_s: float = 5.0) -> list[str]:
    """Threads and the kernel need a moment to let go."""
    deadline_s = time.monotonic() + timeout_s * SLOWNESS
    while (found := what()) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return found


@pytest.fixture
def loop_factory(backend: str) -> Iterator[LoopFactory]:
    """Makes loops; everything is checked when the test is over."""
    gc.collect()
    gc.freeze()  # what the collection at the end need not look at: nothing of this test
    fds_before = open_fds()
    threads_before = set(threading.enumerate())
    factory = LoopFactory(backend)
    yield factory
    factory.close()
    gc.collect()
    problems = [f"counter after close: {text}" for text in factory.leaks()]
    problems += [f"fd left open: {fd}" for fd in _wait_for_none(lambda: _extra_fds(fds_before))]
    problems += _wait_for_none(
        lambda: [f"thread left: {t.name}" for t in set(threading.enumerate()) - threads_before]
    )
    problems += [f"exception handler was told: {context}" for context in factory.errors]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
def loop(loop_factory: LoopFactory) -> Any:
    """A new loop."""
    return loop_factory()


@pytest.fixture
def errors(loop_factory: LoopFactory) -> list[dict[str, Any]]:
    """The contexts that exception handlers were given; clear what the test expected."""
    return loop_factory.errors
