"""What is measured: cells (connections x bytes), the named scenarios, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from netpoll.bench.arms import ARMS, LONE_MODES

__all__ = ["SCENARIOS", "Cell", "Entry", "entries", "parse_cell", "parse_size", "size_text"]

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20}
MAX_SIZE_BYTES = 64 << 20
MAX_DATAGRAM_BYTES = 65507  # of UDP over IPv4
MAX_CONNECTIONS = 100_000
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
    """An arm in one of its modes; "-" is the mode of what is not an event loop."""

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


def rotated(items: list[Entry], by: int) -> list[Entry]:
    """The list, begun `by` places later: nobody is always first, or always after the same one."""
    by %= len(items) or 1
    return items[by:] + items[:by]
