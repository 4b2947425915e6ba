"""``bench files``: what reading files costs, nanoseconds of CPU per operation.

The arms are netpoll's files on both backends, aiofiles on asyncio (the control) and plain system
calls without any loop (the floor). The file is in the page cache: it is the software's share that
is measured, not the disk's.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import netpoll
from netpoll.bench.arms import ARMS, Arm
from netpoll.bench.errors import ArmUnavailable, UsageError
from netpoll.bench.kind import Terms
from netpoll.bench.records import Document, Facts
from netpoll.bench.rounds import Measure
from netpoll.bench.watch import Watch
from netpoll.bench.works import RunRound, WorksKind, WorksPlan

__all__ = ["KIND"]

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
        return work(netpoll.open, path, count)

    return run


def _theirs(work: Callable[[Opener, Path, int], Any]) -> Callable[[Path, int], Any]:
    def run(path: Path, count: int) -> Any:
        import aiofiles

        return work(aiofiles.open, path, count)

    return run


def _ours_at(path: Path, count: int) -> Any:
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


@dataclass(frozen=True, kw_only=True)
class FilesPlan(WorksPlan):
    """directory: where the files are made; path: of the large one, None until it is there."""

    directory: Path
    path: Path | None = None


def new_loop(arm: str) -> asyncio.AbstractEventLoop | None:
    """The loop of an arm, None for what has none. Raises ArmUnavailable."""
    if arm == CONTROL:
        if importlib.util.find_spec("aiofiles") is None:
            raise ArmUnavailable("not installed (pip install aiofiles)")
        return asyncio.SelectorEventLoop()
    return ARMS[arm].new_loop() if arm in ARMS else None


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


class Files(WorksKind):
    name = "files"
    help = "reading files: netpoll's, aiofiles, plain system calls; ns per operation"
    description = (
        "Measures what reading files costs in CPU, each arm in a process of its own, rounds "
        "interleaved. The files are in the page cache."
    )
    title = "Reading files"
    method = """
Each arm is a process of its own, pinned to one core; rounds are interleaved. The figure is CPU
time of the process, user and system, of all its threads, per operation. The file is in the page
cache. Figures are medians over the rounds; a dot is one round.
"""
    arms = FILE_ARMS
    default_arms = tuple(FILE_ARMS)
    operations = {name: work.title for name, work in FILE_WORKS.items()}
    control = CONTROL
    round_s = 2.5  # of the slowest arm

    # ---- before the run

    def add_options(self, parser: argparse._ArgumentGroup) -> None:
        super().add_options(parser)
        parser.add_argument(
            "--directory",
            type=Path,
            default=Path(tempfile.gettempdir()),
            metavar="PATH",
            help="where the files are made; default: the directory for temporary files",
        )

    def chosen_arms(self, options: argparse.Namespace) -> tuple[str, ...]:
        if not options.directory.is_dir():
            raise UsageError(f"{options.directory} is not a directory")
        return super().chosen_arms(options)

    def check(self, arms: Sequence[str]) -> dict[str, Facts]:
        facts: dict[str, Facts] = {}
        for name in arms:
            try:
                if loop := new_loop(name):
                    loop.close()
                facts[name] = {"version": FILE_ARMS[name].installed_version()}
            except ArmUnavailable as error:
                facts[name] = {"unavailable": str(error)}
        return facts

    def plan(self, options: argparse.Namespace, terms: Terms) -> FilesPlan:
        return FilesPlan(**self.plan_facts(options, terms), directory=options.directory)

    # ---- the run

    def worker_settings(self, plan: FilesPlan, arm: str) -> Facts:
        return super().worker_settings(plan, arm) | {"path": str(plan.path)}

    @contextmanager
    def measuring(self, plan: FilesPlan, watch: Watch) -> Iterator[Measure]:
        with tempfile.TemporaryDirectory(dir=plan.directory) as scratch:
            path = Path(scratch, "data")
            line = b"x" * (LINE_BYTES - 1) + b"\n"
            path.write_bytes(line * (FILE_BYTES // LINE_BYTES))
            path.with_name("small").write_bytes(line * (BLOCK_BYTES // LINE_BYTES))
            with super().measuring(replace(plan, path=path), watch) as measure:
                yield measure

    @contextmanager
    def worker(self, arm: str, settings: Mapping[str, Any]) -> Iterator[RunRound]:
        loop, path = new_loop(arm), Path(settings["path"])
        asyncio.set_event_loop(loop)
        factor = 1 if arm == CONTROL else FAST_FACTOR

        def run_round(share: float) -> dict[str, float]:
            count = max(int(COUNT * factor * share) // DEPTH, 1) * DEPTH
            return {
                name: _measure(loop, arm, FILE_WORKS[name], path, count)
                for name in settings["operations"]
            }

        yield run_round
        if loop is not None:
            loop.close()

    # ---- the document and its looks

    def settings(self, plan: FilesPlan) -> Facts:
        return super().settings(plan) | {"directory": str(plan.directory)}

    def notes(self, document: Document, wide: bool) -> list[str]:
        (note,) = super().notes(document, wide)
        where = document["settings"]["directory"]
        cpu = "CPU time of the process, user and system, all threads"
        return [f"{note} {cpu}; files in the page cache, in {where}."]


KIND = Files()
