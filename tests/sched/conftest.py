"""Schedulers for the tests, and the proof that nothing is left behind."""

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from netpoll import Scheduler

MakeScheduler = Callable[..., Scheduler]

LOOP_COUNTERS = ("ops_live", "ready_count", "timers_count", "transports_count", "notifs_pending")


class SmallScheduler(Scheduler):
    """Queues of four slots: everything overflows, and is stolen in twos."""

    _deque_slots = 4


@pytest.fixture(params=[Scheduler, SmallScheduler], ids=["usual", "small"])
def make_scheduler(request: pytest.FixtureRequest) -> Iterator[MakeScheduler]:
    """Makes schedulers; when the test is over they are shut down, and every counter is zero."""
    made: list[Scheduler] = []
    reports: list[dict[str, Any]] = []
    threads_before = set(threading.enumerate())

    def make(workers: int = 2, **options: Any) -> Scheduler:
        scheduler = request.param(workers, **options)
        scheduler.exception_handler = reports.append
        scheduler.reports = reports
        made.append(scheduler)
        return scheduler

    yield make
    for scheduler in made:
        scheduler.close(cancel=True)
        stats = scheduler.stats()
        queued = [stats["queued"], *(worker["queued"] for worker in stats["workers"])]
        assert not any(count for lanes in queued for count in lanes.values()), stats
        assert stats["tasks_live"] == 0
        assert stats["records_live"] == 0
        assert scheduler._next_alarm_ns() is None
        assert scheduler._suspended() == []
        for loop in filter(None, scheduler._loops):
            counters = loop.stats()
            assert loop.is_closed()
            assert [counters[name] for name in LOOP_COUNTERS] == [0] * len(LOOP_COUNTERS)
            assert counters["bufs_free"] == counters["bufs_total"]
    gc.collect()
    assert set(threading.enumerate()) <= threads_before
    assert reports == [], "the exception handler was told"


@pytest.fixture
def scheduler(make_scheduler: MakeScheduler) -> Scheduler:
    return make_scheduler(2)


def take_reports(scheduler: Scheduler) -> list[dict[str, Any]]:
    """What the exception handler was told; a test that expects something takes it away."""
    gc.collect()
    found = list(scheduler.reports)  # type: ignore[attr-defined]
    scheduler.reports.clear()  # type: ignore[attr-defined]
    return found
