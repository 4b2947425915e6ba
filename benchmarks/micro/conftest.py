"""Each microbenchmark on each loop that makes one here."""

import asyncio
from collections.abc import Iterator

import pytest

from netpoll.bench.arms import ARMS, LOOP_ARMS
from netpoll.bench.errors import ArmUnavailable


@pytest.fixture(params=LOOP_ARMS)
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    try:
        loop = ARMS[request.param].new_loop()
    except ArmUnavailable as reason:
        pytest.skip(f"{request.param}: {reason}")
    yield loop
    loop.close()
