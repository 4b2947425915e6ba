"""What stats() returns has the type that netpoll.stats gives it, and one key means one thing."""

import asyncio
import re
import sys
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from .tls import server_context

netpoll = pytest.importorskip("netpoll", reason="the control lane runs without netpoll")

from netpoll import http, stats  # noqa: E402 - after the question whether it is there

TYPES = [getattr(stats, name) for name in stats.__all__]


def misfits(value: Any, wanted: Any, at: str = "stats()") -> Iterator[str]:
    """Where a value is not of its type, down to the last number; the keys are the same."""
    kind, parts = get_origin(wanted) or wanted, get_args(wanted)
    if is_typeddict(wanted):
        if value.keys() != get_type_hints(wanted).keys():
            yield f"{at} differs in {sorted(value.keys() ^ get_type_hints(wanted).keys())}"
        for key, inner in get_type_hints(wanted).items():
            yield from misfits(value[key], inner, f"{at}[{key!r}]")
    elif kind is dict:
        for key, one in value.items():
            yield from misfits(key, parts[0], f"a key of {at}")
            yield from misfits(one, parts[1], f"{at}[{key!r}]")
    elif kind is list:
        for i, one in enumerate(value):
            yield from misfits(one, parts[0], f"{at}[{i}]")
    elif kind is Literal:
        if value not in parts:
            yield f"{at} is {value!r}"
    elif parts:  # a union
        if all(list(misfits(value, part, at)) for part in parts):
            yield f"{at} is {value!r}"
    elif type(value) is not kind:
        yield f"{at} is {value!r}"


def test_a_misfit_is_found() -> None:
    taken = {"used": 0, "free": 0, "taken": 0.0, "refused": 0}
    assert list(misfits(taken, stats.BlockStats)) == ["stats()['taken'] is 0.0"]
    assert list(misfits({1: None}, dict[str, int | None])) == ["a key of stats() is 1"]
    assert list(misfits("huge", Literal["thp"] | None)) == ["stats() is 'huge'"]


def test_of_a_loop(loop: Any) -> None:
    assert list(misfits(loop.stats(), stats.LoopStats)) == []
    loop.run_until_complete(asyncio.sleep(0))
    assert list(misfits(loop.stats(), stats.LoopStats)) == []
    loop.close()
    assert list(misfits(loop.stats(), stats.LoopStats)) == []


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "TLS"])
def test_of_a_server(backend: str, secured: bool) -> None:
    context = server_context() if secured else None
    server = netpoll.Server(print, "127.0.0.1", 0, workers=2, backend=backend, ssl=context)
    before = server.stats()
    assert list(misfits(before, stats.ServerStats)) == []
    assert before["backend"] is None and before["workers"] == []
    with server:
        assert list(misfits(server.stats(), stats.ServerStats)) == []
        assert server.stats()["backend"] == backend
        assert len(server.stats()["workers"]) == 2
    assert list(misfits(server.stats(), stats.ServerStats)) == []


def test_of_a_server_of_http(backend: str) -> None:
    with http.Server(lambda request: None, "127.0.0.1", 0, backend=backend) as server:
        assert list(misfits(server.stats(), stats.ServerStats)) == []


def test_of_a_scheduler() -> None:
    with netpoll.Scheduler(2) as scheduler:
        scheduler.spawn(int).result(10)
        assert list(misfits(scheduler.stats(), stats.SchedulerStats)) == []
        assert len(scheduler.stats()["workers"]) == 2
    assert list(misfits(scheduler.stats(), stats.SchedulerStats)) == []


def test_of_a_pool() -> None:
    with netpoll.BufferPool(1 << 20, (512, 65536)) as pool, pool.reserve(100):
        assert list(misfits(pool.stats(), stats.PoolStats)) == []
        assert pool.stats()["classes"].keys() == {512, 65536}
    assert list(misfits(pool.stats(), stats.PoolStats)) == []


# ---- what the keys mean ---------------------------------------------------------------------

LINE = re.compile(r"^    (\w+): (.*\n(?:        .*\n)*)", re.MULTILINE)
COMMON = [base for base in vars(stats).values() if is_typeddict(base)]


def sentences(one: type) -> dict[str, str]:
    return {key: " ".join(text.split()) for key, text in LINE.findall(one.__doc__ or "")}


@pytest.mark.skipif(sys.flags.optimize > 1, reason="without docstrings there are no sentences")
def test_each_key_has_one_sentence_wherever_it_stands() -> None:
    meanings: dict[str, set[str]] = {}
    for one in COMMON:
        for key, sentence in sentences(one).items():
            meanings.setdefault(key, set()).add(sentence)
    assert {key: found for key, found in meanings.items() if len(found) > 1} == {}
    assert {key for one in COMMON for key in get_type_hints(one)} == meanings.keys()


def test_units_are_the_last_words_of_keys() -> None:
    """A key with another unit needs its word here and at the top of netpoll/stats.py."""
    last_words = {key.rpartition("_")[2] for one in COMMON for key in get_type_hints(one)}
    assert last_words & {"bytes", "ns"}
    assert not last_words & {"s", "ms", "us", "seconds", "kib", "mib", "size", "time"}
