"""What a server of one process costs with a thousand connections, and with a million.

    python -m tests.scale [--connections 1000,10000,100000,1000000] [--arms A,B] [--json FILE]

For each number of connections and each arm a server is started. All connect and have one message
echoed; then 64 of them are busy while the others stay idle; then connections come and go beside
them; then all peers reset at once; then all connect again, and the server closes them. Shown are:

    memory    user memory of the server per idle connection (what only its process has)
    kernel    memory that the machine has less, per connection: both ends of it
    accept    connections per second until each had its message, and CPU of the server for each
    CPU/req   CPU of the server per request of the busy ones: median of the windows
    cycle     connect, message, reset per second, 64 at once, beside the idle ones, and CPU of each
    end       seconds until the server knows that all peers are gone; until it closed all itself

The client is a program in C (load.c). It all happens in a network of its own, with limits that are
put back at the end; that needs root, and about 8 KiB of memory per connection. A number of
connections for which the hard limit of open files is too low is left out with a sentence: raising
that limit needs CAP_SYS_RESOURCE. Figures count when the machine is quiet: two cores, nothing else.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from netpoll.bench.clocks import cpu_time

from .room import NotAllowedError, enter_network, files
from .server import ARMS

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_ARMS = ("server-uring", "server-epoll")
CYCLE_ONLY = ("loop-uring", "loop-epoll", "uvloop", "asyncio")
SEASON = 100  # connections that a server has served before it is looked at
BUSY = 64
SETTLE_S = 0.3
PATIENCE_S = 120.0
FLAT = 0.15  # how far the largest number may be from the smallest one

Figures = dict[str, Any]


class Process:
    """A program that is told something by a line and answers with a line of JSON."""

    def __init__(self, command: list[str], cpu: int) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        os.sched_setaffinity(self.process.pid, {cpu})  # its threads are not begun yet

    def heard(self) -> Figures:
        stdout: IO[str] | None = self.process.stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} has ended: {self.process.wait()}")
        words: Figures = json.loads(line)
        if "fault" in words:
            raise RuntimeError(words["fault"])
        return words

    def told(self, command: str) -> Figures:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.heard()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def build_load() -> Path:
    """The client, compiled where it is older than its source."""
    source, program = Path(__file__).parent / "load.c", ROOT / "build" / "scale-load"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(exist_ok=True)
        command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([*command, "-o", program, source], check=True)
    return program


def user_memory_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


class Trial:
    """One server and its clients."""

    def __init__(self, arm: str, options: argparse.Namespace) -> None:
        self.options = options
        cpus = sorted(os.sched_getaffinity(0))
        self.server = Process([sys.executable, "-m", "tests.scale.server", arm], cpus[0])
        try:
            port = self.server.heard()["port"]
            self.load = Process([str(build_load()), str(port)], cpus[-1])
        except BaseException:
            self.server.end()
            raise
        self.pid = self.server.process.pid

    def __enter__(self) -> "Trial":
        self.load.told(f"open {SEASON}")
        self.load.told("close")
        self.wait_for(0)
        return self

    def __exit__(self, *_: object) -> None:
        self.load.end()
        self.server.end()

    def wait_for(self, connections: int) -> float:
        """Seconds until the server has so many."""
        start_s = time.monotonic()
        while (now := self.server.told("count")["connections"]) != connections:
            if time.monotonic() - start_s > PATIENCE_S:
                raise RuntimeError(f"the server has {now} connections and not {connections}")
            time.sleep(0.01)
        return time.monotonic() - start_s

    def costed(self, command: str) -> tuple[Figures, float]:
        """What the load did, and the server's CPU for each, in microseconds."""
        before = cpu_time(self.pid).total_ns
        done = self.load.told(command)
        spent_ns = cpu_time(self.pid).total_ns - before
        return done, spent_ns / 1000 / max(1, done["count"])

    def open_all(self, connections: int) -> Figures:
        before, available = user_memory_bytes(self.pid), available_bytes()
        done, cpu_us = self.costed(f"open {connections}")
        self.wait_for(connections)
        time.sleep(SETTLE_S)
        user = user_memory_bytes(self.pid) - before
        return {
            "accepts_per_s": done["count"] / done["seconds"],
            "accept_cpu_us": cpu_us,
            "user_bytes": user / connections,
            "kernel_bytes": (available - available_bytes() - user) / connections,
        }

    def run_busy(self, connections: int) -> Figures:
        busy = min(self.options.busy, connections)
        windows = [
            self.costed(f"run {busy} {self.options.seconds}") for _ in range(self.options.windows)
        ]
        return {
            "request_cpu_us": statistics.median(cost for _, cost in windows),
            "request_cpu_us_by_window": [cost for _, cost in windows],
            "requests_per_s": statistics.median(
                done["count"] / done["seconds"] for done, _ in windows
            ),
            "p50_us": statistics.median(done["p50_us"] for done, _ in windows),
            "p99_us": statistics.median(done["p99_us"] for done, _ in windows),
        }

    def cycle(self, connections: int) -> Figures:
        done, cpu_us = self.costed(f"cycle {self.options.busy} {self.options.seconds}")
        self.wait_for(connections)
        return {"cycles_per_s": done["count"] / done["seconds"], "cycle_cpu_us": cpu_us}

    def end_all(self, connections: int) -> Figures:
        self.load.told("close")
        peers_s = self.wait_for(0)
        self.load.told(f"open {connections}")
        self.wait_for(connections)
        return {"peers_gone_s": peers_s, "closed_s": self.server.told("close")["seconds"]}


