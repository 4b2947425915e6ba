"""``bench zerocopy``: what a sent byte costs, copied and not copied, path by path."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from netpoll.bench.arguments import list_of
from netpoll.bench.arms import Arm
from netpoll.bench.blocks import (
    Bar,
    Bars,
    Block,
    Column,
    Figure,
    Group,
    Heading,
    Line,
    Table,
    counted,
    judged,
)
from netpoll.bench.cells import parse_size, size_text
from netpoll.bench.errors import UsageError
from netpoll.bench.kind import Kind, Terms, distinct, measured
from netpoll.bench.records import Document, Facts, Row
from netpoll.bench.rounds import Measure, Plan, Run
from netpoll.bench.sendpaths import (
    NETWORK,
    TOTAL_MAX_BYTES,
    WAYS,
    measure,
    measure_to,
    why_not,
)
from netpoll.bench.watch import Watch

__all__ = ["KIND", "summarize"]

SIZES_BYTES = (1024, 4096, 16384, 65536, 262144, 1048576)
SIZE_S = 0.4  # about, of one size in all ways
START_S = 0.5


@dataclass(frozen=True, kw_only=True)
class ZerocopyPlan(Plan):
    """max_bytes: sent at most, per size, way and round."""

    sizes_bytes: tuple[int, ...]
    max_bytes: int

    @property
    def measurement_s(self) -> float:
        share = min(self.max_bytes / TOTAL_MAX_BYTES, 1.0)
        return START_S + SIZE_S * share * len(self.sizes_bytes)


def summarize(path: str, sends: Sequence[Row]) -> list[Row]:
    """One row per size and way: medians, and the cost against plain sends."""
    groups: dict[tuple[int, str], list[Row]] = {}
    for send in sends:
        groups.setdefault((send["size_bytes"], send["way"]), []).append(send)
    rows: list[Row] = []
    for (size, way), group in groups.items():
        costs = [1024 * send["cpu_ns"] / send["sent_bytes"] for send in group]
        peer_costs = [1024 * send["peer_cpu_ns"] / send["sent_bytes"] for send in group]
        sent = sum(send["sent_bytes"] for send in group)
        rows.append(
            {
                "arm": path,
                "mode": way,
                "fault": None,
                "path": path,
                "size_bytes": size,
                "way": way,
                "rounds": len(group),
                "cpu_ns_per_kib": statistics.median(costs),
                "cpu_ns_per_kib_min": min(costs),
                "cpu_ns_per_kib_by_round": costs,
                "peer_cpu_ns_per_kib": statistics.median(peer_costs),
                "gib_per_s": statistics.median(
                    send["sent_bytes"] / 2**30 / (send["wall_ns"] / 1e9) for send in group
                ),
                "not_copied_share": sum(send["zc_bytes"] for send in group) / sent,
                "unsure_share": sum(send["unsure_bytes"] for send in group) / sent,
                "pages": group[0]["pages"],
            }
        )
    plain = {row["size_bytes"]: row for row in rows if row["way"] == "plain"}
    for row in rows:
        control = plain[row["size_bytes"]]
        row["vs_plain"] = row["cpu_ns_per_kib"] / control["cpu_ns_per_kib"]
    return rows


# ---- columns ----------------------------------------------------------------------------------


def _cost(key: str, tone: str = "") -> Callable[[Row], Figure]:
    return lambda row: Figure(f"{row[key]:.0f}", tone=tone)


def _reported(key: str) -> Callable[[Row], Figure]:
    """What the kernel says of zero-copy sends; plain ones have no report."""
    return lambda row: Figure(f"{row[key]:.0%}" if row["way"] != "plain" else "")


def _of_peer(row: Row) -> Figure:
    """Behind the device nobody reads; on another machine nobody here knows."""
    return Figure("" if row["path"] in ("device", NETWORK) else f"{row['peer_cpu_ns_per_kib']:.0f}")


COLUMNS = (
    Column("ns/KiB", _cost("cpu_ns_per_kib", tone="key")),
    Column("min", _cost("cpu_ns_per_kib_min")),
    Column("×plain", lambda row: judged(row["vs_plain"])),
    Column("peer's", _of_peer),
    Column("GiB/s", lambda row: Figure(f"{row['gib_per_s']:.2f}")),
    Column("not copied", _reported("not_copied_share")),
    Column("unsure", _reported("unsure_share")),
)


class Zerocopy(Kind):
    name = "zerocopy"
    help = "what a sent byte costs, copied and not copied, path by path"
    description = (
        "Sends over loopback, into another network namespace, and to a device that swallows "
        "packets as a network card does; says what the kernel reports about copies."
    )
    title = "Sending with and without a copy"
    method = """
Each path is measured in processes of its own; veth and device in network namespaces that end with
them. The sender sends as many bytes in every way: plainly, and with zero-copy sends of memory that
is pinned for each send, registered with the ring on huge pages, and registered on plain ones. The
cost is the CPU time of the sending thread per KiB. The peer's stands beside it, because on a path
that copies the kernel makes the copy in either of the two.

