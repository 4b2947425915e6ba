"""What an idle loop costs the machine, and says about it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

import netpoll

COUNT = 12  # other processes that wait for a disk are seen in the same figure


def blocked_count() -> int:
    """So many tasks of the whole machine are in I/O wait now: what makes idle time `wa` of top."""
    with open("/proc/stat") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("procs_blocked"))


@contextmanager
def idle_loops(backend: str) -> Iterator[None]:
    loops = [netpoll.new_event_loop(backend) for _ in range(COUNT)]
    threads = [threading.Thread(target=loop.run_forever) for loop in loops]
    for thread in threads:
        thread.start()
    yield
    for loop, thread in zip(loops, threads, strict=True):
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def idle_servers(backend: str) -> Iterator[None]:
    with ExitStack() as servers:
        for _ in range(COUNT // 2):
            servers.enter_context(netpoll.Server(print, "127.0.0.1", 0, workers=2, backend=backend))
        yield


@contextmanager
def idle_workers(backend: str) -> Iterator[None]:
    with netpoll.Scheduler(workers=COUNT) as scheduler:
        for worker in range(COUNT):
            scheduler.loop(worker, backend=backend)
        yield


@pytest.mark.parametrize("idle", [idle_loops, idle_servers, idle_workers])
def test_idle_is_not_io_wait(backend: str, idle: Callable[[str], ExitStack]) -> None:
    if backend == "uring" and not netpoll.probe().supports("no_iowait"):
        pytest.skip("this kernel counts a waiting ring as I/O wait: it is older than 6.15")
    with idle(backend):
        seen = []
        for _ in range(20):
            time.sleep(0.02)
            seen.append(blocked_count())
    assert min(seen) < COUNT, seen


def test_the_feature_can_be_switched_off() -> None:
    if not netpoll.probe().supports("no_iowait"):
        pytest.skip("no io_uring, or one older than Linux 6.15")
    for off, expected in ((), True), (("no_iowait",), False):
        loop = netpoll.new_event_loop("uring", netpoll.LoopConfig(features_off=off))
        assert ("no_iowait" in loop.stats()["features"]) is expected
        loop.close()
