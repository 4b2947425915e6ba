"""The screen of `netpoll top`: two readings make rates, a row for each loop. 80x24 is enough."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from netpoll._telemetry.look import Watched

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["PLAIN_SIZE", "lines", "show"]

PLAIN_SIZE = (80, 24)
PERCENT = 0.99
# Columns: what is above them, how wide they are.
LOOP_COLUMNS = (
    *(("PID", 7), ("WORKER", -11), ("LAG", 6), ("TURN/S", 6), ("ENTR/S", 6), ("CONNS", 5)),
    *(("REQ/S", 6), ("P99", 6), ("FAIL/S", 6), ("QUEUE", 5), ("BUFS", 4)),
)
SCHEDULER_COLUMNS = (
    *(("PID", 7), ("WORKER", -11), ("STEP/S", 6), ("STOLE/S", 7), ("PARK/S", 6)),
    *(("CONTROL", 7), ("HIGH", 6), ("NORMAL", 6), ("LOW", 6)),
)
LANES = ("CONTROL", "HIGH", "NORMAL", "LOW")
Columns = tuple[tuple[str, int], ...]
Reading = dict[str, Any]


def show(watched: Watched, every_s: float) -> None:
    """Until Ctrl-C, or until the processes have ended."""
    before = watched.readings()
    try:
        from rich.console import Console
        from rich.live import Live
    except ModuleNotFoundError:
        while True:
            time.sleep(every_s)
            after = watched.readings()
            print("\n".join(lines(before, after, *PLAIN_SIZE)), end="\n\n", flush=True)
            before = after
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        first = before
        while True:
            rows = lines(first, before, console.width, console.height)
            live.update(coloured(rows), refresh=True)
            time.sleep(every_s)
            first, before = before, watched.readings()


def coloured(rows: list[str]) -> Text:
    from rich.text import Text

    made = Text(no_wrap=True)
    for number, row in enumerate(rows):
        is_head = row.lstrip().startswith("PID")
        made.append(row, "bold" if number == 0 else "reverse" if is_head else "")
        if number < len(rows) - 1:
            made.append("\n")
    return made


def lines(before: list[Reading], after: list[Reading], width: int, height: int) -> list[str]:
    """The screen, cut to its size."""
    old = {one["pid"]: one for one in before}
    pairs = [(old.get(one["pid"], one), one) for one in after]
    loops = [row for was, now in pairs for row in loop_rows(was, now)]
    tasks = [row for was, now in pairs for row in scheduler_rows(was, now)]
    clock = time.strftime("%H:%M:%S", time.localtime(after[0]["time_s"]))
    head = f"netpoll top  {after[0]['pid']} {after[0]['command']}"
    made = [f"{head[: width - len(clock) - 2]:{width - len(clock)}}{clock}", totals(pairs), ""]
    made += table(LOOP_COLUMNS, loops)
    if tasks:
        made += ["", *table(SCHEDULER_COLUMNS, tasks)]
    if len(made) > height:
        left = len(made) - height + 1
        made[height - 1 :] = [f"... and {left} lines more: a higher window has them"]
    return [line[:width] for line in made]


def table(columns: Columns, rows: list[list[str]]) -> list[str]:
    """Widths below 0: to the left."""

    def line(cells: list[str]) -> str:
        padded = [
            cell[: abs(width)].ljust(-width) if width < 0 else cell[:width].rjust(width)
            for cell, (_, width) in zip(cells, columns, strict=True)
        ]
        return " ".join(padded).rstrip()

    return [line([name for name, _ in columns]), *map(line, rows)]


# ---- rows ---------------------------------------------------------------------------------------


def parts(reading: Reading) -> Iterator[tuple[str, Reading, Reading | None, Reading | None]]:
    """Of each loop of a process: its name, its reading, its worker's stats, its requests."""
    for loop in reading["loops"]:
        yield loop["name"], loop, None, None
    for server in reading["servers"]:
        requests = server.get("http") or [None] * len(server["loops"])
        workers = server["stats"]["workers"]
        for number, (loop, worker, http) in enumerate(
            zip(server["loops"], workers, requests, strict=False)
        ):
            yield f"{server['name']}/{number}", loop, worker, http
    for scheduler in reading["schedulers"]:
        for number, loop in enumerate(scheduler["loops"]):
            yield f"{scheduler['name']}/{number}", loop, None, None


