"""CPython's own asyncio tests on both backends: one test here is one module on one backend."""

import pytest

from . import lane


@pytest.mark.conformance
@pytest.mark.timeout(900)
@pytest.mark.skipif(lane.missing_reason() is not None, reason=str(lane.missing_reason()))
@pytest.mark.parametrize("module", lane.modules_here() or ["none"])
def test_cpython(module: str, backend: str) -> None:
    """What passes with asyncio passes with netpoll, except what exceptions.toml lists."""
    verdict = lane.judge(module, backend)
    if verdict.failed or verdict.unused:
        pytest.fail(verdict.report(), pytrace=False)
