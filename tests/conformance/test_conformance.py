"""CPython's and uvloop's own tests on both backends: a test here is one module on one backend.

NETPOLL_CONFORMANCE=cpython,uvloop says which suites; the long lane runs both. `cpython-short`, the
default, is CPython's without the modules that take longest and meet a loop least.
"""

import os

import pytest

from . import lane

SUITES = os.environ.get("NETPOLL_CONFORMANCE", "cpython-short").split(",")

IS_SHORT = "cpython-short" in SUITES and "cpython" not in SUITES


def reason_against(suite: str) -> str | None:
    """Why this suite is not run, or None."""
    if suite not in SUITES and not (suite == "cpython" and IS_SHORT):
        return f"{suite}'s tests are for the long lane (./test long)"
    return lane.missing_reason(suite)


def cases() -> list[object]:
    """(suite, module) for everything in scope, or a test that says why there is nothing."""
    found: list[object] = []
    for suite in lane.SUITES:
        reason = reason_against(suite)
        if reason is not None:
            found.append(pytest.param(suite, "none", marks=pytest.mark.skip(reason=reason)))
            continue
        for module in lane.modules_here(suite):
            # In one process, so that the control of a module is run once.
            marks = [pytest.mark.xdist_group(f"{suite}-{module}")]
            if IS_SHORT and module in lane.CPYTHON_LONG_MODULES:
                marks.append(pytest.mark.skip(reason="for the long lane (./test long)"))
            found.append(pytest.param(suite, module, marks=marks))
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