Whether the kernel copied is its own report, send by send. "Unsure" are bytes that are reported as
copied by a report that cannot be trusted. Figures are medians over the rounds; a dot is one round.
"""
    arms = {
        "loopback": Arm("loopback", "path", "to another process of this machine"),
        "veth": Arm("veth", "path", "to another network namespace"),
        "device": Arm("device", "path", "to a device that swallows packets"),
        NETWORK: Arm(NETWORK, "path", "to another machine, over the network"),
    }
    takes_hosts = True
    arms_option = "--paths"
    arm_noun = "path"
    default_arms = ("loopback", "veth", "device")
    quick_rounds = 1

    def add_options(self, parser: argparse._ArgumentGroup) -> None:
        parser.add_argument(
            "--sizes",
            type=list_of(parse_size, "size"),
            default=SIZES_BYTES,
            metavar="A,B",
            help="bytes per send; default: 1KiB to 1MiB",
        )
        parser.add_argument(
            "--max-bytes",
            type=parse_size,
            default=TOTAL_MAX_BYTES,
            metavar="N",
            help="sent at most, per size, way and round; default: 160MiB",
        )

    def chosen_arms(self, options: argparse.Namespace) -> tuple[str, ...]:
        if self.hosts.load and not options.arms:
            return (NETWORK,)
        return super().chosen_arms(options)

    def check(self, arms: Sequence[str]) -> dict[str, Facts]:
        reasons = {path: why_not(path) for path in arms if path != NETWORK}
        if NETWORK in arms:
            reasons[NETWORK] = None if self.hosts.load else "it needs a --load-host to send to"
        return {path: {"unavailable": why} if why else {} for path, why in reasons.items()}

    def plan(self, options: argparse.Namespace, terms: Terms) -> ZerocopyPlan:
        if self.hosts.server and terms.arms != (NETWORK,):
            raise UsageError(f"from another machine there is the path {NETWORK} alone")
        return ZerocopyPlan(**vars(terms), sizes_bytes=options.sizes, max_bytes=options.max_bytes)

    def size(self, plan: ZerocopyPlan) -> str:
        paths, sizes = len(plan.arms), len(plan.sizes_bytes)
        return f"{counted(paths, 'path')}, {counted(sizes, 'size')}, {len(WAYS)} ways"

    @contextmanager
    def measuring(self, plan: ZerocopyPlan, watch: Watch) -> Iterator[Measure]:
        cpus = plan.pinning.server_cpu, plan.pinning.load_cpu
        sizes, max_bytes = plan.sizes_bytes, plan.max_bytes

        def one(path: str, number: int) -> list[Row]:
            if path != NETWORK:
                return measure(path, sizes, number, max_bytes, cpus)
            if self.hosts.server:
                return self.hosts.sends(sizes, number, max_bytes, plan.measurement_s)
            assert self.hosts.load, "a path that cannot be measured is skipped"
            host, port = self.hosts.load.ask("receive")
            return measure_to((host, port), sizes, number, max_bytes, cpus)

        yield one

    # ---- the document

    def settings(self, plan: ZerocopyPlan) -> Facts:
        return {
            "rounds": plan.rounds,
            "sizes_bytes": plan.sizes_bytes,
            "max_bytes": plan.max_bytes,
            **self.hosts.facts(),
        }

    def rows(self, run: Run) -> list[Row]:
        rows: list[Row] = []
        for path in run.plan.arms:
            rounds = run.samples.get(path, {}).values()
            rows += summarize(path, [send for sends in rounds for send in sends])
            if path in run.faults:
                rows.append({"arm": path, "mode": "-", "fault": run.faults[path], "rounds": 0})
        return rows

    # ---- to look at

    def _table(self, rows: Sequence[Row], path: str) -> Table:
        here = [row for row in rows if row["path"] == path]
        groups = []
        for size in distinct(here, "size_bytes"):
            of_size = [row for row in here if row["size_bytes"] == size]
            lines = [Line(r["way"], [c.figure(r) for c in COLUMNS]) for r in of_size]
            groups.append(Group(f"sends of {size_text(size)}", lines))
        return Table(["way", *(c.title for c in COLUMNS)], groups, f"{path}: CPU of the sender")

    def tables(self, document: Document, wide: bool) -> list[Table]:
        rows = measured(document)
        return [self._table(rows, path) for path in distinct(rows, "path")]

    def notes(self, document: Document, wide: bool) -> list[str]:
        rounds = counted(document["settings"]["rounds"], "round")
        return [
            f"{rounds}, paths and ways interleaved; the median. Not copied: the kernel's report."
        ]

    def section(self, document: Document) -> list[Block]:
        rows = measured(document)
        blocks: list[Block] = []
        for path in distinct(rows, "path"):
            blocks += [Heading(path), self._table(rows, path)]
            for size in distinct(rows, "size_bytes"):
                here = [r for r in rows if (r["path"], r["size_bytes"]) == (path, size)]
                bars = [
                    Bar(row["way"], (row["cpu_ns_per_kib"],), row["cpu_ns_per_kib_by_round"])
                    for row in here
                ]
                title = f"Sends of {size_text(size)}, ns per KiB"
                blocks.append(Bars(f"{path}-{size}", title, bars, unit="ns"))
        return blocks


KIND = Zerocopy()
