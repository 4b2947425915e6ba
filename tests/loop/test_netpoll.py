"""What netpoll adds to asyncio: run, install, the policy, backends by name, stats, LoopConfig."""

import asyncio
import contextlib
import gc
import subprocess
import sys
import warnings
from typing import Any

import pytest

from ..support import make_loop, pair, until

netpoll = pytest.importorskip("netpoll", reason="the control lane runs without netpoll")

STATS_KEYS = {
    "backend", "turns", "enters", "submissions", "completions", "recv_bytes", "sent_bytes",
    "enobufs", "stale", "sq_full", "moves", "ops_live", "bufs_total", "bufs_free", "features",
    "arena", "ready_count", "timers_count", "transports_count",
}  # fmt: skip


def test_the_loop_is_an_event_loop(backend: str, loop: Any) -> None:
    assert isinstance(loop, netpoll.EventLoop)
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert loop.backend == backend
    assert backend in repr(loop)


def test_run(backend: str) -> None:
    async def main() -> tuple[str, bool]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, netpoll.EventLoop)
        return loop.backend, loop.get_debug()

    assert netpoll.run(main(), backend=backend) == (backend, False)
    assert netpoll.run(main(), backend=backend, debug=True) == (backend, True)


@pytest.mark.filterwarnings("error")
def test_run_refuses_to_nest_and_to_run_what_is_no_coroutine(backend: str) -> None:
    async def main() -> None:
        inner = asyncio.sleep(0)
        with contextlib.closing(inner), pytest.raises(RuntimeError):
            netpoll.run(inner, backend=backend)
        gc.collect()

    netpoll.run(main(), backend=backend)
    with pytest.raises((TypeError, ValueError)):
        netpoll.run(lambda: None, backend=backend)


def test_run_cancels_what_is_left_and_closes(backend: str) -> None:
    steps: list[str] = []
    loops: list[Any] = []

    async def left_over() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            steps.append("cancelled")

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        loops.append(asyncio.ensure_future(left_over()))
        await asyncio.sleep(0)

    netpoll.run(main(), backend=backend)
    assert steps == ["cancelled"] and loops[0].is_closed()


def test_unknown_backends_are_refused() -> None:
    for wrong in ("", "kqueue", "URING"):
        with pytest.raises(ValueError, match="auto"):
            netpoll.new_event_loop(backend=wrong)


def _chosen(environment: str | None, argument: str = "auto") -> tuple[int, str, str]:
    import os

    env = dict(os.environ)
    env.pop("NETPOLL_BACKEND", None)
    if environment is not None:
        env["NETPOLL_BACKEND"] = environment
    code = f"import netpoll; l = netpoll.new_event_loop({argument!r}); print(l.backend); l.close()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.strip(), done.stderr


def test_the_environment_chooses_for_auto() -> None:
    assert _chosen("epoll")[:2] == (0, "epoll")
    assert _chosen("auto")[:2] == (0, netpoll.probe().backend)
    assert _chosen(None)[:2] == (0, netpoll.probe().backend)
    code, _, err = _chosen("nonsense")
    assert code != 0 and "NETPOLL_BACKEND" in err


def test_the_argument_beats_the_environment(backend: str) -> None:
    other = "epoll" if backend == "uring" else "uring"
    assert _chosen(other, backend)[:2] == (0, backend)


@pytest.mark.skipif(netpoll.EventLoopPolicy is None, reason="this Python has no policies")
def test_install_and_policy() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            netpoll.install()
            assert isinstance(asyncio.get_event_loop_policy(), netpoll.EventLoopPolicy)
            loop = asyncio.new_event_loop()
            assert isinstance(loop, netpoll.EventLoop)
            loop.close()

            async def main() -> type:
                return type(asyncio.get_running_loop())

            assert asyncio.run(main()) is netpoll.EventLoop
        finally:
            asyncio.set_event_loop_policy(None)


def test_stats_has_every_counter(backend: str, loop: Any) -> None:
    stats = loop.stats()
    assert set(stats) >= STATS_KEYS
    assert stats["backend"] == backend
    stats["turns"] = -1
    assert loop.stats()["turns"] == 0, "stats() must return a fresh dict"


