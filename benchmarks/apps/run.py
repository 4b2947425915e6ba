"""Application servers under load on every loop: server CPU per request. See README.md here."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from netpoll.bench import _native
from netpoll.bench.arms import ARMS, LOOP_ARMS
from netpoll.bench.clocks import cpu_time
from netpoll.bench.cores import Pinning, choose_pinning
from netpoll.bench.errors import ServerError
from netpoll.bench.process import Child, Server, child_environment
from netpoll.bench.stats import paired_ratio

APPS = ("proxy", "uvicorn", "aiohttp")
CONNECTIONS = 64
MESSAGE_BYTES = 1024


class AppServer(Child):
    """A child of serve.py; `address` is where it listens. Raises ServerError when it cannot."""

    def __init__(self, app: str, arm: str, cpu: int, upstream: object):
        script = Path(__file__).with_name("serve.py")
        args = [str(script), "--app", app, "--arm", arm, "--upstream", json.dumps(upstream)]
        super().__init__(args, child_environment(ARMS[arm], "all"), cpu)
        try:
            facts = self.answer()
        except ServerError:
            self.kill()
            raise
        if "unavailable" in facts:
            self.kill()
            raise ServerError(facts["unavailable"])
        self.address = tuple(facts["address"])


def load_echo(address: tuple[str, int], pid: int, duration_s: float) -> tuple[int, int]:
    """Requests, and the server's CPU for them in nanoseconds."""
    with _native.Load(address, CONNECTIONS, MESSAGE_BYTES) as load:
        load.run(0.2)
        before = cpu_time(pid)
        requests = load.run(duration_s)["requests_all"]
        return requests, (cpu_time(pid) - before).total_ns


def load_http(address: tuple[str, int], pid: int, duration_s: float) -> tuple[int, int]:
    """The same with wrk. Raises ServerError when an answer was none."""
    url = f"http://{address[0]}:{address[1]}/"
    wrk = ["wrk", "-t1", f"-c{CONNECTIONS}"]
    subprocess.run([*wrk, "-d1", url], capture_output=True, check=True)
    before = cpu_time(pid)
    command = [*wrk, f"-d{max(round(duration_s), 1)}", url]
    text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    cpu = cpu_time(pid) - before
    if "Non-2xx" in text or "Socket errors" in text:
        raise ServerError("it answered with errors")
    return int(re.search(r"(\d+) requests in", text)[1]), cpu.total_ns


def measure(app: str, arm: str, pinning: Pinning, duration_s: float) -> float:
    """Microseconds of server CPU per request."""
    with Server(ARMS["floor-epoll"], "-", cpu=pinning.server_cpu) as far:
        with AppServer(app, arm, pinning.server_cpu, far.address) as server:
            run = load_echo if app == "proxy" else load_http
            requests, cpu_ns = run(server.address, server.pid, duration_s)
            return cpu_ns / requests / 1e3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("apps", nargs="*", metavar="APP", help=f"of {', '.join(APPS)}")
    parser.add_argument("--arms", default=",".join(LOOP_ARMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration-s", type=float, default=1.0)
    options = parser.parse_args()
    apps, arms = options.apps or APPS, options.arms.split(",")
    unknown = (set(apps) - set(APPS)) | (set(arms) - set(LOOP_ARMS))
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    console, pinning = Console(), choose_pinning()
    os.sched_setaffinity(0, {pinning.load_cpu})
    figures: dict[tuple[str, str], dict[int, float]] = {}
    skipped: dict[str, str] = {}
    if shutil.which("wrk") is None:
        skipped |= {app: "wrk is not installed" for app in apps if app != "proxy"}
    for round_number in range(options.rounds):
        for app in apps:
            for arm in arms[round_number % len(arms) :] + arms[: round_number % len(arms)]:
                if app in skipped or f"{app} on {arm}" in skipped:
                    continue
                try:
                    us = measure(app, arm, pinning, options.duration_s)
                except (OSError, ServerError, subprocess.CalledProcessError) as error:
                    skipped[f"{app} on {arm}"] = str(error)
                else:
                    figures.setdefault((app, arm), {})[round_number] = us
    table = Table("app", "loop", title="server CPU per request")
    for name in ("µs", "min", "× asyncio"):
        table.add_column(name, justify="right")
    for (app, arm), by_round in sorted(
        figures.items(), key=lambda f: (f[0][0], min(f[1].values()))
    ):
        versus = paired_ratio(by_round, figures.get((app, "asyncio"), {}))
        ratio = "–" if versus is None else f"{versus:.2f}"
        values = by_round.values()
        table.add_row(app, arm, f"{median(values):.2f}", f"{min(values):.2f}", ratio)
    console.print(table)
    for what, why in skipped.items():
        console.print(f"skipped: {what}: {why}.")
    return 0 if figures else 1


if __name__ == "__main__":
    sys.exit(main())
