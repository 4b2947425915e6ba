"""``python -m netpoll bench``: the commands, their options, and how they end.

Exit codes: 0 everything asked for was measured (what is not installed is skipped, and said);
1 something failed or nothing could be measured; 2 wrong usage; 130 interrupted (what was measured
until then is shown and written all the same).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from netpoll.bench.arms import ARMS, DEFAULT_ARMS, LOOP_MODES, PEER_ARMS
from netpoll.bench.cells import (
    CONNECTIONS,
    SCENARIOS,
    SIZES_BYTES,
    Cell,
    grid,
    parse_cell,
    parse_connections,
    parse_size,
)

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

QUICK_LIMIT_S = 50.0  # of a minute; the rest is for the start, the table and the report
QUICK_ROUNDS = 3
REPORT_STEM = "netpoll-bench"
NEEDED = ("rich", "psutil", "plotly")


class UsageError(Exception):
    """Options that make no sense together; `str()` is the sentence."""


def _list_of(parse, what: str):
    """An argparse type for "a,b,c"."""

    def convert(text: str) -> tuple:
        try:
            items = tuple(parse(part.strip()) for part in text.split(",") if part.strip())
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if not items:
            raise argparse.ArgumentTypeError(f"at least one {what} is needed")
        return tuple(dict.fromkeys(items))

    return convert


def _one_of(names, what: str):
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"there is no {what} {text!r}: choose from {', '.join(names)}")
        return text

    return parse


def _number(kind, low, high, unit: str = ""):
    """An argparse type for a number within bounds."""

    def convert(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a number from {low:g} to {high:g}{unit}"
            )
        return value

    return convert


def _add_common(parser: argparse.ArgumentParser, kind: str) -> None:
    arms = _list_of(_one_of(ARMS, "arm"), "arm")
    loops = "" if kind == "echo" else " (event loops only)"
    parser.add_argument(
        "--arms",
        type=arms,
        metavar="A,B",
        help=f"who takes part{loops}; default: {', '.join(default_arms(kind))}",
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help=f"also other event loops, if installed: {', '.join(PEER_ARMS)}",
    )
    parser.add_argument("--rounds", type=_number(int, 1, 1000), metavar="N", help="default: 3")
    parser.add_argument(
        "--quick", action="store_true", help="a first impression: ends within a minute"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="PATH",
        help=f"where the result goes; default: {REPORT_STEM}-{kind}.json",
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="PATH",
        help=f"where the page with charts goes; default: {REPORT_STEM}-{kind}.html",
    )
    parser.add_argument("--no-files", action="store_true", help="only the table")
    parser.add_argument(
        "--server-cpu", type=_number(int, 0, 4095), metavar="N", help="the core of the servers"
    )
    parser.add_argument(
        "--load-cpu", type=_number(int, 0, 4095), metavar="N", help="the core of the load"
    )


def default_arms(kind: str) -> tuple[str, ...]:
    """All but the peers; for micro and idle only what has an event loop."""
    if kind == "echo":
        return DEFAULT_ARMS
    return tuple(name for name in DEFAULT_ARMS if ARMS[name].kind == "loop")


def _add_echo(subparsers) -> None:
    parser = subparsers.add_parser(
        "echo",
        help="servers under load: requests per second, latency, server CPU per request",
        description="Measures echo servers: each arm a process of its own on one core, the load "
        "generator on another, arms interleaved over several rounds.",
        epilog="Sizes are written 64, 1KiB, 64KiB, 1MiB. Scenarios: "
        + "; ".join(f"{name}: {', '.join(map(str, cells))}" for name, cells in SCENARIOS.items()),
    )
    _add_common(parser, "echo")
    parser.add_argument(
        "--modes",
        type=_list_of(_one_of(LOOP_MODES, "mode"), "mode"),
        default=LOOP_MODES,
        metavar="M,N",
        help=f"of the event loops; default: {','.join(LOOP_MODES)}",
    )
    parser.add_argument(
        "--scenario",
        choices=SCENARIOS,
        help="a named set of cells; default: matrix (with --quick: quick)",
    )
    parser.add_argument(
        "--cells",
        type=_list_of(parse_cell, "cell"),
        metavar="CxS,...",
        help="connections x message size, such as 64x64,16x64KiB",
    )
    parser.add_argument(
        "--sizes",
        type=_list_of(parse_size, "size"),
        metavar="S,...",
        help="message sizes; with --connections a grid",
    )
    parser.add_argument(
        "--connections", type=_list_of(parse_connections, "number"), metavar="N,..."
    )
    parser.add_argument(
        "--duration-s",
        type=_number(float, 0.01, 3600, " seconds"),
        metavar="S",
        help="length of a measured window; default: 1 (with --quick: what fits)",
    )
    parser.add_argument(
        "--warmup-s", type=_number(float, 0, 60, " seconds"), metavar="S", help="default: 0.2"
    )
    parser.add_argument(
        "--malloc",
        choices=("asyncio", "all", "none"),
        default="asyncio",
        help="which arms run with the glibc settings that asyncio needs to look its best",
    )
    parser.add_argument(
        "--syscalls",
        action="store_true",
        help="also count system calls per request (perf or strace, in runs of their own)",
    )
    parser.set_defaults(run=run_echo)


def add_parser(subparsers) -> None:
    """Mounts ``bench`` on the subparsers of ``python -m netpoll``; the parsed arguments then carry
    `run`, a function of themselves that returns the exit code."""
    parser = subparsers.add_parser("bench", help="benchmarks: servers, loop primitives, memory")
    _add_commands(parser)


def _add_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(title="benchmarks", metavar="COMMAND", required=True)
    _add_echo(commands)


def chosen_arms(options: argparse.Namespace, kind: str) -> tuple[str, ...]:
    """Raises UsageError for an arm that has no place in this benchmark."""
    arms = options.arms or default_arms(kind)
    if options.peers:
        arms += tuple(name for name in PEER_ARMS if name not in arms)
    if kind != "echo":
        for name in arms:
            if ARMS[name].kind != "loop":
                raise UsageError(f"{name} is not an event loop: it has no part in bench {kind}")
    return arms


def chosen_cells(options: argparse.Namespace) -> tuple[Cell, ...]:
    """Raises UsageError when cells are given in two ways at once."""
    by_grid = options.sizes or options.connections
    ways = [
        way
        for way, given in (
            ("--scenario", options.scenario),
            ("--cells", options.cells),
            ("--sizes/--connections", by_grid),
        )
        if given
    ]
    if len(ways) > 1:
        raise UsageError(f"{' and '.join(ways)} both say what to measure: give one of them")
    if options.cells:
        return options.cells
    if by_grid:
        return grid(options.sizes or SIZES_BYTES, options.connections or CONNECTIONS)
    return SCENARIOS[options.scenario or ("quick" if options.quick else "matrix")]


def require_packages() -> None:
    """Raises UsageError when something of the extra `bench` is missing."""
    from importlib.util import find_spec

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the benchmark needs {' and '.join(missing)}: pip install 'netpoll[bench]'"
        )


def duration_text(seconds: float) -> str:
    """90 as "1 min 30 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _echo_plan(options: argparse.Namespace, arms: tuple[str, ...], start: float):
    """The plan for the arms that can run. With --quick the windows shrink to fit the minute."""
    from dataclasses import replace

    from netpoll.bench.echo import SHORTEST_WINDOW_S, EchoPlan
    from netpoll.bench.process import choose_pinning

    plan = EchoPlan(
        arms=arms,
        modes=options.modes,
        cells=chosen_cells(options),
        pinning=choose_pinning(options.server_cpu, options.load_cpu),
        rounds=options.rounds or 3,
        duration_s=options.duration_s or 1.0,
        warmup_s=0.2 if options.warmup_s is None else options.warmup_s,
        malloc=options.malloc,
        syscalls=options.syscalls,
    )
    if not options.quick:
        return plan
    limit_s = QUICK_LIMIT_S - (time.monotonic() - start)
    warmup_s = 0.08 if options.warmup_s is None else options.warmup_s
    plan = replace(plan, fresh=False, limit_s=limit_s, stall_s=2.0, warmup_s=warmup_s)
    if options.duration_s is None:
        zero = replace(plan, duration_s=0.0, limit_s=None)
        fits_s = (limit_s * 0.9 - zero.expected_s) / zero.count
        plan = replace(plan, duration_s=min(max(fits_s, SHORTEST_WINDOW_S), 1.0))
    return plan


