"""The terminal: a progress bar while it runs, tables at the end (rich)."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from netpoll.bench.document import kind_of
from netpoll.bench.echo import Step
from netpoll.bench.environment import sentences

WIDE_COLUMNS = 118  # below, the columns that are least asked for are left out

MODE_TITLES = {
    "protocol": "protocol",
    "streams": "streams",
    "sock": "sock",
    "udp": "datagrams",
    "tls": "TLS 1.3",
    "on_data": "netpoll.Server, on_data",
    "session": "netpoll.Server, session",
    "-": "no event loop",
}


class ProgressBar:
    """Shows steps. It draws only between measurements: a bar that moves takes CPU from them."""

    def __init__(self, console: Console, total: int):
        self.console = console
        self.group = ""
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[text]}"),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=total, text="")

    def __call__(self, step: Step) -> None:
        if not self.console.is_terminal and step.group != self.group:
            self.console.print(f"{step.group} …", highlight=False)
        self.group = step.group
        self.bar.update(self.task, completed=step.done, description=step.group, text=step.text)
        self.bar.refresh()

    def __enter__(self) -> ProgressBar:
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, thousands apart: 4.62, 14.0, 282, 2 654."""
    if value is None:
        return "–"
    if value >= 99.95:
        return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    whole = len(f"{value:.1f}".partition(".")[0])
    return f"{value:.{max(digits - whole, 0)}f}"


def rate(value: float) -> str:
    """Per second, short: 912, 6.01k, 216k, 1.20M."""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return number(value / factor) + unit
    return number(value)


def ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _tinted(value: float | None, suffix: str = "") -> Text:
    if value is None:
        return Text("–", style="dim")
    style = "green" if value < 0.98 else "red" if value > 1.02 else ""
    return Text(ratio(value) + suffix, style=style)


def near_floor_ratio(row: dict) -> tuple[float | None, str]:
    """The ratio to the floor of the arm's own kernel interface, else to the other; and its letter
    ("u" for io_uring, "e" for epoll)."""
    near = row["near_floor"]
    for interface in (near, "epoll" if near == "uring" else "uring"):
        if (value := row[f"cpu_vs_floor_{interface}"]) is not None:
            return value, interface[0]
    return None, ""


def _arm_text(row: dict) -> Text:
    style = "bold" if row["arm"].startswith("netpoll") else "dim" if row["mode"] == "-" else ""
    text = Text(" " + row["arm"], style=style)
    if row.get("disturbed_rounds"):
        text.append(" !", style="yellow")
    return text


def _echo_cells(row: dict, wide: bool, with_calls: bool) -> list[str | Text]:
    latency, cpu = row["latency_us"], row["cpu_us"]
    floor, letter = near_floor_ratio(row)
    calls = row["syscalls_per_request"] or {}
    cells: dict[str, str | Text] = {
        "req/s": rate(row["requests_per_s"]["median"]),
        "MB/s": number(row["mb_per_s"]["median"]),
        "p50": number(latency["p50"]),
        "p99": number(latency["p99"]),
        "p99.9": number(latency["p99.9"]),
        "CPU": Text(number(cpu["median"]), style="bold"),
        "min": number(cpu["min"]),
        "±%": f"{cpu['spread_percent']:.0f}",
        "user": number(row["cpu_user_us"]),
        "sys": number(row["cpu_system_us"]),
        "×aio": _tinted(row["cpu_vs_asyncio"]),
        "×uvl": _tinted(row["cpu_vs_uvloop"]),
        "×floor": _tinted(floor, " " + letter),
        "calls": number(calls.get("all")),
        "enters": number(calls.get("io_uring_enter")),
    }
    return [_arm_text(row)] + [cells[name] for name in _columns(wide, with_calls)]


