"""The command line: `netpoll probe`, `serve`, `top`, `trace` and `bench`.

`probe` and `top` need nothing beyond netpoll; with `rich` installed they draw. `bench` belongs to
netpoll.bench and comes with the extra of that name. `serve` is in netpoll._serve; `top` and
`trace` are in netpoll._telemetry.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from netpoll._serve import command as serve_command
from netpoll._telemetry import top, trace
from netpoll.probe import ProbeResult, probe

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["main"]

Rows = list[tuple[str, str, str]]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the process's exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    # Everything behind these, --help included, is for their own parsers.
    if args[:1] == ["bench"]:
        return _bench(args[1:])
    if args[:1] == ["serve"]:
        return serve_command.main(args[1:])
    if args[:1] == ["top"]:
        return top.main(args[1:])
    if args[:1] == ["trace"]:
        return trace.main(args[1:])
    parser = _parser()
    options = parser.parse_args(args)
    if options.command == "probe":
        return _probe(as_json=options.json)
    parser.print_help()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m netpoll",
        description="netpoll: an asyncio event loop on io_uring, or on epoll where io_uring is "
        "not available.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    command = commands.add_parser(
        "probe",
        help="what this machine offers, and which backend 'auto' takes and why",
        description="Asks the kernel for everything netpoll can use, by trying it.",
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")
    commands.add_parser("serve", help="serve an application: serve module:app (serve --help)")
    commands.add_parser("top", help="what a running program does: top PID (top --help)")
    commands.add_parser("trace", help="what the kernel does with its rings (trace --help)")
    commands.add_parser("bench", help="measure servers against each other (bench --help)")
    return parser


def _bench(args: list[str]) -> int:
    try:
        from netpoll.bench.cli import main as bench_main
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.split(".")[0] == "netpoll":
            raise
        print(
            f"netpoll: 'bench' needs the package {exc.name!r}, which is not installed; "
            "'pip install \"netpoll[bench]\"' brings it.",
            file=sys.stderr,
        )
        return 1
    return bench_main(args)


def _probe(*, as_json: bool) -> int:
    result = probe()
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return 0
    tables = {"netpoll probe": _facts(result), "features": _features(result)}
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        _print_plain(tables)
    else:
        _print_rich(tables, Console())
    return 0


def _facts(result: ProbeResult) -> Rows:
    huge = result.hugepages
    if huge.total_count is None:
        huge_words = "none of 2 MiB"
    else:
        huge_words = f"{huge.free_count} of {huge.total_count} free ({huge.page_bytes >> 20} MiB)"
    available = "yes" if result.uring_available else "no"
    return [
        ("kernel", "", f"Linux {result.kernel}"),
        ("python", "", result.python),
        ("liburing", "", f"{result.liburing} (linked statically)"),
        ("io_uring", available, result.uring_reason),
        ("auto takes", result.backend, result.backend_reason),
        ("huge pages", "", f"{huge_words}; transparent: {huge.transparent}"),
        ("lockable memory", "", _memlock(result)),
        ("seccomp", "", result.seccomp),
    ]


def _memlock(result: ProbeResult) -> str:
    def words(value: int | None) -> str:
        return "unlimited" if value is None else f"{value // 1024} KiB"

    soft, hard = words(result.memlock_soft_bytes), words(result.memlock_hard_bytes)
    return soft if soft == hard else f"{soft} (may be raised to {hard})"


def _features(result: ProbeResult) -> Rows:
    return [(f.title, "yes" if f.available else "no", f.detail) for f in result.features]


def _print_plain(tables: dict[str, Rows]) -> None:
    for title, rows in tables.items():
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        print(title)
        for name, verdict, detail in rows:
            print(f"  {name:{widths[0]}}  {verdict:{widths[1]}}  {detail}".rstrip())


def _print_rich(tables: dict[str, Rows], console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    colours = {"yes": "green", "no": "yellow"}
    for title, rows in tables.items():
        table = Table(title=title, title_justify="left", show_header=False, box=box.SIMPLE_HEAD)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, verdict, detail in rows:
            table.add_row(Text(name), Text(verdict, colours.get(verdict, "bold")), Text(detail))
        console.print(table)
