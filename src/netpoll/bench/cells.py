"""What is measured: cells (connections x bytes), modes, the named scenarios, and their options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass

from netpoll.bench import tls
from netpoll.bench.arguments import list_of, number_in, one_of
from netpoll.bench.arms import ARMS, ECHO_MODES, LONE_MODES, LOOP_MODES, SERVER_MODES, TLS_MODE
from netpoll.bench.errors import UsageError
from netpoll.bench.loaded import QUICK_WARMUP_S, USUAL_WINDOW_S, WARMUP_S

__all__ = [
    "MALLOC_CHOICES",
    "MODE_TITLES",
    "SCENARIOS",
    "Cell",
    "Entry",
    "add_load_options",
    "chosen_cells",
    "chosen_modes",
    "entries",
    "parse_cell",
    "parse_size",
    "size_text",
]

# Of `bench echo` and `bench idle`: who runs with `arms.MALLOC_TUNED`.
MALLOC_CHOICES = ("all", "asyncio", "none")

MODE_TITLES = {
    "protocol": "protocol",
    "streams": "streams",
    "sock": "sock",
    "udp": "datagrams",
    "tls": "TLS 1.3",
    "on_data": "netpoll.Server, on_data",
    "session": "netpoll.Server, session",
    "-": "without a choice of modes",
}

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20}
MAX_SIZE_BYTES = 64 << 20
MAX_DATAGRAM_BYTES = 65507  # of UDP over IPv4
MAX_CONNECTIONS = 1_000_000
BULK_ABOVE_BYTES = 64 * 1024


def parse_size(text: str) -> int:
    """Bytes of "64", "1k", "64KiB", "1MiB". Raises ValueError with a sentence."""
    match = re.fullmatch(r"(\d+)\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is not a size: write 64, 1KiB, 64KiB or 1MiB")
    size_bytes = int(match[1]) * _UNITS[match[2]]
    if not 1 <= size_bytes <= MAX_SIZE_BYTES:
        raise ValueError(f"{text!r} is out of range: a message has 1 byte to 64 MiB")
    return size_bytes


def parse_connections(text: str) -> int:
    """A number of connections. Raises ValueError with a sentence."""
    if not text.strip().isdecimal() or not 1 <= int(text) <= MAX_CONNECTIONS:
        raise ValueError(f"{text!r} is not a number of connections: 1 to {MAX_CONNECTIONS}")
    return int(text)


def size_text(size_bytes: int) -> str:
    """65536 as "64 KiB"."""
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes >= factor and size_bytes % factor == 0:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes} B"


@dataclass(frozen=True, order=True)
class Cell:
    """A load: so many connections, each with one message of so many bytes on its way."""

    connections: int
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.connections} × {size_text(self.size_bytes)}"

    @property
    def is_bulk(self) -> bool:
        return self.size_bytes > BULK_ABOVE_BYTES


def parse_cell(text: str) -> Cell:
    """Parses "64x64", "16x64KiB": connections x message size. Raises ValueError with a sentence."""
    connections, cross, size = text.lower().partition("x")
    if not cross:
        raise ValueError(f"{text!r} is not a cell: write connections x size, such as 16x64KiB")
    return Cell(parse_connections(connections), parse_size(size))


def grid(sizes_bytes: Iterable[int], connections: Iterable[int]) -> tuple[Cell, ...]:
    """Every size with every number of connections."""
    sizes_bytes = tuple(sizes_bytes)
    return tuple(Cell(count, size) for count in connections for size in sizes_bytes)


SIZES_BYTES = (64, 1 << 10, 64 << 10, 1 << 20)
CONNECTIONS = (1, 64, 512)

SCENARIOS: dict[str, tuple[Cell, ...]] = {
    "matrix": grid(SIZES_BYTES, CONNECTIONS),
    "claims": tuple(map(parse_cell, ("64x64", "512x64", "16x64KiB", "4x1MiB"))),
    "quick": tuple(map(parse_cell, ("64x64", "16x64KiB"))),
    "small": tuple(map(parse_cell, ("1x64", "64x64", "512x64", "64x1KiB"))),
    "udp": tuple(map(parse_cell, ("64x64",))),
    "tls": tuple(map(parse_cell, ("64x1KiB",))),
    "bulk": tuple(map(parse_cell, ("1x1MiB", "4x1MiB", "16x64KiB", "64x64KiB"))),
}


@dataclass(frozen=True)
class Entry:
    """An arm in one of its modes; "-" is the mode of what has only one."""

    arm: str
    mode: str

    def __str__(self) -> str:
        return self.arm if self.mode == "-" else f"{self.arm} {self.mode}"


def entries(arms: Iterable[str], modes: Iterable[str]) -> list[Entry]:
    """Arms and modes as they take part: mode by mode, then the arms that have only one."""
    arms, modes = tuple(arms), tuple(modes)
    looping = [Entry(a, m) for m in modes for a in arms if m in ARMS[a].modes]
    if len(modes) == 1 and modes[0] in LONE_MODES:
        return looping
    return looping + [Entry(a, "-") for a in arms if "-" in ARMS[a].modes]


# ---- the options ------------------------------------------------------------------------------


def add_load_options(parser: argparse._ArgumentGroup) -> None:
    """Which modes, which cells, for how long."""
    parser.add_argument(
        "--modes",
        type=list_of(one_of(ECHO_MODES, "mode"), "mode"),
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
        type=list_of(parse_cell, "cell"),
        metavar="CxS,...",
        help="connections x message size, such as 64x64,16x64KiB",
    )
    parser.add_argument(
        "--sizes",
        type=list_of(parse_size, "size"),
        metavar="S,...",
        help="message sizes; with --connections a grid",
    )
    parser.add_argument(
        "--connections",
        type=list_of(parse_connections, "number"),
        metavar="N,...",
        help="numbers of connections; with --sizes a grid",
    )
    parser.add_argument(
        "--duration-s",
        type=number_in(0.01, 3600, float, " seconds"),
        metavar="S",
        help=f"length of a measured window; default: {USUAL_WINDOW_S:g} (with --quick: what fits)",
    )
    parser.add_argument(
        "--warmup-s",
        type=number_in(0, 60, float, " seconds"),
        metavar="S",
        help=f"default: {WARMUP_S:g} (with --quick: {QUICK_WARMUP_S:g})",
    )


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
        return tuple(options.cells)
    if by_grid:
        return grid(options.sizes or SIZES_BYTES, options.connections or CONNECTIONS)
    if options.modes and options.modes[0] in LONE_MODES:
        return SCENARIOS[options.modes[0]]
    return SCENARIOS[options.scenario or ("quick" if options.quick else "matrix")]
