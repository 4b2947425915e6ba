"""CPython's and uvloop's own tests on both backends: a test here is one module on one backend."""

import pytest

from . import lane


def cases() -> list[object]:
    """(suite, module) for everything in scope, or a test that says why there is nothing."""
    found: list[object] = []
    for suite in lane.SUITES:
        reason = lane.missing_reason(suite)
        if reason is not None:
            found.append(pytest.param(suite, "none", marks=pytest.mark.skip(reason=reason)))
        found += [pytest.param(suite, module) for module in lane.modules_here(suite)]
    return found


@pytest.mark.conformance
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("suite", "module"), cases())
def test_suite(suite: str, module: str, backend: str) -> None:
    """What passes with the control passes with netpoll, except what exceptions.toml lists."""
    verdict = lane.judge(module, backend, suite)
    if verdict.unavailable:
        pytest.skip(f"{suite} itself cannot start this module here: {verdict.unavailable}")
    if verdict.failed or verdict.unused:
        pytest.fail(verdict.report(), pytrace=False)