def measure(arm: str, connections: int, options: argparse.Namespace) -> Figures:
    with Trial(arm, options) as trial:
        row: Figures = {"arm": arm, "connections": connections}
        row |= trial.open_all(connections)
        row |= trial.run_busy(connections)
        row |= trial.cycle(connections)
        row |= trial.end_all(connections)
    return row


def measure_cycles(arm: str, options: argparse.Namespace) -> Figures:
    """Connections that come and go, beside none that stay."""
    with Trial(arm, options) as trial:
        return {"arm": arm, "connections": 0} | trial.cycle(0)


COLUMNS = (
    ("arm", "arm", "{}"),
    ("connections", "connections", "{:,}"),
    ("memory", "user_bytes", "{:.0f} B"),
    ("kernel", "kernel_bytes", "{:.0f} B"),
    ("accept/s", "accepts_per_s", "{:,.0f}"),
    ("CPU/accept", "accept_cpu_us", "{:.1f} us"),
    ("CPU/req", "request_cpu_us", "{:.2f} us"),
    ("req/s", "requests_per_s", "{:,.0f}"),
    ("p99", "p99_us", "{:.0f} us"),
    ("cycle/s", "cycles_per_s", "{:,.0f}"),
    ("CPU/cycle", "cycle_cpu_us", "{:.1f} us"),
    ("peers gone", "peers_gone_s", "{:.2f} s"),
    ("closed", "closed_s", "{:.2f} s"),
)


def table(rows: list[Figures]) -> str:
    lines = [[title for title, _, _ in COLUMNS]]
    for row in rows:
        cells = [form.format(row[key]) if key in row else "-" for _, key, form in COLUMNS]
        lines.append(cells if "fault" not in row else [*cells[:2], row["fault"]])
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=False))
        for line in lines
    )


def verdicts(rows: list[Figures]) -> list[Figures]:
    """For each arm: the largest number of connections beside the smallest one."""
    found = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm and "request_cpu_us" in row]
        if len(own) < 2:
            continue
        few = min(own, key=lambda row: row["connections"])
        many = max(own, key=lambda row: row["connections"])
        for key, what in (("request_cpu_us", "CPU per request"), ("user_bytes", "user memory")):
            ratio = many[key] / max(few[key], 1e-6)  # few may need no page of their own
            found.append(
                {"arm": arm, "what": what, "from": few["connections"], "to": many["connections"]}
                | {"ratio": ratio, "is_flat": ratio <= 1 + FLAT}
            )
    return found


def machine() -> Figures:
    return {
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter

    def numbers(text: str) -> list[int]:
        return sorted(int(one) for one in text.split(","))

    def arms(text: str) -> list[str]:
        names = [one for one in text.split(",") if one]
        if unknown := set(names) - set(ARMS):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not of {', '.join(ARMS)}")
        return names

    add = parser.add_argument
    add("--connections", type=numbers, default=[1000, 10_000, 100_000, 1_000_000])
    add("--arms", type=arms, default=list(DEFAULT_ARMS), help=f"of {', '.join(ARMS)}")
    add("--cycle-arms", type=arms, default=[*DEFAULT_ARMS, *CYCLE_ONLY], help="come and go only")
    add("--busy", type=int, default=BUSY, help="how many connections are busy")
    add("--seconds", type=float, default=3.0, help="of each window")
    add("--windows", type=int, default=3, help="of busy connections, for each row")
    add("--json", type=Path, help="where the figures go as well")
    add("--check", action="store_true", help=f"exit code 1 where something grew by {FLAT:.0%}")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the limits are put back
    document: Figures = {"machine": machine(), "busy": options.busy, "rows": []}
    rows: list[Figures] = document["rows"]
    try:
        with files(max(options.connections)) as allowed:
            enter_network()
            for connections in possible(options.connections, allowed):
                for arm in options.arms:
                    rows.append(measured(arm, connections, options))
                    print(table(rows[-1:]), flush=True)
            for arm in options.cycle_arms:
                rows.append(measured(arm, 0, options))
    except NotAllowedError as error:
        print(f"tests.scale: {error}", file=sys.stderr)
        return 2
    document["verdicts"] = verdicts(rows)
    print("\n" + table(rows))
    for one in document["verdicts"]:
        state = "flat" if one["is_flat"] else "grows"
        where = f"{one['from']:,} to {one['to']:,} connections"
        print(f"{one['arm']}: {one['what']} {state}, {one['ratio']:.2f} x from {where}")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    failed = any("fault" in row for row in rows)
    grown = options.check and not all(one["is_flat"] for one in document["verdicts"])
    return int(failed or grown)


def possible(numbers: list[int], allowed: int) -> list[int]:
    for number in numbers:
        if number > allowed:
            print(f"tests.scale: {number:,} connections are left out: {allowed:,} are allowed here")
    return [number for number in numbers if number <= allowed]


def measured(arm: str, connections: int, options: argparse.Namespace) -> Figures:
    try:
        if connections == 0:
            return measure_cycles(arm, options)
        return measure(arm, connections, options)
    except (RuntimeError, OSError) as error:
        return {"arm": arm, "connections": connections, "fault": str(error)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
