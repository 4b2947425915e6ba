"""A pytest plugin that writes what every test did at once, as one JSON object a line.

A crash or a hang then loses only its own test: the runner starts pytest again with what is left.
{"tests": [...]} is what was collected, {"start": id}, then {"test": id, "outcome": ...,
"detail": ..., "loops": n, "seconds": s}, at last {"end": exit code}.
Outcomes: passed, failed, skipped (expected failures, too).

A test that outlives NETPOLL_SUITES_TIMEOUT_S ends the process with all tracebacks.
"""

import faulthandler
import json
import os
import re
import time
from typing import Any

import netpoll_suites_loop as under_test
import pytest

DETAIL_MAX_CHARS = 6000

_out_fd = os.open(
    os.environ["NETPOLL_SUITES_OUT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
)
_timeout_s = float(os.environ["NETPOLL_SUITES_TIMEOUT_S"])
# pytest captures descriptor 2 later; tracebacks are to reach the runner's log.
_stderr_fd = os.dup(2)


def _write(record: dict[str, Any]) -> None:
    os.write(_out_fd, (json.dumps(record) + "\n").encode())


def stable(nodeid: str) -> str:
    """The id without what differs from run to run: addresses of objects in parameters."""
    return re.sub(r"0x[0-9a-f]{6,}", "0x", nodeid)


def _read(name: str) -> set[str] | None:
    path = os.environ.get(name)
    if not path:
        return None
    with open(path, encoding="utf-8") as file:
        return set(json.load(file))


class Recorder:
    def __init__(self) -> None:
        self.skip = _read("NETPOLL_SUITES_SKIP") or set()
        self.only = _read("NETPOLL_SUITES_ONLY")
        self._forget()

    def _forget(self) -> None:
        self.outcome, self.detail = "passed", ""
        self.started_s = time.monotonic()
        self.loops_before = under_test.made_count

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        kept, dropped = [], []
        for item in items:
            name = stable(item.nodeid)
            wanted = name not in self.skip and (self.only is None or name in self.only)
            (kept if wanted else dropped).append(item)
        items[:] = kept
        config.hook.pytest_deselected(items=dropped)

    def pytest_collection_finish(self, session: Any) -> None:
        _write({"tests": [stable(item.nodeid) for item in session.items]})

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            record = {"test": f"(collect) {report.nodeid}", "outcome": "failed"}
            _write(record | {"detail": str(report.longrepr)[-DETAIL_MAX_CHARS:]})

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._forget()
        _write({"start": stable(nodeid)})
        os.write(_stderr_fd, f"== {stable(nodeid)}\n".encode())
        faulthandler.dump_traceback_later(_timeout_s, exit=True, file=_stderr_fd)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.outcome = "failed"
            self.detail += f"[{report.when}] {report.longreprtext}\n"
            for title, text in report.sections:
                self.detail += f"-- {title}\n{text[-2000:]}\n"
        elif report.skipped and self.outcome == "passed":
            self.outcome = "skipped"

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        faulthandler.cancel_dump_traceback_later()
        _write(
            {
                "test": stable(nodeid),
                "outcome": self.outcome,
                "detail": self.detail[-DETAIL_MAX_CHARS:],
                "loops": under_test.made_count - self.loops_before,
                "seconds": round(time.monotonic() - self.started_s, 3),
            }
        )

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        _write({"end": int(exitstatus)})


def pytest_configure(config: Any) -> None:
    config.pluginmanager.register(Recorder(), "netpoll-suites-record")
