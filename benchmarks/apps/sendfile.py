"""One large file through sock_sendfile on every loop: server CPU per GiB, and speed."""

import argparse
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from run import AppServer  # the directory of the program is on the path

from netpoll.bench.arms import LOOP_ARMS
from netpoll.bench.clocks import cpu_time
from netpoll.bench.cores import Pinning, choose_pinning
from netpoll.bench.errors import ServerError
from netpoll.bench.stats import paired_ratio
from netpoll.bench.tcp import tune

MIB = 1 << 20
PIECE_BYTES = 4 * MIB


def fill(path: Path, size_bytes: int) -> None:
    """A file whose pages are all there."""
    with path.open("wb") as file:
        for _ in range(size_bytes // MIB):
            file.write(os.urandom(MIB))


def swallow(address: tuple[str, int]) -> int:
    """Takes what the server sends and throws it away in the kernel; the number of bytes."""
    total = 0
    with socket.create_connection(address) as sock:
        tune(sock)
        while got := len(sock.recv(PIECE_BYTES, socket.MSG_TRUNC)):
            total += got
    return total


def measure(arm: str, pinning: Pinning, path: Path) -> tuple[float, float]:
    """Server CPU in ms per GiB, and GiB/s."""
    size_bytes = path.stat().st_size
    with AppServer("sendfile", arm, pinning.server_cpu, str(path)) as server:
        for warm in (True, False):
            before, start_s = cpu_time(server.pid), time.monotonic()
            got = swallow(server.address)
            if got != size_bytes:
                raise ServerError(f"{got} bytes came of {size_bytes}")
            if not warm:
                taken_s = time.monotonic() - start_s
                cpu_ns = (cpu_time(server.pid) - before).total_ns
        gib = size_bytes / 2**30
        return cpu_ns / 1e6 / gib, gib / taken_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", default=",".join(LOOP_ARMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size-mib", type=int, default=1024)
    options = parser.parse_args()
    arms, pinning, console = options.arms.split(","), choose_pinning(), Console()
    if unknown := set(arms) - set(LOOP_ARMS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    os.sched_setaffinity(0, {pinning.load_cpu})
    cpu: dict[str, dict[int, float]] = {}
    speed: dict[str, dict[int, float]] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        fill(path, options.size_mib * MIB)
        for number in range(options.rounds):
            for arm in arms[number % len(arms) :] + arms[: number % len(arms)]:
                if arm in skipped:
                    continue
                try:
                    figures = measure(arm, pinning, path)
                except (OSError, ServerError) as error:
                    skipped[arm] = str(error)
                else:
                    cpu.setdefault(arm, {})[number], speed.setdefault(arm, {})[number] = figures
    table = Table("loop", title=f"sock_sendfile of {options.size_mib} MiB; {pinning.sentence()}")
    for name in ("CPU ms/GiB", "min", "× asyncio", "GiB/s", "max", "× asyncio"):
        table.add_column(name, justify="right")
    for arm in sorted(cpu, key=lambda arm: median(cpu[arm].values())):
        row = [f"{median(cpu[arm].values()):.1f}", f"{min(cpu[arm].values()):.1f}"]
        row.append(ratio(cpu, arm))
        row += [f"{median(speed[arm].values()):.2f}", f"{max(speed[arm].values()):.2f}"]
        table.add_row(arm, *row, ratio(speed, arm))
    console.print(table)
    for arm, why in skipped.items():
        console.print(f"skipped: {arm}: {why}.")
    return 0 if cpu else 1


def ratio(figures: dict[str, dict[int, float]], arm: str) -> str:
    versus = paired_ratio(figures[arm], figures.get("asyncio", {}))
    return "–" if versus is None else f"{versus:.2f}"


if __name__ == "__main__":
    sys.exit(main())
