"""The types of what stats() returns: dicts whose keys mean the same wherever they stand.

A key that ends in _bytes or _ns has that unit; any other number is a count. "now": the number goes
down again; all others grow from 0. A loop counts the bytes that its operations move, and none that
a socket call moves at once; a server counts all that its connections move.
"""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = [
    "BlockStats",
    "LoopStats",
    "PoolStats",
    "SchedulerStats",
    "SchedulerWorkerStats",
    "ServerStats",
    "ServerWorkerStats",
]


class _Operations(TypedDict):
    """What a loop counts, and a server's worker of its loop.

    enters: system calls that wait or submit.
    submissions: operations that were begun.
    enobufs: receives that waited for a buffer.
    ops_live: operations that have not ended, now.
    zc_bytes: of sends that may be zero-copy, what the kernel did not copy.
    kernel_copied_bytes: of these sends, what it copied, asked for zero-copy or not.
    unsure_bytes: of these sends, what it reported as copied, by a report that cannot be trusted.
    """

    enters: int
    submissions: int
    enobufs: int
    ops_live: int
    zc_bytes: int
    kernel_copied_bytes: int
    unsure_bytes: int


class _Traffic(TypedDict):
    """What goes through sockets.

    recv_bytes: received.
    sent_bytes: sent.
    """

    recv_bytes: int
    sent_bytes: int


class LoopStats(_Operations, _Traffic):
    """Of EventLoop.stats().

    backend: "uring" or "epoll"; None of a server that was not started.
    turns: passes of the loop.
    completions: operations that gave a result.
    moves: changes of the thread that runs the loop.
    notifs_pending: zero-copy sends whose memory the kernel may still read, now.
    regions_count: pools whose memory the ring knows, now.
    stale: results of operations that were gone.
    sq_full: submissions before the end of a turn, because the queue was full.
    bufs_total: receive buffers.
    bufs_free: those that the kernel may fill, now.
    features: what the loop uses of the kernel: names of netpoll.config.FEATURES.
    arena: the pages of the receive buffers: "hugetlb", "thp" or "plain"; None without any.
    ready_count: callbacks that are due, now.
    timers_count: timers, now.
    transports_count: transports, now.
    """

    backend: str
    turns: int
    completions: int
    moves: int
    notifs_pending: int
    regions_count: int
    stale: int
    sq_full: int
    bufs_total: int
    bufs_free: int
    features: list[str]
    arena: Literal["hugetlb", "thp", "plain"] | None
    ready_count: int
    timers_count: int
    transports_count: int


class ServerWorkerStats(_Operations, _Traffic):
    """Of one worker of a server.

    connections: now.
    accepted: connections that began.
    sessions: coroutines of connections that have not ended, now.
    flows: connections with unread or unsent bytes, now.
    file_bytes: of sent_bytes, what came from files.
    copied_bytes: copied in user space: could still change, or had to be joined or kept.
    shed_bytes: moved out of receive buffers, to free these.
    bulk_reads: large reads into memory of their own.
    handler_errors: exceptions that handlers raised.
    idle_closed: connections that an idle time-out ended.
    full_closed: connections that a limit of bytes ended.
    handshakes: of TLS.
    failed_handshakes: of TLS.
    encrypted_bytes: by TLS, in user space.
    """

    connections: int
    accepted: int
    sessions: int
    flows: int
    file_bytes: int
    copied_bytes: int
    shed_bytes: int
    bulk_reads: int
    handler_errors: int
    idle_closed: int
    full_closed: int
    handshakes: int
    failed_handshakes: int
    encrypted_bytes: int


class ServerStats(ServerWorkerStats):
    """Of Server.stats(): the sums over its workers.

    accept_pauses: how often accepting has paused.
    backend: "uring" or "epoll"; None of a server that was not started.
    workers: of each worker.
    """

    accept_pauses: int
    backend: str | None
    workers: list[ServerWorkerStats]


class SchedulerWorkerStats(TypedDict):
    """Of one worker of a scheduler.

    executed: tasks, and steps of tasks.
    stolen: tasks that it took from other workers.
    parked: how often it went to sleep.
    woken: how often somebody ended that.
    overflowed: tasks that its full queue moved to the shared list.
    queued: tasks that wait here, by lane, now.
    wait_ns: how long tasks waited, by lane: a histogram, whose bucket b counts waits of 2**(b-1) to
        2**b ns. CONTROL and HIGH count all, NORMAL and LOW one in eight.
    """

    executed: int
    stolen: int
    parked: int
    woken: int
    overflowed: int
    queued: dict[str, int]
    wait_ns: dict[str, list[int]]


class SchedulerStats(TypedDict):
    """Of Scheduler.stats().

    name: of the scheduler.
    workers: of each worker.
    queued: tasks that wait here, by lane, now.
    tasks_live: tasks that were spawned and have not ended, now.
    records_live: posts and tickets that are queued, now; while the workers run, up to 128 free
        records of each as well.
    """

    name: str
    workers: list[SchedulerWorkerStats]
    queued: dict[str, int]
    tasks_live: int
    records_live: int


class BlockStats(TypedDict):
    """Of the blocks of one size in a pool.

    used: blocks that buffers have, now.
    free: blocks that were cut and nobody has, now.
    taken: blocks that buffers have had.
    refused: reserves that found no block.
    """

    used: int
    free: int
    taken: int
    refused: int


class PoolStats(TypedDict):
    """Of BufferPool.stats().

    size_bytes: of the memory.
    used_bytes: of the blocks that buffers have, now.
    free_bytes: what may become a block of any size, now.
    pages: "hugetlb", "thp" or "plain".
    buffers_count: buffers that are in use, now.
    classes: by block size in bytes.
    registered: rings that know the memory, now.
    not_registered: why the others do not that it was attached to.
    """

    size_bytes: int
    used_bytes: int
    free_bytes: int
    pages: Literal["hugetlb", "thp", "plain"]
    buffers_count: int
    classes: dict[int, BlockStats]
    registered: int
    not_registered: list[str]
