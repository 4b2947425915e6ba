"""Faults at the table of verbs: the programs of bad_days.py on both backends, plain and over TLS.

`python -m tests.faults.injected` is the same for as long as one likes. NETPOLL_FAULTS says how
many faults each of these tests waits for.
"""

import asyncio
import contextlib
import os
import socket
from typing import Any

import pytest

import netpoll
from netpoll.testing import KINDS, QUIET_KINDS, TOLD_KINDS, Faults
from tests.faults import bad_days, injected
from tests.support import unix_pair

FAULTS_COUNT = int(os.environ.get("NETPOLL_FAULTS", "1500"))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_every_byte_and_every_end(backend: str, tls: bool) -> None:
    happened = injected.run(backend, FAULTS_COUNT, seed=1, tls=tls)
    assert happened.total() >= FAULTS_COUNT
    assert {"delay", "busy", "eintr_wait", "short_recv", "eintr_send"} <= set(happened)


def test_kinds() -> None:
    assert set(QUIET_KINDS).isdisjoint(TOLD_KINDS)
    assert KINDS == QUIET_KINDS + TOLD_KINDS


@pytest.mark.parametrize(
    ("kinds", "text"), [({"typo": 0.5}, "unknown kinds of faults: typo"), ({"delay": 2}, "0 to 1")]
)
def test_a_wrong_plan_is_refused(kinds: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Faults(kinds=kinds)


@pytest.mark.parametrize("kind", ["delay", "busy", "short_send", "short_recv", "eintr_send"])
def test_one_kind_alone(backend: str, kind: str) -> None:
    """Only what was asked for happens, within the block only."""
    with Faults(seed=3, kinds={kind: 0.5}) as faults:
        loop = netpoll.new_event_loop(backend=backend)
        loop.run_until_complete(bad_days.streams(plain_round(backend)))
        during = faults.counts()
        assert set(during) == {kind}
    loop.run_until_complete(bad_days.streams(plain_round(backend)))
    loop.close()
    assert faults.counts() == during


def plain_round(backend: str) -> bad_days.Round:
    return bad_days.Round(backend, 5)


def test_a_server_that_waits_for_room_sends_what_comes_meanwhile(backend: str) -> None:
    """What was written behind a quiet send, in the turn of the POLL for room, was not sent before
    something else woke the loop (bug class 70)."""
    rates = {"eagain_send": 0.3, "short_recv": 0.3, "delay": 0.3}
    for seed in range(3):
        own = Served(backend, seed)
        own.faults = Faults(seed=seed, kinds=rates)
        own.config = netpoll.LoopConfig(buf_count=2, buf_bytes=4096)
        own.run(6)


@pytest.mark.parametrize("kinds", [{"accept": 0.4}, {"accept": 0.4, "arm_error": 0.3}], ids=str)
def test_accepting_goes_on(backend: str, kinds: dict[str, float]) -> None:
    """A peer's error does not pause it, and is nobody's to hear of; without memory for another
    accept it is tried again (bug classes 72 and 73)."""
    told: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["message"]))
        server = None
        while server is None:
            with contextlib.suppress(OSError, MemoryError):
                server = netpoll.Server(lambda conn: conn.forward(), "127.0.0.1", 0).start()
        while any(faults.counts().get(kind, 0) < 3 for kind in kinds):
            await asyncio.wait_for(visit(server.port), 20)
        await server.aclose()

    with Faults(seed=4, kinds=kinds) as faults:
        netpoll.run(main(), backend=backend)
    assert "netpoll.Server: accepting failed" not in told


async def visit(port: int) -> None:
    """Of a connection that is accepted at last; it may then fail for itself."""
    loop = asyncio.get_running_loop()

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=15) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(b"x")
                client.recv(1)

    await loop.run_in_executor(None, ask)


def test_a_watcher_without_memory_is_tried_again(backend: str) -> None:
    """Bug class 74. add_reader() itself may be told; what it watches goes on being watched."""
    with Faults(seed=1, kinds={"arm_error": 0.5}) as faults:
        loop: Any = netpoll.new_event_loop(backend=backend)
        left, right = unix_pair()
        got = bytearray()
        while True:
            try:
                loop.add_reader(right, lambda: (got.extend(right.recv(1)), loop.stop()))
                break
            except (OSError, MemoryError):
                pass
        left.send(bytes(20))
        while len(got) < 20:
            loop.run_forever()
        assert faults.counts()["arm_error"] > 2
        loop.close()
        left.close()
        right.close()


class Served(bad_days.Round):
    """Servers only."""

    async def play(self, programs: Any) -> None:
        await super().play([bad_days.served] * len(programs))
