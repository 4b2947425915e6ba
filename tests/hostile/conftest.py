"""What the tests of hostile machines need to know of this one."""

import pytest

import netpoll


@pytest.fixture
def needs_uring() -> None:
    result = netpoll.probe()
    if not result.uring_available:
        pytest.skip(f"no io_uring here: {result.uring_reason}")
