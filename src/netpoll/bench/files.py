"""The files benchmark: what reading files costs, nanoseconds of CPU per operation.

The arms are netpoll's files on both backends, aiofiles on asyncio (the control) and plain system
calls without any loop (the floor). As a module of its own (``python -m netpoll.bench.files``) it is
the child, as in bench micro: one arm in one process; it answers a line of JSON per round. The file
is in the page cache: it is the software's share that is measured, not the disk's.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netpoll.bench.arms import ARMS, Arm, ArmUnavailable
from netpoll.bench.echo import Step
from netpoll.bench.process import Child, Pinning, ServerError, child_environment, die_with_parent
from netpoll.bench.stats import Spread, paired_ratio
from netpoll.bench.watch import Watch

CONTROL = "aiofiles"
FILE_ARMS: dict[str, Arm] = {
    "netpoll-uring": ARMS["netpoll-uring"],
    "netpoll-epoll": ARMS["netpoll-epoll"],
    CONTROL: Arm(CONTROL, "loop", "aiofiles on asyncio: the control", distribution="aiofiles"),
    "pread": Arm("pread", "floor", "plain system calls, no loop"),
}

DEPTH = 32  # operations at once
BLOCK_BYTES = 4096
FILE_BYTES = 16 << 20  # stays in the page cache
LINE_BYTES = 64
COUNT = 3200  # operations per round of the slowest arm
FAST_FACTOR = 10  # the others do so many times more: their rounds would be too short
ROUND_TIMEOUT_S = 60.0
ROUND_S = 2.5  # about, of the slowest arm


@dataclass(frozen=True)
class FileWork:
    """One kind of operation. `ours` and `theirs` (aiofiles) are coroutine functions of a path and a
    number of operations, `floor` a plain function."""

    title: str
    ours: Callable[[Path, int], Any]
    theirs: Callable[[Path, int], Any]
    floor: Callable[[Path, int], None]


def offsets(count: int, seed: int) -> list[int]:
    """Places of blocks in the file, in no order."""
    rand = random.Random(seed)
    blocks = FILE_BYTES // BLOCK_BYTES
    return [rand.randrange(blocks) * BLOCK_BYTES for _ in range(count)]


Opener = Callable[..., AbstractAsyncContextManager[Any]]


async def _random_reads(opener: Opener, path: Path, count: int) -> None:
    async def reader(places: list[int]) -> None:
        async with opener(path, "rb") as file:
            for place in places:
                await file.seek(place)
                if len(await file.read(BLOCK_BYTES)) != BLOCK_BYTES:
                    raise AssertionError("a short read")

    await asyncio.gather(*(reader(offsets(count // DEPTH, i)) for i in range(DEPTH)))


async def _reads_at(read_at: Callable[[int, int, int], Any], path: Path, count: int) -> None:
    async def reader(fd: int, places: list[int]) -> None:
        for place in places:
            if len(await read_at(fd, BLOCK_BYTES, place)) != BLOCK_BYTES:
                raise AssertionError("a short read")

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await asyncio.gather(*(reader(fd, offsets(count // DEPTH, i)) for i in range(DEPTH)))
    finally:
        os.close(fd)


async def _lines(opener: Opener, path: Path, count: int) -> None:
    async with opener(path, "rb") as file:
        for _ in range(count):
            await file.readline()


async def _whole(opener: Opener, path: Path, count: int) -> None:
    small = path.with_name("small")

    async def reader() -> None:
        for _ in range(count // DEPTH):
            async with opener(small, "rb") as file:
                await file.read()

    await asyncio.gather(*(reader() for _ in range(DEPTH)))


def _plain_random(path: Path, count: int) -> None:
    with open(path, "rb", 0) as file:
        fd = file.fileno()
        for place in offsets(count, 0):
            os.lseek(fd, place, os.SEEK_SET)
            os.read(fd, BLOCK_BYTES)


def _plain_at(path: Path, count: int) -> None:
    with open(path, "rb", 0) as file:
        fd = file.fileno()
        for place in offsets(count, 0):
            os.pread(fd, BLOCK_BYTES, place)


def _plain_lines(path: Path, count: int) -> None:
    with open(path, "rb") as file:
        for _ in range(count):
            file.readline()


def _plain_whole(path: Path, count: int) -> None:
    small = path.with_name("small")
    for _ in range(count):
        fd = os.open(small, os.O_RDONLY | os.O_CLOEXEC)
        os.read(fd, 2 * BLOCK_BYTES)
        os.close(fd)


def _ours(work: Callable[[Opener, Path, int], Any]) -> Callable[[Path, int], Any]:
    def run(path: Path, count: int) -> Any:
        import netpoll

        return work(netpoll.open, path, count)

    return run


def _theirs(work: Callable[[Opener, Path, int], Any]) -> Callable[[Path, int], Any]:
    def run(path: Path, count: int) -> Any:
        import aiofiles

        return work(aiofiles.open, path, count)

    return run


def _ours_at(path: Path, count: int) -> Any:
    import netpoll

    return _reads_at(netpoll.read_at, path, count)


async def _theirs_at(path: Path, count: int) -> None:
    """aiofiles has no such thing: what is written in its place."""
    loop = asyncio.get_running_loop()
    await _reads_at(
        lambda fd, size, place: loop.run_in_executor(None, os.pread, fd, size, place), path, count
    )


FILE_WORKS: dict[str, FileWork] = {
    "random": FileWork(
        f"seek and read 4 KiB, {DEPTH} files",
        _ours(_random_reads),
        _theirs(_random_reads),
        _plain_random,
    ),
    "at": FileWork(f"read 4 KiB at an offset, {DEPTH} at once", _ours_at, _theirs_at, _plain_at),
    "lines": FileWork("a line of 64 B", _ours(_lines), _theirs(_lines), _plain_lines),
    "whole": FileWork(
        f"open, read 4 KiB, close, {DEPTH} at once", _ours(_whole), _theirs(_whole), _plain_whole
    ),
}


@dataclass(frozen=True)
class FilesPlan:
    """What to run. `scale`: part of the operations; limit_s as in EchoPlan."""

    arms: tuple[str, ...]
    works: tuple[str, ...]
    pinning: Pinning
    directory: Path
    rounds: int = 5
    scale: float = 1.0
    limit_s: float | None = None

    @property
    def expected_s(self) -> float:
        per_arm_s = ROUND_S * self.scale * len(self.works) / len(FILE_WORKS)
        expected_s = len(self.arms) * (0.5 + (self.rounds + 1) * per_arm_s)
        return min(expected_s, self.limit_s) if self.limit_s else expected_s


@dataclass
class FilesRun:
    """`samples`: (work, arm) to nanoseconds of CPU per operation, by round."""

    plan: FilesPlan
    samples: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    started_at: float = field(default_factory=time.time)
    elapsed_s: float = 0.0


def check_file_arms(names: tuple[str, ...]) -> dict[str, dict]:
    """As process.check_arms: {"version"} or {"unavailable": reason}."""
    facts: dict[str, dict] = {}
    for name in names:
        arm = FILE_ARMS[name]
        try:
            if name == CONTROL and importlib.util.find_spec("aiofiles") is None:
                raise ArmUnavailable("not installed (pip install aiofiles)")
            if arm.module:
                arm.new_loop().close()
            facts[name] = {"version": arm.installed_version()}
        except ArmUnavailable as error:
            facts[name] = {"unavailable": str(error)}
    return facts


def run_files(plan: FilesPlan, progress: Callable[[Step], None] = lambda step: None) -> FilesRun:
    """Runs the plan; what is there by Ctrl-C or by the time limit is returned."""
    run = FilesRun(plan)
    children: dict[str, Child] = {}
    done, total = 0, plan.rounds * len(plan.arms)
    with Watch(plan.limit_s) as watch, tempfile.TemporaryDirectory(dir=plan.directory) as scratch:
        path = Path(scratch, "data")
        line = b"x" * (LINE_BYTES - 1) + b"\n"
        path.write_bytes(line * (FILE_BYTES // LINE_BYTES))
        path.with_name("small").write_bytes(line * (BLOCK_BYTES // LINE_BYTES))
        try:
            for arm in plan.arms:
                children[arm] = _start(plan, arm, path)
            for number in range(plan.rounds):
                first = number % len(plan.arms)
                for arm in plan.arms[first:] + plan.arms[:first]:
                    run.stopped = watch.why_stop(ROUND_S * plan.scale)
                    if run.stopped:
                        return run
                    progress(Step(done, total, f"round {number + 1} of {plan.rounds}", arm))
                    done += 1
                    if arm not in run.faults:
                        _keep_round(run, children[arm], arm, number)
        finally:
            for child in children.values():
                child.kill()
            run.elapsed_s = watch.elapsed_s
    return run


def _start(plan: FilesPlan, arm: str, path: Path) -> Child:
    args = ["-m", "netpoll.bench.files", "--arm", arm, "--path", str(path)]
    args += ["--works", ",".join(plan.works), "--scale", str(plan.scale)]
    env = child_environment(FILE_ARMS[arm])
    return Child(args, env, plan.pinning.server_cpu, commands=True)


def _keep_round(run: FilesRun, child: Child, arm: str, number: int) -> None:
    try:
        child.command("round")
        figures = child.answer(ROUND_TIMEOUT_S)
    except (ServerError, OSError) as error:
        run.faults[arm] = str(error)
    else:
        for name, ns in figures.items():
            run.samples.setdefault((name, arm), {})[number] = ns


def files_document(
    run: FilesRun, checked: dict[str, dict], header: dict, environment: dict
) -> dict:
    """The document of a files run: rows as in a micro run, set against aiofiles."""
    plan = run.plan
    rows = []
    for work in plan.works:
        for arm in plan.arms:
            by_round = run.samples.get((work, arm), {})
            row: dict[str, Any] = {
                "workload": work,
                "title": FILE_WORKS[work].title,
                "arm": arm,
                "mode": "-",
                "fault": run.faults.get(arm),
                "rounds": len(by_round),
            }
            if by_round:
                row |= {
                    "ns": Spread.of(by_round.values()).as_dict(),
                    "ns_by_round": list(by_round.values()),
                    "vs_control": paired_ratio(by_round, run.samples.get((work, CONTROL), {})),
                }
            rows.append(row)
    return header | {
        "environment": environment,
        "elapsed_s": run.elapsed_s,
        "stopped": run.stopped,
        "settings": {"rounds": plan.rounds, "scale": plan.scale, "directory": str(plan.directory)},
        "arms": {
            name: {
                "kind": FILE_ARMS[name].kind,
                "summary": FILE_ARMS[name].summary,
                "version": facts.get("version"),
                "loop": None,
                "skipped": facts.get("unavailable"),
                "malloc": {},
            }
            for name, facts in checked.items()
        },
        "rows": rows,
    }


# ---- the child --------------------------------------------------------------------------------


def _measure(
    loop: asyncio.AbstractEventLoop | None, arm: str, work: FileWork, path: Path, count: int
) -> float:
    """Nanoseconds of process CPU time, user and system, all threads, per operation."""
    gc.collect()
    start = time.process_time_ns()
    if loop is None:
        work.floor(path, count)
    else:
        function = work.theirs if arm == CONTROL else work.ours
        loop.run_until_complete(function(path, count))
    return (time.process_time_ns() - start) / count


def main(argv: list[str] | None = None) -> int:
    """The child: a warm-up round, then a round for each line that comes."""
    parser = argparse.ArgumentParser(prog="python -m netpoll.bench.files")
    parser.add_argument("--arm", required=True, choices=FILE_ARMS)
    parser.add_argument("--works", required=True)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    arm = FILE_ARMS[options.arm]
    loop = None
    if arm.kind == "loop":
        loop = asyncio.SelectorEventLoop() if options.arm == CONTROL else arm.new_loop()
        asyncio.set_event_loop(loop)
    factor = 1 if options.arm == CONTROL else FAST_FACTOR

    def run_round(scale: float) -> dict[str, float]:
        count = max(int(COUNT * factor * scale) // DEPTH, 1) * DEPTH
        return {
            name: _measure(loop, options.arm, FILE_WORKS[name], options.path, count)
            for name in options.works.split(",")
        }

    run_round(options.scale / 10)
    for _ in sys.stdin:
        print(json.dumps(run_round(options.scale)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
