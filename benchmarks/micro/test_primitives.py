"""The operations of ``netpoll bench micro`` under pytest-benchmark: for comparing commits.

    python -m pytest benchmarks/micro --benchmark-save=before
    python -m pytest benchmarks/micro --benchmark-compare

One round is a fixed number of operations; `ns_per_operation` in the extra info is CPU time.
"""

import asyncio

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from netpoll.bench.primitives import WORKLOADS, run_workload

from .costs import record

PART_OF_THE_USUAL = 10  # a round of some milliseconds


@pytest.mark.parametrize("name", WORKLOADS)
def test_primitive(name: str, loop: asyncio.AbstractEventLoop, benchmark: BenchmarkFixture) -> None:
    workload = WORKLOADS[name]
    count = max(workload.count // PART_OF_THE_USUAL, 1000)
    record(benchmark, workload.title, lambda: run_workload(loop, workload, count))
