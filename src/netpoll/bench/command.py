"""What every command of `netpoll bench` does once, whatever its kind.

The options that are common to all; which arms can run here; the environment; the interleaved run;
the tables, the JSON file and the page; how it ends.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from netpoll.bench import guests, hdr, hosts
from netpoll.bench.arguments import list_of, number_in, one_of
from netpoll.bench.blocks import counted
from netpoll.bench.cores import choose_pinning
from netpoll.bench.document import document_of, write_whole
from netpoll.bench.environment import describe
from netpoll.bench.errors import UsageError
from netpoll.bench.kind import Kind, Terms
from netpoll.bench.records import Document, Facts
from netpoll.bench.rounds import Plan, run_plan
from netpoll.bench.watch import INTERRUPTED

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "EXIT_USAGE",
    "add_options",
    "duration_text",
    "file_name",
    "require_packages",
    "run_command",
]

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

QUICK_LIMIT_S = 50.0  # of a minute; the rest is for the start, the table and the report
REPORT_STEM = "netpoll-bench"
NEEDED = ("rich", "psutil", "plotly")
CPU_MAX = 4095


# ---- options ----------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser, kind: Kind) -> None:
    """The options of a kind's command: what is measured, who takes part, where the result goes."""
    kind.add_options(parser.add_argument_group("what is measured"))
    _add_arms(parser.add_argument_group("who takes part"), kind)
    _add_output(parser.add_argument_group("how often, and where the result goes"), kind)


def _add_arms(group: argparse._ArgumentGroup, kind: Kind) -> None:
    group.add_argument(
        kind.arms_option,
        dest="arms",
        type=list_of(one_of(kind.arms, kind.arm_noun), kind.arm_noun),
        metavar="A,B",
        help=f"default: {', '.join(kind.default_arms)}",
    )
    if kind.peers:
        group.add_argument(
            "--peers",
            action="store_true",
            help=f"also other {kind.peer_noun}, if installed: {', '.join(kind.peers)}",
        )
    if kind.takes_guests:
        guests.add_options(group, kind)
    if kind.takes_hosts:
        hosts.add_options(group)
    if kind.pinned:
        cpu = number_in(0, CPU_MAX)
        group.add_argument("--server-cpu", type=cpu, metavar="N", help="the core of the servers")
        group.add_argument("--load-cpu", type=cpu, metavar="N", help="the core of the load")


def _add_output(group: argparse._ArgumentGroup, kind: Kind) -> None:
    group.add_argument(
        "--rounds",
        type=number_in(1, 1000),
        metavar="N",
        help=f"default: {kind.rounds} (with --quick: {kind.quick_rounds})",
    )
    group.add_argument(
        "--quick", action="store_true", help="a first impression: ends within a minute"
    )
    group.set_defaults(quick_limit_s=QUICK_LIMIT_S)
    group.add_argument(
        "--json", type=Path, metavar="PATH", help=f"the result; default: {file_name(kind, 'json')}"
    )
    group.add_argument(
        "--html",
        type=Path,
        metavar="PATH",
        help=f"the page with charts; default: {file_name(kind, 'html')}",
    )
    if kind.has_latencies:
        group.add_argument(
            "--hdr", type=Path, metavar="PATH", help="the latencies as a log of HdrHistogram"
        )
    group.add_argument("--no-files", action="store_true", help="only the table")


def file_name(kind: Kind, suffix: str) -> Path:
    """Of the result, or of the page, where nothing else is asked for."""
    return Path(f"{REPORT_STEM}-{kind.name}.{suffix}")


# ---- before the run ---------------------------------------------------------------------------


def require_packages() -> None:
    """Raises UsageError when something of the extra `bench` is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the benchmark needs {' and '.join(missing)}: pip install 'netpoll[bench]'"
        )


def duration_text(seconds: float) -> str:
    """90 as "1 min 30 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _able(checked: dict[str, Facts], noun: str, console: Console) -> tuple[str, ...]:
    """Which arms can run; says who is skipped."""
    from rich.text import Text

    for name, facts in checked.items():
        if "unavailable" in facts:
            sentence = f"skipped: {name}: {facts['unavailable']}."
            console.print(Text(sentence, style="yellow"), soft_wrap=True)
    able = tuple(name for name, facts in checked.items() if "unavailable" not in facts)
    if not able:
        raise UsageError(f"none of the {noun}s can run here")
    return able


