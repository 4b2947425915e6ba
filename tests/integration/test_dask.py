"""The example of Dask: one service on threads and on a cluster whose workers run netpoll's loop."""

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any

import pytest

from ..support import TEST_TIMEOUT_S
from .programs import ROOT, Program, python, python_env, running

distributed = pytest.importorskip("distributed", reason="distributed (the extra `dask`) is missing")

SERVICE = str(ROOT / "examples" / "dask" / "service.py")
PRIMES = {1000: 168, 400_000: 33_860}


def ask(port: int, below: int) -> Any:
    url = f"http://127.0.0.1:{port}/primes?{below}"
    with urllib.request.urlopen(url, timeout=TEST_TIMEOUT_S) as answer:
        return json.load(answer)


@pytest.fixture
def asked() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def port_of(service: Program) -> int:
    return int(service.wait_for(r"listening on port (\d+)\n")[0])


def test_in_threads(backend: str) -> None:
    with running(python(SERVICE, "--port", "0"), python_env(backend)) as service:
        assert ask(port_of(service), 1000) == {"below": 1000, "primes": PRIMES[1000]}
        assert service.stop() == 0
        service.clean()


def where_the_worker_runs() -> tuple[int, str]:
    """In a worker: its process, and what its loop is."""
    loop: Any = asyncio.get_running_loop()
    return os.getpid(), f"{type(loop).__module__} on {loop.backend}"


def test_a_worker_dies(backend: str, asked: ThreadPoolExecutor) -> None:
    """Its parts of the work are done by the other one, and the answer is complete."""
    command = python(SERVICE, "--executor", "dask", "--workers", "2", "--port", "0")
    with running(command, python_env(backend)) as service:
        port = port_of(service)
        (address,) = service.wait_for(r"scheduler at (\S+)\n")
        with distributed.Client(address) as client:
            workers = client.run(where_the_worker_runs)
            assert len(workers) == 2
            assert {kind for _, kind in workers.values()} == {f"netpoll.loop on {backend}"}
            answer: Future[Any] = asked.submit(ask, port, 400_000)
            first = service.wait_until(lambda: busy(client), "both workers have work")
            old = set(chain(*first.values()))
            later = service.wait_until(
                lambda: (
                    now if (now := busy(client)) and old.isdisjoint(chain(*now.values())) else None
                ),
                "what they had first is done, and they have more",
            )
            victim = next(iter(later))
            os.kill(workers[victim][0], signal.SIGKILL)
            assert not answer.done()
            assert answer.result() == {"below": 400_000, "primes": PRIMES[400_000]}
            assert set(client.scheduler_info()["workers"]) == set(workers) - {victim}
        assert service.stop() == 0
        service.clean()


def busy(client: Any) -> dict[str, tuple[str, ...]] | None:
    """What each worker has been given, when both have something."""
    given: dict[str, tuple[str, ...]] = client.processing()
    return given if len(given) == 2 and all(given.values()) else None