def _columns(wide: bool, with_calls: bool) -> list[str]:
    if wide:
        names = ["req/s", "MB/s", "p50", "p99", "p99.9", "CPU", "min", "±%", "user", "sys"]
        names += ["×aio", "×uvl", "×floor"]
    else:
        names = ["req/s", "MB/s", "p50", "p99", "CPU", "±%", "×aio", "×floor"]
    return names + (["calls", "enters"] if with_calls else [])


def _group(rows: Iterable[dict]) -> dict[str, list[dict]]:
    """By mode, in the order of appearance; the cheapest first, failures last."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["mode"], []).append(row)
    for group in groups.values():
        group.sort(key=lambda row: row["cpu_us"]["median"] if row["rounds"] else float("inf"))
    return groups


def _new_table(head: str, columns: Iterable[str], gap: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False)
    table.add_column(head, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def counted(count: int, what: str) -> str:
    """1 round, 3 rounds."""
    return f"{count} {what}" + ("" if count == 1 else "s")


def echo_table(document: dict, cell: str, width: int) -> Table:
    """One cell: the arms, mode by mode."""
    rows = [row for row in document["rows"] if row["cell"] == cell]
    wide = width >= WIDE_COLUMNS
    with_calls = any(row.get("syscalls_per_request") for row in rows)
    table = _new_table("arm", _columns(wide, with_calls), gap=1 if wide else 0)
    for mode, group in _group(rows).items():
        table.add_row(Text(MODE_TITLES[mode], style="cyan"))
        for row in group:
            if row["rounds"]:
                table.add_row(*_echo_cells(row, wide, with_calls))
            else:
                table.add_row(Text(" " + row["arm"]), "–" if not row["fault"] else "failed")
    return table


LEGEND = (
    "CPU: server CPU per request, µs, user and system: the median of the rounds, their minimum, "
    "and ± half their range in per cent. p50, p99, p99.9: latency, µs. ×aio, ×uvl, ×floor: "
    "CPU against asyncio and uvloop in the same mode and against the floor in C (u: io_uring, "
    "e: epoll), medians of the ratios round by round. MB/s: each byte counted once, though it goes "
    "both ways."
)


def malloc_note(document: dict) -> str:
    """Which servers ran with which glibc settings; empty when none did."""
    ran = {name: facts for name, facts in document["arms"].items() if not facts["skipped"]}
    tuned = [name for name, facts in ran.items() if facts["malloc"]]
    if not tuned:
        return ""
    who = "Every server" if len(tuned) == len(ran) else ", ".join(tuned)
    settings = " ".join(f"{k}={v}" for k, v in ran[tuned[0]]["malloc"].items())
    return (
        f"{who} ran with {settings}: with glibc's defaults 256 KiB reads, such as asyncio's, go to "
        "mmap and back, and asyncio would look up to four times slower."
    )


def echo_footnotes(document: dict, narrow: bool) -> list[str]:
    """What the tables do not say by themselves."""
    notes = [LEGEND]
    if narrow:
        notes.append("More columns (p99.9, min, user, sys, ×uvl) fit into a wider terminal.")
    if note := malloc_note(document):
        notes.append(note)
    if any(row.get("disturbed_rounds") for row in document["rows"]):
        notes.append("! something else ran on the server's core for a part of the time.")
    if any(row["mode"] == "-" for row in document["rows"]):
        notes.append("What has no event loop is set against asyncio's first mode here.")
    if document["settings"]["syscall_counter"]:
        notes.append(
            "calls, enters: system calls and io_uring_enter per request, counted with "
            f"{document['settings']['syscall_counter']} in runs of their own."
        )
    return notes


def problems(document: dict) -> list[str]:
    """What was skipped, what failed, and why the run is not complete; one sentence each."""
    lines = [
        f"skipped: {name}: {facts['skipped']}."
        for name, facts in document["arms"].items()
        if facts["skipped"]
    ]
    for row in document["rows"]:
        if row["fault"]:
            what = row["arm"] if row["mode"] == "-" else f"{row['arm']} {row['mode']}"
            where = f" at {row['cell']}" if "cell" in row else ""
            lines.append(f"failed: {what}{where}: {row['fault']}.")
    lines = list(dict.fromkeys(lines))
    if document.get("stopped"):
        lines.append(f"not complete: {document['stopped']}; what was measured is above.")
    return lines


def _fact_lines(document: dict) -> list[Text]:
    return [Text(line, style="dim") for line in sentences(document["environment"])]


def _versus(value: float, best: float, reference: float | None) -> Text:
    """A figure with its ratio to the control; the best of its line stands out."""
    text = Text(number(value), style="bold green" if value == best else "")
    if reference is not None and reference != 1.0:
        text.append(f" {reference:.2f}", style="dim")
    return text


def micro_table(document: dict, versus: str = "vs_asyncio") -> Table:
    """A line per operation, a column per arm; `versus` names the ratio to show."""
    rows = document["rows"]
    arms = list(dict.fromkeys(row["arm"] for row in rows if row["rounds"]))
    table = _new_table("operation", arms)
    for workload in dict.fromkeys(row["workload"] for row in rows):
        line = {r["arm"]: r for r in rows if r["workload"] == workload and r["rounds"]}
        if not line:
            continue
        best = min(row["ns"]["median"] for row in line.values())
        title = next(iter(line.values()))["title"]
        table.add_row(
            title,
            *(
                _versus(line[arm]["ns"]["median"], best, line[arm][versus]) if arm in line else "–"
                for arm in arms
            ),
        )
    return table


def show_micro(console: Console, document: dict) -> None:
    """The table of a micro document."""
    rounds = counted(document["settings"]["rounds"], "round")
    notes = [
        (
            f"{rounds}, arms interleaved; the median. "
            "Process CPU time, so that neighbours on the core do not count."
        )
    ]
    if document["settings"]["scale"] != 1.0:
        notes.append(f"{document['settings']['scale']:g} of the usual number of operations.")
    console.print(
        Group(
            Text("\n ns of CPU per operation (and × asyncio)", style="bold"),
            micro_table(document),
            *_fact_lines(document),
            *(Text(note, style="dim") for note in notes),
        )
    )


def show_files(console: Console, document: dict) -> None:
    """The table of a files document."""
    rounds = counted(document["settings"]["rounds"], "round")
    note = (
        f"{rounds}, arms interleaved; the median. CPU time of the process, user and system, all "
        f"threads; files in the page cache, in {document['settings']['directory']}."
    )
    console.print(
        Group(
            Text("\n ns of CPU per operation (and × aiofiles)", style="bold"),
            micro_table(document, "vs_control"),
            *_fact_lines(document),
            Text(note, style="dim"),
        )
    )


def show_relay(console: Console, document: dict) -> None:
    """The table of an accept, proxy or broadcast run."""
    rounds = counted(document["settings"]["rounds"], "round")
    note = f"{rounds}, arms interleaved; the median. CPU time of the server, user and system."
    table = _new_table("arm", ("ns", "min", "±%", "×uvl"))
    measured = [row for row in document["rows"] if row["rounds"]]
    for row in sorted(measured, key=lambda row: row["ns"]["median"]):
        spread = row["ns"]
        table.add_row(
            _arm_text(row),
            Text(number(spread["median"]), style="bold"),
            number(spread["min"]),
            f"{spread['spread_percent']:.0f}",
            _tinted(row["vs_control"]),
        )
    console.print(
        Group(
            Text(f"\n {document['rows'][0]['title']} (and × uvloop)", style="bold"),
            table,
            *_fact_lines(document),
            Text(note, style="dim"),
        )
    )


def sched_table(rows: list[dict], works: list[str]) -> Table:
    """A line per arm, a column per operation; a ratio is to the column's control."""
    rows = [row for row in rows if row["workload"] in works]
    best = {
        work: min(row["ns"]["median"] for row in rows if row["workload"] == work) for work in works
    }
    table = _new_table("arm", works)
    for arm in dict.fromkeys(row["arm"] for row in rows):
        line = {row["workload"]: row for row in rows if row["arm"] == arm}
        cells = [
            _versus(line[work]["ns"]["median"], best[work], line[work]["vs_control"])
            if work in line
            else "–"
            for work in works
        ]
        table.add_row(_arm_text(rows[0] | {"arm": arm}), *cells)
    return table