def loop_rows(was: Reading, now: Reading) -> Iterator[list[str]]:
    gone_s = now["time_s"] - was["time_s"]
    old = {one[0]: one[1:] for one in parts(was)}
    for name, loop, worker, http in parts(now):
        loop_was, worker_was, http_was = old.get(name, (loop, worker, http))
        stats, stats_was = loop["stats"], loop_was["stats"]
        turns = stats["turns"] - stats_was["turns"]
        enters = stats["enters"] - stats_was["enters"]
        used = stats["bufs_total"] - stats["bufs_free"]
        cells = [str(now["pid"]), name, span(loop["lag_s"])]
        cells += [rate(turns, gone_s), rate(enters, gone_s)]
        cells.append(short(worker["connections"] if worker else stats["transports_count"]))
        cells += request_cells(http, http_was, worker, worker_was, gone_s)
        cells += [short(stats["ready_count"]), share(used, stats["bufs_total"])]
        yield cells


def request_cells(
    http: Reading | None,
    http_was: Reading | None,
    worker: Reading | None,
    worker_was: Reading | None,
    gone_s: float,
) -> list[str]:
    """Requests a second, their 99th percentile, failures a second."""
    if http is None or http_was is None:
        if worker is None or worker_was is None:
            return ["-", "-", "-"]
        return ["-", "-", rate(worker["handler_errors"] - worker_was["handler_errors"], gone_s)]
    ended = http["ended"] - http_was["ended"]
    failed = http["failed"] - http_was["failed"]
    old = http_was["durations"] or [0] * len(http["durations"])
    durations = [one - two for one, two in zip(http["durations"], old, strict=True)]
    p99 = span(quantile(http["ends_s"], durations)) if ended else "-"
    return [rate(ended, gone_s), p99, rate(failed, gone_s)]


def scheduler_rows(was: Reading, now: Reading) -> Iterator[list[str]]:
    gone_s = now["time_s"] - was["time_s"]
    old = {one["name"]: one["stats"]["workers"] for one in was["schedulers"]}
    for scheduler in now["schedulers"]:
        workers = scheduler["stats"]["workers"]
        for number, (one, before) in enumerate(
            zip(workers, old.get(scheduler["name"], workers), strict=True)
        ):
            rates = [one[key] - before[key] for key in ("executed", "stolen", "parked")]
            yield [
                str(now["pid"]),
                f"{scheduler['name']}/{number}",
                *[rate(count, gone_s) for count in rates],
                *[short(one["queued"][lane]) for lane in LANES],
            ]


def totals(pairs: list[tuple[Reading, Reading]]) -> str:
    """A line on all of it."""
    sums = dict.fromkeys(("recv_bytes", "sent_bytes", "accepted", "zc_bytes", "enobufs"), 0.0)
    for was, now in pairs:
        gone_s = now["time_s"] - was["time_s"] or 1.0
        old = {one["name"]: one["stats"] for one in was["servers"]}
        for server in now["servers"]:
            stats = server["stats"]
            for key in sums:
                sums[key] += (stats[key] - old.get(server["name"], stats)[key]) / gone_s
    return (
        f"in {short(sums['recv_bytes'])}B/s  out {short(sums['sent_bytes'])}B/s  "
        f"zero-copy {short(sums['zc_bytes'])}B/s  accepted {short(sums['accepted'])}/s  "
        f"waits for buffers {short(sums['enobufs'])}/s"
    )


# ---- numbers ------------------------------------------------------------------------------------


def quantile(ends_s: list[float], counts: list[int]) -> float:
    """Within its bucket as if they were spread evenly."""
    rank, seen = PERCENT * sum(counts), 0
    for (low, high), count in zip(pairwise([0.0, *ends_s]), counts, strict=False):
        if count and seen + count >= rank:
            return low + (high - low) * (rank - seen) / count
        seen += count
    return ends_s[-1]


def short(number: float) -> str:
    """In five characters."""
    for unit in ("", "k", "M", "G", "T"):
        if abs(number) < 999.5:
            is_whole = unit == "" and (number >= 99.5 or number == int(number))
            return f"{number:.0f}" if is_whole else f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.0f}P"


def rate(count: float, gone_s: float) -> str:
    return short(count / gone_s) if gone_s > 0 else "-"


def span(seconds: float) -> str:
    """In six characters."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f}us"
    return f"{seconds * 1e3:.3g}ms" if seconds < 0.9995 else f"{seconds:.3g}s"


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f}%" if whole else "-"
