"""One process that does everything at once, for as long as is wanted; nothing in it grows.

    python -m tests.soak --seconds 3600 --backend uring [--json FILE]

TCP, TLS, UDP, files, children, a scheduler, timers, a server in the loop, HTTP of every kind to a
server in another process, and `netpoll serve`. Works are cancelled at random; the process that
echoes, and workers of `netpoll serve`, are killed with SIGKILL. Every byte is compared (works.py).

Now and then no work is begun until all have ended. What this process and the server of HTTP then
have (memory, descriptors, objects, operations, buffers, timers, threads) is a sample. The first
third is to warm up. Through the other samples a line is laid; what it grows by until the end has to
be in the room that GROWTH_MAX gives. Exit code 1 where it is not, or where a work failed.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import math
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import netpoll

from ..http.test_soak import FILE_BYTES, Served, Visitor, pattern
from ..regress.test_growth import rss_bytes
from ..support import SLOWNESS, make_loop
from ..tls import HOST, certificate, client_context
from . import works
from .peers import Fleet, Peer

Work = Callable[["Soak", random.Random], Coroutine[Any, Any, None]]
Sample = dict[str, float]

AT_ONCE = 16
SAMPLES_COUNT = 30
ROUND_MIN_S = 2.0
CANCELS = 0.15  # of the works
CANCEL_MAX_S = 0.05
KILL_EVERY_S = 6.0
PATIENCE_S = 60.0 * SLOWNESS
SETTLE_S = 5.0 * SLOWNESS

# What may come and go from one sample to the next, over the whole of the measured time. Memory:
# arenas of the allocator, and pages that a burst of works touched for the first time. Threads:
# those of pools, which come when so many are needed at once for the first time.
MIB = 1 << 20
GROWTH_MAX = {
    "rss_bytes": 8 * MIB * SLOWNESS,
    "fds": 1,
    "objects": 500,
    "threads": 4,
    "ops_live": 1,
    "bufs_missing": 1,
    "timers_count": 2,
    "transports_count": 1,
    "http_rss_bytes": 8 * MIB * SLOWNESS,
    "http_fds": 1,
    "http_objects": 500,
}


class Soak:
    """What the works use, and how they went."""

    def __init__(self, backend: str, seed: int, directory: Path) -> None:
        self.backend, self.directory = backend, directory
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()  # by a kill
        self.failures: list[str] = []
        self.killed_s = 0.0  # when, last
        self.next_kill_s = time.monotonic() + 1
        self.tls_context = client_context()
        for number, size in enumerate(FILE_BYTES):
            (directory / f"file{number}").write_bytes(pattern(size, number))
        pem = directory / "cert.pem"
        certificate(HOST).private_key_and_cert_chain_pem.write_to_path(pem)
        with contextlib.ExitStack() as closing:
            self.peer = Peer(backend, pem)
            closing.callback(self.peer.end)
            self.fleet = Fleet(backend)
            closing.callback(self.fleet.end)
            self.served = Served(backend, directory)
            closing.callback(self.served.end)
            self.closing = closing.pop_all()
        self.visitors = [Visitor(seed + number, self.served) for number in range(AT_ONCE)]

    async def open(self) -> None:
        """What lives in the loop."""
        self.loop = asyncio.get_running_loop()
        self.scheduler = netpoll.Scheduler(workers=2)
        self.executor = self.scheduler.as_executor()

        async def session(conn: Any) -> None:
            while await conn.fill():
                conn.forward() if self.random.random() < 0.5 else conn.write(conn.take())

        self.server = netpoll.Server(session, "127.0.0.1", 0)
        self.server.start()
        self.udp, _ = await self.loop.create_datagram_endpoint(UdpEcho, local_addr=("127.0.0.1", 0))

    async def close(self) -> None:
        await self.server.aclose(1)
        self.udp.close()
        await asyncio.to_thread(self.scheduler.close)

    # ---- works

    async def attempt(self, work: Work) -> None:
        """One work, perhaps cancelled, perhaps with an other end that is killed."""
        kills = self.peer.kills_count, self.fleet.kills_count
        task = asyncio.ensure_future(work(self, random.Random(self.random.getrandbits(64))))
        is_cancelled = self.random.random() < CANCELS
        if is_cancelled:
            self.loop.call_later(self.random.random() * CANCEL_MAX_S, task.cancel)
        await asyncio.wait([task], timeout=PATIENCE_S)
        name = work.__name__
        if not task.done():
            self.failures.append(f"{name} does not end")
            task.cancel()
        elif task.cancelled():
            self.cancelled[name] += 1
            if not is_cancelled:
                self.failures.append(f"{name} was cancelled by nobody")
        elif (error := task.exception()) is None:
            self.done[name] += 1
        elif isinstance(error, works.BROKEN) and work in works.KILLED and self.had_kill(kills):
            self.broken[name] += 1
        else:
            self.failures.append(f"{name}: {''.join(traceback.format_exception(error))}")

    def had_kill(self, before: tuple[int, int]) -> bool:
        """During the work, or so shortly before it that its place was not taken yet."""
        is_recent = time.monotonic() - self.killed_s < KILL_EVERY_S / 2
        return is_recent or before != (self.peer.kills_count, self.fleet.kills_count)

    async def kill_now_and_then(self, end_s: float) -> None:
        while self.next_kill_s < end_s:
            await asyncio.sleep(self.next_kill_s - time.monotonic())
            self.killed_s = math.inf  # until another one has taken its place
            target = self.random.choice([self.peer, self.fleet])
            await asyncio.to_thread(target.kill)
            self.killed_s = time.monotonic()
            self.next_kill_s = self.killed_s + KILL_EVERY_S * (0.5 + self.random.random())
        await asyncio.sleep(end_s - time.monotonic())

    async def work_until(self, end_s: float) -> None:
        async def go_on() -> None:
            while time.monotonic() < end_s and not self.failures:
                await self.attempt(self.random.choice(works.WORKS))

        killing = asyncio.ensure_future(self.kill_now_and_then(end_s))
        await asyncio.gather(*(go_on() for _ in range(AT_ONCE)), killing)

    # ---- samples

    async def sample(self) -> Sample:
        """When what has ended is gone."""
        deadline_s, before = time.monotonic() + SETTLE_S, None
        while True:
            gc.collect()
            await asyncio.sleep(0.1)
            now = self.counters()
            if now == before or time.monotonic() > deadline_s:
                break
            before = now
        figures = await asyncio.to_thread(self.served.quiet_figures)
        http = {f"http_{name}": figures[name] for name in ("rss_bytes", "fds", "objects")}
        return {"rss_bytes": rss_bytes(), "objects": len(gc.get_objects())} | now | http

    def counters(self) -> Sample:
        stats = self.loop.stats()  # type: ignore[attr-defined]
        names = ("ops_live", "timers_count", "transports_count")
        return {name: stats[name] for name in names} | {
            "bufs_missing": stats["bufs_total"] - stats["bufs_free"],
            "fds": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
        }


class UdpEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


# ---- what grows ---------------------------------------------------------------------------------


def slope(points: list[tuple[float, float]]) -> float:
    """Of the line of least squares."""
    count = len(points)
    middle_x = sum(x for x, _ in points) / count
    middle_y = sum(y for _, y in points) / count
    width = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / width if width else 0.0


def growths(samples: list[tuple[float, Sample]]) -> dict[str, dict[str, float]]:
    """From the first third on: by how much each figure grows until the end."""
    measured = samples[len(samples) // 3 :]
    seconds = measured[-1][0] - measured[0][0]
    found = {}
    for name, room in GROWTH_MAX.items():
        per_s = slope([(at, sample[name]) for at, sample in measured])
        found[name] = {
            "first": measured[0][1][name],
            "last": measured[-1][1][name],
            "per_hour": per_s * 3600,
            "grown": per_s * seconds,
            "room": room,
        }
    return found


async def soak_for(soak: Soak, seconds: float) -> list[tuple[float, Sample]]:
    start_s, samples = time.monotonic(), []
    round_s = max(ROUND_MIN_S, seconds / SAMPLES_COUNT)
    await soak.open()
    while time.monotonic() - start_s < seconds and not soak.failures:
        await soak.work_until(time.monotonic() + round_s)
        sample = await soak.sample()
        samples.append((time.monotonic() - start_s, sample))
        words = " ".join(f"{name}={value:.0f}" for name, value in sample.items())
        print(f"{samples[-1][0]:7.1f} s {sum(soak.done.values())} works {words}", flush=True)
    await soak.close()
    return samples


def report(soak: Soak, samples: list[tuple[float, Sample]]) -> dict[str, Any]:
    found = growths(samples) if len(samples) > 2 else {}
    print(f"\n{'':18}{'first':>16}{'last':>16}{'per hour':>16}{'grown':>16}{'room':>16}")
    for name, row in found.items():
        print(f"{name:18}" + "".join(f"{value:16,.1f}" for value in row.values()))
    kinds = {"done": soak.done, "cancelled": soak.cancelled, "broken by a kill": soak.broken}
    for what, counts in kinds.items():
        print(f"{what}: {sum(counts.values())} ({dict(counts)})")
    print(f"killed: {soak.peer.kills_count} peers, {soak.fleet.kills_count} workers")
    grown = [name for name, row in found.items() if row["grown"] > row["room"]]
    for text in [*soak.failures, *(f"{name} grows" for name in grown)]:
        print(f"FAILED {text}")
    return {
        "backend": soak.backend,
        "seconds": samples[-1][0] if samples else 0,
        "works": {what: dict(counts) for what, counts in kinds.items()},
        "kills": {"peers": soak.peer.kills_count, "workers": soak.fleet.kills_count},
        "growth": found,
        "samples": samples,
        "failures": [*soak.failures, *grown],
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--backend", choices=("uring", "epoll"), default="uring")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the other processes are ended
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of what is cancelled and killed
    with tempfile.TemporaryDirectory() as directory:
        soak = Soak(options.backend, options.seed, Path(directory))
        runner = asyncio.Runner(loop_factory=lambda: make_loop(options.backend))
        with soak.closing, runner:
            samples = runner.run(soak_for(soak, options.seconds))
        document = report(soak, samples)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return int(bool(document["failures"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