async def test_stats_counts_what_happens(loop: Any) -> None:
    before = loop.stats()
    client, served = await pair(loop)
    middle = loop.stats()
    assert middle["transports_count"] == 2
    assert middle["ops_live"] > before["ops_live"]
    client.transport.write(b"x" * 1000)
    await until(lambda: len(served.data) == 1000)
    timer = loop.call_later(1000, print)
    after = loop.stats()
    assert after["recv_bytes"] - middle["recv_bytes"] == 1000
    assert after["sent_bytes"] - middle["sent_bytes"] == 1000
    assert after["timers_count"] >= 1
    assert after["turns"] > before["turns"] and after["enters"] > before["enters"]
    assert after["completions"] > before["completions"]
    assert 0 < after["bufs_free"] <= after["bufs_total"]
    timer.cancel()
    client.transport.close()
    await asyncio.gather(client.lost, served.lost)


def test_stats_answers_after_close(loop: Any) -> None:
    async def main() -> None:
        client, served = await pair(loop)
        client.transport.write(b"x" * 1000)
        await until(lambda: len(served.data) == 1000)

    loop.run_until_complete(main())
    alive = loop.stats()
    loop.close()
    dead = loop.stats()
    assert dead["recv_bytes"] == alive["recv_bytes"] == 1000
    assert dead["turns"] >= alive["turns"] > 0
    assert dead["ops_live"] == 0 and dead["bufs_free"] == dead["bufs_total"] > 0


def test_a_turn_makes_one_system_call(loop: Any) -> None:
    """STYLE 3: writes of a turn leave together; the loop waits and submits in one call."""

    async def main() -> tuple[dict[str, Any], dict[str, Any]]:
        pairs = [await pair(loop) for _ in range(30)]
        await asyncio.sleep(0.01)
        before = loop.stats()
        for _ in range(20):
            for client, _ in pairs:
                client.transport.write(b"x")
            count = len(pairs[0][1].data)
            await until(lambda count=count: all(len(s.data) > count for _, s in pairs))
        after = loop.stats()
        for client, _ in pairs:
            client.transport.close()
        await asyncio.gather(*(s.lost for _, s in pairs))
        return before, after

    before, after = loop.run_until_complete(main())
    turns = after["turns"] - before["turns"]
    enters = after["enters"] - before["enters"]
    assert enters <= turns + 5, (enters, turns)
    assert enters < 600, "one call a message"


def test_an_idle_loop_sleeps(loop: Any) -> None:
    """No polling: a second without events is a handful of turns."""

    async def main() -> int:
        pairs = [await pair(loop) for _ in range(3)]
        await asyncio.sleep(0.01)
        before = loop.stats()["turns"]
        await asyncio.sleep(0.5)
        turns = loop.stats()["turns"] - before
        for client, _ in pairs:
            client.transport.close()
        await asyncio.gather(*(s.lost for _, s in pairs))
        return turns

    assert loop.run_until_complete(main()) <= 5


def test_loop_config() -> None:
    config = netpoll.LoopConfig(sq_entries=8, cq_entries=16, buf_count=2, buf_bytes=256)
    assert config.buf_bytes == 256 and config == netpoll.LoopConfig(8, 16, 2, 256)
    with pytest.raises(AttributeError):
        config.buf_bytes = 1  # type: ignore[misc]
    for wrong in ({"buf_count": 3}, {"sq_entries": -1}, {"buf_bytes": -1}, {"buf_count": 1 << 20}):
        with pytest.raises(ValueError):
            netpoll.LoopConfig(**wrong)
    with pytest.raises(TypeError):
        netpoll.LoopConfig(nonsense=1)


def test_features_can_be_turned_off(backend: str) -> None:
    """Each feature alone: the loop still works, and says that it goes without."""

    async def main(loop: Any) -> None:
        client, served = await pair(loop)
        client.transport.write(b"x" * 50_000)
        await until(lambda: len(served.data) == 50_000)
        client.transport.close()
        await asyncio.gather(client.lost, served.lost)

    loop = make_loop(backend)
    loop.run_until_complete(main(loop))
    features = loop.stats()["features"]
    loop.close()
    for off in [(name,) for name in features] + [tuple(features)]:
        try:
            loop = netpoll.new_event_loop(backend, netpoll.LoopConfig(features_off=off))
        except netpoll.BackendUnavailableError as error:
            # A feature that the backend cannot do without: it must say which.
            assert any(name in str(error).lower() for name in off), error
            continue
        loop.run_until_complete(main(loop))
        left = loop.stats()["features"]
        loop.close()
        assert not set(off) & set(left), (off, left)
        stats = loop.stats()
        assert stats["ops_live"] == 0 and stats["bufs_free"] == stats["bufs_total"], off


def test_unknown_feature_names_are_refused(backend: str) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        config = netpoll.LoopConfig(features_off=("nonsense",))
        netpoll.new_event_loop(backend, config).close()
