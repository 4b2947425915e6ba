"""``python -m netpoll bench``: the commands, their options, and how they end.

Exit codes: 0 everything asked for was measured (what is not installed is skipped, and said);
1 something failed or nothing could be measured; 2 wrong usage; 130 interrupted (what was measured
until then is shown and written all the same).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from netpoll.bench import tls, zerocopy
from netpoll.bench.arms import (
    ARMS,
    DEFAULT_ARMS,
    ECHO_MODES,
    LONE_MODES,
    LOOP_MODES,
    PEER_ARMS,
    SERVER_MODES,
    TLS_MODE,
    UDP_MODE,
)
from netpoll.bench.cells import (
    CONNECTIONS,
    MAX_DATAGRAM_BYTES,
    SCENARIOS,
    SIZES_BYTES,
    Cell,
    entries,
    grid,
    parse_cell,
    parse_connections,
    parse_size,
)
from netpoll.bench.files import FILE_ARMS, FILE_WORKS
from netpoll.bench.primitives import WORKLOADS
from netpoll.bench.watch import INTERRUPTED

Subparsers = argparse._SubParsersAction  # argparse has no public name for it

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
    arms = _list_of(_one_of(FILE_ARMS if kind == "files" else ARMS, "arm"), "arm")
    parser.add_argument(
        "--arms",
        type=arms,
        metavar="A,B",
        help=f"who takes part; default: {', '.join(default_arms(kind))}",
    )
    if kind != "files":
        parser.add_argument(
            "--peers",
            action="store_true",
            help=f"also other event loops, if installed: {', '.join(PEER_ARMS)}",
        )
    _add_output(parser, kind)
    parser.add_argument(
        "--server-cpu", type=_number(int, 0, 4095), metavar="N", help="the core of the servers"
    )
    parser.add_argument(
        "--load-cpu", type=_number(int, 0, 4095), metavar="N", help="the core of the load"
    )


def _add_output(parser: argparse.ArgumentParser, kind: str) -> None:
    """How often, and where the result goes."""
    rounds = 5 if kind in ("micro", "files", "sched") else 3
    parser.add_argument(
        "--rounds", type=_number(int, 1, 1000), metavar="N", help=f"default: {rounds}"
    )
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


def default_arms(kind: str) -> tuple[str, ...]:
    """All but the peers; for micro the event loops; for idle those, servers and the floors."""
    if kind == "files":
        return tuple(FILE_ARMS)
    kinds = {
        "echo": ("loop", "server", "stdlib", "floor"),
        "micro": ("loop",),
        "idle": ("loop", "server", "floor"),
        "relay": ("loop", "server"),
    }
    return tuple(name for name in DEFAULT_ARMS if ARMS[name].kind in kinds[kind])


def _add_echo(subparsers: Subparsers) -> None:
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
        type=_list_of(_one_of(ECHO_MODES, "mode"), "mode"),
        metavar="M,N",
        help=f"of event loops and of netpoll.Server; default: "
        f"{','.join(LOOP_MODES + SERVER_MODES)}, and each of "
        f"{', '.join(LONE_MODES)} alone, with the scenario of its name",
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
        choices=("all", "asyncio", "none"),
        default="all",
        help="who runs with glibc settings that keep large reads off mmap; default: all",
    )
    parser.add_argument(
        "--syscalls",
        action="store_true",
        help="also count system calls per request (perf or strace, in runs of their own)",
    )
    parser.set_defaults(run=run_echo)


def _add_micro(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "micro",
        help="loop primitives: call_soon, timers, sleep(0), futures, gather; ns per operation",
        description="Measures what a loop does all day, each loop in a process of its own, rounds "
        "interleaved.",
    )
    _add_common(parser, "micro")
    parser.add_argument(
        "--workloads",
        type=_list_of(_one_of(WORKLOADS, "workload"), "workload"),
        default=tuple(WORKLOADS),
        metavar="A,B",
        help=f"default: all of {', '.join(WORKLOADS)}",
    )
    parser.add_argument(
        "--scale",
        type=_number(float, 0.001, 1000),
        default=1.0,
        metavar="F",
        help="times the usual number of operations",
    )
    parser.set_defaults(run=run_micro)


def _add_sched(subparsers: Subparsers) -> None:
    from netpoll.bench.sched import ARMS as SCHED_ARMS
    from netpoll.bench.schedworks import WORKS

    parser = subparsers.add_parser(
        "sched",
        help="the scheduler: post, spawn, parallel and skewed work, priorities",
        description="Measures tasks: what queueing one costs, what priorities and stealing buy; "
        "against threads, asyncio and uvloop.",
    )
    parser.add_argument(
        "--arms",
        type=_list_of(_one_of(SCHED_ARMS, "arm"), "arm"),
        default=SCHED_ARMS,
        metavar="A,B",
        help=f"who takes part; default: all of {', '.join(SCHED_ARMS)}",
    )
    parser.add_argument(
        "--works",
        type=_list_of(_one_of(WORKS, "workload"), "workload"),
        default=tuple(WORKS),
        metavar="A,B",
        help=f"default: all of {', '.join(WORKS)}",
    )
    _add_output(parser, "sched")
    parser.add_argument(
        "--scale",
        type=_number(float, 0.001, 1000),
        default=1.0,
        metavar="F",
        help="times the usual number of operations",
    )
    parser.set_defaults(run=run_sched, server_cpu=None, load_cpu=None)


def _add_idle(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "idle",
        help="memory: what ten thousand idle connections cost",
        description="Measures the user memory of a server per connection that is open and idle.",
    )
    _add_common(parser, "idle")
    parser.add_argument(
        "--modes",
        type=_list_of(_one_of(LOOP_MODES + SERVER_MODES, "mode"), "mode"),
        default=("protocol", "on_data"),
        metavar="M,N",
        help=f"of {','.join(LOOP_MODES + SERVER_MODES)}; default: protocol,on_data",
    )
    parser.add_argument("--connections", type=_number(int, 1, 25_000), default=10_000, metavar="N")
    parser.add_argument(
        "--malloc",
        choices=("all", "asyncio", "none"),
        default="none",
        help="as in bench echo; default: none",
    )
    parser.set_defaults(run=run_idle)


def _add_relay(subparsers: Subparsers) -> None:
    from netpoll.bench.clirelay import RELAYS, run_relay_command

    for work, title in RELAYS.items():
        parser = subparsers.add_parser(work, help=f"server CPU: {title}", description=title)
        _add_common(parser, "relay")
        parser.set_defaults(run=run_relay_command, work=work)


def _add_files(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "files",
        help="reading files: netpoll's, aiofiles, plain system calls; ns per operation",
        description="Measures what reading files costs in CPU, each arm in a process of its own, "
        "rounds interleaved. The files are in the page cache.",
    )
    _add_common(parser, "files")
    parser.add_argument(
        "--works",
        type=_list_of(_one_of(FILE_WORKS, "work"), "work"),
        default=tuple(FILE_WORKS),
        metavar="A,B",
        help=f"default: all of {', '.join(FILE_WORKS)}",
    )
    parser.add_argument(
        "--scale",
        type=_number(float, 0.001, 1000),
        default=1.0,
        metavar="F",
        help="times the usual number of operations",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir()),
        metavar="PATH",
        help="where the files are made; default: the directory for temporary files",
    )
    parser.set_defaults(run=run_files)


def _add_zerocopy(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "zerocopy",
        help="what a sent byte costs, copied and not copied, path by path",
        description="Sends over loopback, into another network namespace, and to a device that "
        "swallows packets as a network card does; says what the kernel reports about copies.",
    )
    parser.add_argument(
        "--paths",
        type=_list_of(_one_of(zerocopy.PATHS, "path"), "path"),
        default=zerocopy.PATHS,
        metavar="A,B",
        help=f"default: {','.join(zerocopy.PATHS)}; all but loopback need root",
    )
    parser.add_argument(
        "--sizes",
        type=_list_of(parse_size, "size"),
        default=zerocopy.SIZES_BYTES,
        metavar="A,B",
        help="bytes per send; default: 1KiB to 1MiB",
    )
    parser.add_argument(
        "--rounds", type=_number(int, 1, 1000), default=zerocopy.ROUNDS, metavar="N"
    )
    parser.add_argument(
        "--max-bytes",
        type=parse_size,
        default=zerocopy.TOTAL_MAX_BYTES,
        metavar="N",
        help="sent at most, per size, way and round; default: 256MiB",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the rows there")
    parser.set_defaults(run=run_zerocopy)


def run_zerocopy(options: argparse.Namespace) -> int:
    """Measures, prints one table per path; 1 when no path could be measured."""
    from rich.console import Console

    console = Console()
    rows, skipped = zerocopy.run(options.paths, options.sizes, options.rounds, options.max_bytes)
    for table in zerocopy.tables(rows):
        console.print(table)
    for sentence in skipped:
        console.print(f"left out: {sentence}")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "skipped": skipped}, indent=1) + "\n")
    return EXIT_OK if rows else EXIT_FAILED


def _add_show(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "show", help="a result that was saved: its table, and its page with --html"
    )
    parser.add_argument("json", type=Path, metavar="FILE", help="written by an earlier run")
    parser.add_argument("--html", type=Path, metavar="PATH", help="where the page goes")
    parser.set_defaults(run=run_show)


def add_parser(subparsers: Subparsers) -> None:
    """Mounts ``bench`` on the subparsers of ``python -m netpoll``; the parsed arguments then carry
    `run`, a function of themselves that returns the exit code."""
    parser = subparsers.add_parser("bench", help="benchmarks: servers, loop primitives, memory")
    _add_commands(parser)


def _add_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(title="benchmarks", metavar="COMMAND", required=True)
    adders = (_add_echo, _add_micro, _add_idle, _add_relay, _add_files, _add_sched, _add_zerocopy)
    for add in (*adders, _add_show):
        add(commands)


def chosen_arms(options: argparse.Namespace, kind: str) -> tuple[str, ...]:
    """Raises UsageError for an arm that has no place in this benchmark."""
    arms = options.arms or default_arms(kind)
    if options.peers:
        arms += tuple(name for name in PEER_ARMS if name not in arms)
    if kind == "micro":
        for name in arms:
            if ARMS[name].kind != "loop":
                raise UsageError(f"{name} is not an event loop: it has no part in bench micro")
    return arms


def chosen_modes(options: argparse.Namespace) -> tuple[str, ...]:
    """Raises UsageError for datagrams or TLS together with others: the loads are not the same."""
    lone = options.scenario if options.scenario in LONE_MODES else None
    modes = options.modes or ((lone,) if lone else LOOP_MODES + SERVER_MODES)
    for mode in LONE_MODES:
        if mode in modes and len(modes) > 1:
            raise UsageError(f"the mode {mode} is a run of its own: --modes {mode}")
        if options.scenario and (options.scenario == mode) != (mode in modes):
            raise UsageError(f"the scenario {options.scenario} is not one of the mode {modes[0]}")
    if TLS_MODE in modes and (reason := tls.why_not()):
        raise UsageError(f"TLS cannot be measured here: {reason}")
    return modes


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
    if options.modes and options.modes[0] in LONE_MODES:
        return SCENARIOS[options.modes[0]]
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


def _echo_plan(options, arms: tuple[str, ...], cells: tuple[Cell, ...], pinning, start: float):
    """The plan for the arms that can run. With --quick the windows shrink to fit the minute."""
    from dataclasses import replace

    from netpoll.bench.echo import SHORTEST_WINDOW_S, EchoPlan

    plan = EchoPlan(
        arms=arms,
        modes=chosen_modes(options),
        cells=cells,
        pinning=pinning,
        rounds=options.rounds or QUICK_ROUNDS,
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
    from rich.text import Text

    from netpoll.bench.process import check_arms

    checked = check_arms(ARMS[name] for name in names)
    able = tuple(name for name in names if "unavailable" not in checked[name])
    for name in names:
        if name not in able:
            sentence = f"skipped: {name}: {checked[name]['unavailable']}."
            console.print(Text(sentence, style="yellow"), soft_wrap=True)
    if not able:
        raise UsageError("none of the arms can run here")
    return checked, able


def _environment(options: argparse.Namespace):
    from netpoll.bench.environment import describe
    from netpoll.bench.process import choose_pinning

    pinning = choose_pinning(options.server_cpu, options.load_cpu)
    return pinning, describe(pinning)


def _announce(console, what: str, plan) -> None:
    at_most = "at most " if plan.limit_s else ""
    console.print(
        f"{what} This takes {at_most}about {duration_text(plan.expected_s)}.", highlight=False
    )


def _write(document: dict, options: argparse.Namespace, kind: str, console) -> None:
    """The two files, unless they are not wanted. Raises UsageError when one cannot be written."""
    from netpoll.bench.document import write_json
    from netpoll.bench.report import write_html

    if options.no_files:
        return
    json_path = options.json or Path(f"{REPORT_STEM}-{kind}.json")
    html_path = options.html or Path(f"{REPORT_STEM}-{kind}.html")
    try:
        write_json(document, json_path)
        write_html(document, html_path)
    except OSError as error:
        raise UsageError(f"cannot write the result: {error}") from None
    console.print(f"result: {json_path}   page: {html_path}", highlight=False, soft_wrap=True)


def _finish(document: dict, options: argparse.Namespace, kind: str, console) -> int:
    """Shows and writes a document; returns the exit code."""
    from netpoll.bench import display

    display.show(console, document)
    _write(document, options, kind, console)
    if document["stopped"] == INTERRUPTED:
        return EXIT_INTERRUPTED
    rows = document["rows"]
    failed = any(row["fault"] for row in rows) or not any(row["rounds"] for row in rows)
    return EXIT_FAILED if failed else EXIT_OK


def run_echo(options: argparse.Namespace) -> int:
    """``bench echo``; returns the exit code."""
    start = time.monotonic()
    require_packages()
    from rich.console import Console

    from netpoll.bench import display
    from netpoll.bench.display import counted
    from netpoll.bench.document import echo_document
    from netpoll.bench.echo import EchoRunner

    console = Console()
    arms = chosen_arms(options, "echo")
    modes = chosen_modes(options)
    cells = chosen_cells(options)
    if modes == (UDP_MODE,) and max(cell.size_bytes for cell in cells) > MAX_DATAGRAM_BYTES:
        raise UsageError(f"a datagram of UDP has at most {MAX_DATAGRAM_BYTES} bytes")
    arms = tuple(name for name in arms if entries([name], modes))
    pinning, environment = _environment(options)
    checked, able = _check(arms, console)
    plan = _echo_plan(options, able, cells, pinning, start)
    _announce(
        console,
        f"{plan.count} measurements: {counted(len(plan.entries), 'server')}, "
        f"{counted(len(plan.cells), 'cell')}, {counted(plan.rounds, 'round')}.",
        plan,
    )
    with display.ProgressBar(console, plan.count) as bar:
        run = EchoRunner(plan, bar).run()
    document = echo_document(run, checked, environment, sys.argv[1:])
    return _finish(document, options, "echo", console)


def run_micro(options: argparse.Namespace) -> int:
    """``bench micro``; returns the exit code."""
    require_packages()
    from rich.console import Console

    from netpoll.bench import display, micro
    from netpoll.bench.display import counted
    from netpoll.bench.document import micro_document

    console = Console()
    arms = chosen_arms(options, "micro")
    pinning, environment = _environment(options)
    checked, able = _check(arms, console)
    plan = micro.MicroPlan(
        arms=able,
        workloads=options.workloads,
        pinning=pinning,
        rounds=options.rounds or (QUICK_ROUNDS if options.quick else 5),
        scale=options.scale,
        limit_s=QUICK_LIMIT_S if options.quick else None,
    )
    _announce(
        console,
        f"{counted(len(plan.arms), 'loop')}, {counted(len(plan.workloads), 'operation')}, "
        f"{counted(plan.rounds, 'round')}.",
        plan,
    )
    with display.ProgressBar(console, plan.rounds * len(plan.arms)) as bar:
        run = micro.run_micro(plan, bar)
    document = micro_document(run, checked, environment, sys.argv[1:])
    return _finish(document, options, "micro", console)


def run_sched(options: argparse.Namespace) -> int:
    """``bench sched``; returns the exit code."""
    require_packages()
    from rich.console import Console

    from netpoll.bench import display, sched
    from netpoll.bench.display import counted
    from netpoll.bench.document import sched_document

    console = Console()
    _, environment = _environment(options)
    plan = sched.SchedPlan(
        arms=options.arms,
        works=options.works,
        rounds=options.rounds or (QUICK_ROUNDS if options.quick else 5),
        scale=options.scale,
        limit_s=QUICK_LIMIT_S if options.quick else None,
    )
    _announce(
        console,
        f"{counted(len(plan.arms), 'arm')}, {counted(len(plan.works), 'workload')}, "
        f"{counted(plan.rounds, 'round')}.",
        plan,
    )
    with display.ProgressBar(console, plan.rounds * len(plan.arms)) as bar:
        run = sched.run_sched(plan, bar)
    document = sched_document(run, environment, sys.argv[1:])
    return _finish(document, options, "sched", console)


def run_idle(options: argparse.Namespace) -> int:
    """``bench idle``; returns the exit code."""
    require_packages()
    from rich.console import Console

    from netpoll.bench import display, idle
    from netpoll.bench.display import counted
    from netpoll.bench.document import idle_document

    console = Console()
    arms = chosen_arms(options, "idle")
    pinning, environment = _environment(options)
    checked, able = _check(arms, console)
    plan = idle.IdlePlan(
        arms=able,
        modes=options.modes,
        pinning=pinning,
        connections=options.connections,
        rounds=options.rounds or (1 if options.quick else 3),
        malloc=options.malloc,
        limit_s=QUICK_LIMIT_S if options.quick else None,
    )
    _announce(
        console,
        f"{counted(len(plan.entries), 'server')}, {counted(plan.connections, 'connection')}, "
        f"{counted(plan.rounds, 'round')}.",
        plan,
    )
    with display.ProgressBar(console, plan.rounds * len(plan.entries)) as bar:
        run = idle.run_idle(plan, bar)
    document = idle_document(run, checked, environment, sys.argv[1:])
    return _finish(document, options, "idle", console)


def run_files(options: argparse.Namespace) -> int:
    """``bench files``; returns the exit code."""
    require_packages()
    from rich.console import Console

    from netpoll.bench import display, files
    from netpoll.bench.document import header

    console = Console()
    if not options.directory.is_dir():
        raise UsageError(f"{options.directory} is not a directory")
    pinning, environment = _environment(options)
    checked = files.check_file_arms(options.arms or default_arms("files"))
    able = tuple(name for name in checked if "unavailable" not in checked[name])
    if not able:
        raise UsageError("none of the arms can run here")
    plan = files.FilesPlan(
        arms=able,
        works=options.works,
        pinning=pinning,
        directory=options.directory,
        rounds=options.rounds or (QUICK_ROUNDS if options.quick else 5),
        scale=options.scale,
        limit_s=QUICK_LIMIT_S if options.quick else None,
    )
    _announce(
        console,
        f"{display.counted(len(plan.arms), 'arm')}, {display.counted(len(plan.works), 'work')}, "
        f"{display.counted(plan.rounds, 'round')}.",
        plan,
    )
    with display.ProgressBar(console, plan.rounds * len(plan.arms)) as bar:
        run = files.run_files(plan, bar)
    head = header("files", environment, sys.argv[1:], run.started_at)
    return _finish(files.files_document(run, checked, head, environment), options, "files", console)


def run_show(options: argparse.Namespace) -> int:
    """``bench show``; returns the exit code."""
    require_packages()
    from rich.console import Console

    from netpoll.bench import display
    from netpoll.bench.document import read_json
    from netpoll.bench.report import write_html

    try:
        document = read_json(options.json)
        if options.html:
            write_html(document, options.html)
    except OSError as error:
        raise UsageError(f"cannot use {error.filename}: {error.strerror}") from None
    display.show(Console(), document)
    return EXIT_OK


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