def show_sched(console: Console, document: dict) -> None:
    """The table of a sched document."""
    measured = [row for row in document["rows"] if row["rounds"]]
    works = list(dict.fromkeys(row["workload"] for row in measured))
    rounds = counted(document["settings"]["rounds"], "round")
    notes = [f"{rounds}, arms interleaved; the median, and its ratio to the arm named here:"]
    notes += [
        f"{name}: {title}, × {control}"
        for name, title, control in dict.fromkeys(
            (row["workload"], row["title"], row["control"]) for row in document["rows"]
        )
    ]
    console.print(
        Group(
            Text("\n Tasks: ns per operation", style="bold"),
            *(sched_table(measured, works[i : i + 4]) for i in range(0, len(works), 4)),
            *_fact_lines(document),
            *(Text(note, style="dim") for note in notes),
        )
    )


def show_idle(console: Console, document: dict) -> None:
    """The table of an idle document."""
    settings = document["settings"]
    title = f"User memory per idle connection, {settings['connections']} connections"
    table = _new_table("arm", ("bytes", "min", "±%", "×aio"))
    measured = [row for row in document["rows"] if row["rounds"]]
    for mode in dict.fromkeys(row["mode"] for row in measured):
        table.add_row(Text(MODE_TITLES[mode], style="cyan"))
        group = [row for row in measured if row["mode"] == mode]
        for row in sorted(group, key=lambda row: row["bytes"]["median"]):
            spread = row["bytes"]
            table.add_row(
                _arm_text(row),
                Text(number(spread["median"]), style="bold"),
                number(spread["min"]),
                f"{spread['spread_percent']:.0f}",
                _tinted(row["vs_asyncio"]),
            )
    note = (
        "Private memory of the server process, after one message on each connection, less what it "
        f"had with {settings['seasoned']}; {counted(settings['rounds'], 'round')}, the median."
    )
    heading = Text(f"\n {title}", style="bold")
    console.print(Group(heading, table, *_fact_lines(document), Text(note, style="dim")))


