"""An HTTP service whose CPU work runs in threads here, or in a Dask cluster: the same code.

The service asks for a concurrent.futures.Executor and nothing else. `--executor threads` is a
netpoll.Scheduler, `--executor dask` a scheduler of Dask with worker processes (worker.py), which
may as well stand on other machines. A worker that dies takes nothing along: Dask gives its parts
of the work to the others.

Usage:

    pip install "netpoll[dask]"
    python examples/dask/service.py --executor dask --workers 2 [--port 8000]
    curl http://127.0.0.1:8000/primes?300000
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import netpoll
from netpoll import http

WORKER = Path(__file__).with_name("worker.py")
PARTS = 32


def count_primes(first: int, end: int) -> int:
    """How many primes there are in [first, end). It computes, and does not wait for anything."""
    return sum(
        n > 1 and all(n % divisor for divisor in range(2, int(n**0.5) + 1))
        for n in range(first, end)
    )


class Service:
    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    async def answer(self, request: http.Request) -> http.Response:
        if request.path != "/primes" or not request.query.isdecimal():
            return http.Response("ask for /primes?300000\n", 404)
        loop = asyncio.get_running_loop()
        below = int(request.query)
        bounds = [below * part // PARTS for part in range(PARTS + 1)]
        parts = [
            loop.run_in_executor(self.executor, count_primes, first, end)
            for first, end in pairwise(bounds)
        ]
        body = json.dumps({"below": below, "primes": sum(await asyncio.gather(*parts))})
        return http.Response(body, content_type="application/json")


@contextmanager
def threads(workers: int) -> Iterator[Executor]:
    with netpoll.Scheduler(workers) as scheduler:
        yield scheduler.as_executor()


@contextmanager
def dask_cluster(workers: int) -> Iterator[Executor]:
    """Dask's scheduler in this process, and workers in processes of their own."""
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=0, dashboard_address=None) as cluster, Client(cluster) as client:
        command = [sys.executable, str(WORKER), cluster.scheduler_address]
        processes = [subprocess.Popen(command) for _ in range(workers)]
        try:
            client.wait_for_workers(workers)
            print(f"scheduler at {cluster.scheduler_address}", flush=True)
            # Equal calls share one result unless they are said to be impure.
            yield client.get_executor(pure=False)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--executor", choices=("threads", "dask"), default="threads")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    ends = {signal.SIGINT, signal.SIGTERM}
    make = dask_cluster if options.executor == "dask" else threads
    with make(options.workers) as executor:
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in the threads of the server, too
        with http.Server(Service(executor).answer, "127.0.0.1", options.port) as server:
            print(f"listening on port {server.port}", flush=True)
            signal.sigwait(ends)


if __name__ == "__main__":
    main()
