"""What is counted, under the names and in the units of OpenTelemetry's conventions.

A table for each kind of thing: a row is a metric, and says which keys of netpoll.stats it takes,
and by which attributes these are told apart. Prometheus' names follow from these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "ACTIVE",
    "DURATION",
    "LANES",
    "LOOP",
    "METRICS",
    "POOL",
    "QUEUED",
    "REFUSED",
    "SCHEDULER",
    "SCHEDULER_WORKER",
    "SERVER",
    "STALLED",
    "WAIT",
    "WORKER",
    "Attributes",
    "Row",
]

Attributes = Mapping[str, str | int]
# counter: grows. updown: an amount that adds up over processes. gauge: one that does not.
Kind = Literal["counter", "updown", "gauge", "histogram"]

SUFFIXES = {"s": "seconds", "By": "bytes"}
RECEIVED = {"network.io.direction": "receive"}
SENT = {"network.io.direction": "transmit"}


@dataclass(frozen=True, eq=False)
class Row:
    """One metric. keys: of the stats that it takes, with the attributes of each."""

    name: str
    kind: Kind
    unit: str
    text: str
    keys: Mapping[str, Attributes] = field(default_factory=dict)

    @property
    def prometheus_name(self) -> str:
        """As the specification makes it of `name`, without the _total of a counter."""
        suffix = SUFFIXES.get(self.unit)
        name = self.name.replace(".", "_")
        return name if suffix is None or name.endswith(suffix) else f"{name}_{suffix}"


def states(name: str, **keys: str) -> dict[str, Attributes]:
    """Each key with the value of one attribute."""
    return {key: {name: value} for key, value in keys.items()}


def plain(key: str) -> dict[str, Attributes]:
    return {key: {}}


LOOP = (
    Row("netpoll.loop.turns", "counter", "{turn}", "Passes of the loop.", plain("turns")),
    Row(
        "netpoll.loop.enters",
        *("counter", "{call}", "System calls that wait or submit."),
        plain("enters"),
    ),
    Row(
        "netpoll.loop.lag",
        *("gauge", "s", "How late the loop's last tick was, or the one that is due is already."),
        plain("lag_s"),
    ),
    Row(
        "netpoll.loop.late",
        *("counter", "s", "By how much the ticks of the loop were late, together."),
        plain("late_s"),
    ),
    Row(
        "netpoll.loop.callbacks",
        *("updown", "{callback}", "Callbacks that are due now."),
        plain("ready_count"),
    ),
    Row("netpoll.loop.timers", "updown", "{timer}", "Timers now.", plain("timers_count")),
    Row(
        "netpoll.loop.transports",
        *("updown", "{transport}", "Transports now."),
        plain("transports_count"),
    ),
    Row(
        "netpoll.loop.operations",
        *("updown", "{operation}", "Operations that have not ended now."),
        plain("ops_live"),
    ),
    Row(
        "netpoll.loop.submissions",
        *("counter", "{operation}", "Operations that were begun."),
        plain("submissions"),
    ),
    Row(
        "netpoll.loop.completions",
        *("counter", "{operation}", "Operations that gave a result."),
        plain("completions"),
    ),
    Row(
        "netpoll.loop.queue_full",
        *("counter", "{call}", "Submissions in the middle of a turn: the queue was full."),
        plain("sq_full"),
    ),
    Row(
        "netpoll.loop.buffers",
        *("updown", "{buffer}", "Receive buffers now: free for the kernel, or in use."),
        states("netpoll.state", bufs_free="free", bufs_used="used"),
    ),
    Row(
        "netpoll.loop.buffer_waits",
        *("counter", "{operation}", "Receives that waited for a buffer."),
        plain("enobufs"),
    ),
    Row(
        "netpoll.loop.io",
        *("counter", "By", "Bytes that operations of the loop have moved."),
        {"recv_bytes": RECEIVED, "sent_bytes": SENT},
    ),
    Row(
        "netpoll.loop.zero_copy.io",
        *("counter", "By", "Bytes of sends that may be zero-copy: who copied them."),
        states(
            "netpoll.copied", zc_bytes="no", kernel_copied_bytes="kernel", unsure_bytes="unsure"
        ),
    ),
    Row(
        "netpoll.loop.zero_copy.pending",
        *("updown", "{send}", "Zero-copy sends whose memory the kernel may still read now."),
        plain("notifs_pending"),
    ),
)

WORKER = (
    Row(
        "netpoll.server.connections",
        *("updown", "{connection}", "Connections now."),
        plain("connections"),
    ),
    Row(
        "netpoll.server.connections.accepted",
        *("counter", "{connection}", "Connections that began."),
        plain("accepted"),
    ),
    Row(
        "netpoll.server.connections.closed",
        *("counter", "{connection}", "Connections that a limit ended."),
        states("netpoll.reason", idle_closed="idle", full_closed="full"),
    ),
    Row(
        "netpoll.server.sessions",
        *("updown", "{session}", "Coroutines of connections that have not ended now."),
        plain("sessions"),
    ),
    Row(
        "netpoll.server.flows",
        *("updown", "{connection}", "Connections with unread or unsent bytes now."),
        plain("flows"),
    ),
    Row(
        "netpoll.server.io",
        *("counter", "By", "Bytes through the connections."),
        {"recv_bytes": RECEIVED, "sent_bytes": SENT},
    ),
    Row(
        "netpoll.server.file_io",
        *("counter", "By", "Of the bytes sent, those from files."),
        plain("file_bytes"),
    ),
    Row(
        "netpoll.server.copied",
        *("counter", "By", "Bytes to send that were copied in user space."),
        plain("copied_bytes"),
    ),
    Row(
        "netpoll.server.shed",
        *("counter", "By", "Bytes moved out of receive buffers, to free these."),
        plain("shed_bytes"),
    ),
    Row(
        "netpoll.server.bulk_reads",
        *("counter", "{read}", "Large reads into memory of their own."),
        plain("bulk_reads"),
    ),
    Row(
        "netpoll.server.handler_errors",
        *("counter", "{exception}", "Exceptions that handlers raised."),
        plain("handler_errors"),
    ),
    Row(
        "netpoll.server.tls.handshakes",
        *("counter", "{handshake}", "Handshakes of TLS."),
        states("netpoll.outcome", handshakes="done", failed_handshakes="failed"),
    ),
    Row(
        "netpoll.server.tls.encrypted",
        *("counter", "By", "Bytes that TLS encrypted in user space."),
        plain("encrypted_bytes"),
    ),
)

SERVER = (
    Row("netpoll.server.workers", "updown", "{thread}", "Workers of the server.", plain("count")),
    Row(
        "netpoll.server.accept_pauses",
        *("counter", "{pause}", "How often accepting has paused."),
        plain("accept_pauses"),
    ),
)

POOL = (
    Row(
        "netpoll.pool.memory",
        *("updown", "By", "Memory to send from now."),
        states("netpoll.state", used_bytes="used", free_bytes="free"),
    ),
    Row("netpoll.pool.buffers", "updown", "{buffer}", "Buffers in use.", plain("buffers_count")),
    Row(
        "netpoll.pool.refused",
        *("counter", "{buffer}", "Reserves that found no block."),
        plain("refused"),
    ),
)

LANES = states("netpoll.priority", CONTROL="control", HIGH="high", NORMAL="normal", LOW="low")

SCHEDULER = (
    Row(
        "netpoll.scheduler.tasks",
        *("updown", "{task}", "Tasks that have not ended now."),
        plain("tasks_live"),
    ),
    Row(
        "netpoll.scheduler.records",
        *("updown", "{record}", "Posts and tickets that are queued now."),
        plain("records_live"),
    ),
)

SCHEDULER_WORKER = (
    Row(
        "netpoll.scheduler.steps",
        *("counter", "{step}", "Tasks that ran, and steps of tasks."),
        plain("executed"),
    ),
    Row(
        "netpoll.scheduler.stolen",
        *("counter", "{task}", "Tasks taken from other workers."),
        plain("stolen"),
    ),
    Row("netpoll.scheduler.parked", "counter", "{pause}", "Times asleep.", plain("parked")),
    Row("netpoll.scheduler.woken", "counter", "{call}", "Times woken.", plain("woken")),
    Row(
        "netpoll.scheduler.overflowed",
        *("counter", "{task}", "Tasks that a full queue moved to the shared list."),
        plain("overflowed"),
    ),
)

QUEUED = Row("netpoll.scheduler.queued", "updown", "{task}", "Tasks that wait now.", LANES)
WAIT = Row(
    "netpoll.scheduler.wait",
    *("histogram", "s", "How long tasks waited; of normal and low ones, one in eight."),
    LANES,
)

DURATION = Row(
    "http.server.request.duration",
    *("histogram", "s", "From the head of a request to the end of its answer."),
)
ACTIVE = Row("http.server.active_requests", "updown", "{request}", "Requests being answered now.")
REFUSED = Row("netpoll.http.refused", "counter", "{request}", "Requests that have a fault.")
STALLED = Row(
    "netpoll.http.stalled",
    *("counter", "{answer}", "Answers given up: their peers did not take them in time."),
)

METRICS = (
    *(*LOOP, *WORKER, *SERVER, *POOL, *SCHEDULER, *SCHEDULER_WORKER),
    *(QUEUED, WAIT, DURATION, ACTIVE, REFUSED, STALLED),
)