def show_echo(console: Console, document: dict) -> None:
    """The tables of an echo document, with what one has to know to read them."""
    width = console.width
    cells = list(dict.fromkeys(row["cell"] for row in document["rows"]))
    parts: list[RenderableType] = [Text("")]
    for cell in cells:
        measured = any(row["rounds"] for row in document["rows"] if row["cell"] == cell)
        if measured:
            parts.append(Text(f" {cell}  (connections × message)", style="bold"))
            parts.append(echo_table(document, cell, width))
    parts += _fact_lines(document)
    settings = document["settings"]
    parts.append(
        Text(
            f"{counted(settings['rounds'], 'round')}, arms interleaved, windows of "
            f"{settings['duration_s']:.3g} s after {settings['warmup_s']:.3g} s of warm-up.",
            style="dim",
        )
    )
    notes = echo_footnotes(document, width < WIDE_COLUMNS)
    parts.append(Padding(Group(*(Text(note, style="dim") for note in notes)), (1, 0, 0, 0)))
    console.print(Group(*parts))


def show(console: Console, document: dict) -> None:
    """The tables of any document, then what was skipped and what failed."""
    shows = {
        "echo": show_echo,
        "micro": show_micro,
        "idle": show_idle,
        "files": show_files,
        "relay": show_relay,
        "sched": show_sched,
    }
    shows[kind_of(document)](console, document)
    show_problems(console, document)


def show_problems(console: Console, document: dict) -> None:
    for line in problems(document):
        console.print(Text(line, style="yellow"))