def _check(names: tuple[str, ...], console) -> tuple[dict[str, dict], tuple[str, ...]]:
    """What the arms are here, and which of them can run; says who is skipped."""
    from netpoll.bench.process import check_arms

    checked = check_arms(ARMS[name] for name in names)
    able = tuple(name for name in names if "unavailable" not in checked[name])
    for name in names:
        if name not in able:
            console.print(f"[yellow]skipped: {name}: {checked[name]['unavailable']}.[/]")
    if not able:
        raise UsageError("none of the arms can run here")
    return checked, able


def _write(document: dict, options: argparse.Namespace, console) -> None:
    """The two files, unless they are not wanted."""
    from netpoll.bench.document import write_json

    if options.no_files:
        return
    kind = document["schema"].split(".")[-1].split("/")[0]
    json_path = options.json or Path(f"{REPORT_STEM}-{kind}.json")
    try:
        write_json(document, json_path)
    except OSError as error:
        raise UsageError(f"cannot write the result: {error}") from None
    console.print(f"result: {json_path}", highlight=False)


def run_echo(options: argparse.Namespace) -> int:
    """``bench echo``; returns the exit code."""
    start = time.monotonic()
    require_packages()
    from rich.console import Console

    from netpoll.bench import display
    from netpoll.bench.document import echo_document
    from netpoll.bench.echo import EchoRunner
    from netpoll.bench.environment import describe

    console = Console()
    arms = chosen_arms(options, "echo")
    chosen_cells(options)
    checked, able = _check(arms, console)
    plan = _echo_plan(options, able, start)
    environment = describe(plan.pinning)
    at_most = "at most " if plan.limit_s else ""
    console.print(
        f"{plan.count} measurements: {len(plan.entries)} servers, {len(plan.cells)} cells, "
        f"{plan.rounds} rounds. This takes {at_most}about {duration_text(plan.expected_s)}.",
        highlight=False,
    )
    with display.ProgressBar(console, plan.count) as bar:
        run = EchoRunner(plan, bar).run()
    document = echo_document(run, checked, environment, sys.argv[1:])
    display.show_echo(console, document)
    display.show_problems(console, document)
    _write(document, options, console)
    if run.stopped == "interrupted":
        return EXIT_INTERRUPTED
    return EXIT_FAILED if run.faults or not run.samples else EXIT_OK


def run(options: argparse.Namespace) -> int:
    """Runs a parsed command; errors become one sentence on standard error."""
    try:
        return options.run(options)
    except (UsageError, ValueError) as error:
        print(f"netpoll bench: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("netpoll bench: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads any more; the interpreter must not complain at its end
        return EXIT_FAILED


def main(argv: list[str] | None = None) -> int:
    """``python -m netpoll.bench``; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="netpoll bench", description="Benchmarks of netpoll against its peers and its floor."
    )
    _add_commands(parser)
    return run(parser.parse_args(argv))