def _announce(kind: Kind, plan: Plan, console: Console) -> None:
    at_most = "at most " if plan.limit_s else ""
    console.print(
        f"{kind.size(plan)}, {counted(plan.rounds, 'round')}. "
        f"This takes {at_most}about {duration_text(plan.expected_s)}.",
        highlight=False,
    )


# ---- the command ------------------------------------------------------------------------------


def run_command(kind: Kind, options: argparse.Namespace) -> int:
    """Measures, shows and writes what the options ask for; returns the exit code. Raises UsageError
    or ValueError when they cannot be met."""
    with guests.admitted(kind, options) as names, _connected(kind, options):
        return _run(kind, options, names)


@contextmanager
def _connected(kind: Kind, options: argparse.Namespace) -> Iterator[None]:
    """The other machines that take part, if the kind takes any."""
    if not kind.takes_hosts:
        yield
        return
    with hosts.connected(options) as kind.hosts:
        try:
            yield
        finally:
            kind.hosts = hosts.HERE


def _run(kind: Kind, options: argparse.Namespace, guest_names: tuple[str, ...]) -> int:
    start_s = time.monotonic()
    require_packages()
    wants_log = kind.has_latencies and options.hdr
    if wants_log:
        hdr.require_library()
    from rich.console import Console

    from netpoll.bench.display import ProgressBar, show

    console = Console()
    asked = kind.chosen_arms(options) + guest_names
    cpus = (options.server_cpu, options.load_cpu) if kind.pinned else ()
    pinning = choose_pinning(*cpus)
    environment = describe(pinning)
    environment["pinning"]["sentence"] = kind.hosts.sentence(pinning)
    checked = kind.check(asked)
    able = _able(checked, kind.arm_noun, console)
    rounds = options.rounds or (kind.quick_rounds if options.quick else kind.rounds)
    limit_s = options.quick_limit_s - (time.monotonic() - start_s) if options.quick else None
    plan = kind.plan(options, Terms(able, pinning, rounds, limit_s))
    _announce(kind, plan, console)
    with ProgressBar(console, plan.count) as bar:
        run = run_plan(plan, kind.measuring, bar)
    document = document_of(kind, run, checked, environment, sys.argv[1:])
    show(console, document)
    if not options.no_files:
        _write(kind, document, options, console)
    if wants_log:
        _write_log(options.hdr, document, console)
    return _exit_code(kind, document)


def _write(kind: Kind, document: Document, options: argparse.Namespace, console: Console) -> None:
    """The two files. Raises UsageError when one cannot be written."""
    from netpoll.bench.page import page

    json_path = options.json or file_name(kind, "json")
    html_path = options.html or file_name(kind, "html")
    try:
        write_whole(json_path, json.dumps(document, indent=1) + "\n")
        write_whole(html_path, page(document))
    except OSError as error:
        raise UsageError(f"cannot write the result: {error}") from None
    console.print(f"result: {json_path}   page: {html_path}", highlight=False, soft_wrap=True)


def _write_log(path: Path, document: Document, console: Console) -> None:
    """The log of HdrHistogram. Raises UsageError when it cannot be written."""
    try:
        hdr.write_log(path, document)
    except OSError as error:
        raise UsageError(f"cannot write the latencies: {error}") from None
    console.print(f"latencies: {path}", highlight=False, soft_wrap=True)


def _exit_code(kind: Kind, document: Document) -> int:
    if document["stopped"] == INTERRUPTED:
        return EXIT_INTERRUPTED
    rows = document["rows"]
    failed = any(row["fault"] for row in rows) or not any(row["rounds"] for row in rows)
    return EXIT_FAILED if failed or kind.wrong(document) else EXIT_OK
