# cython: language_level=3, freethreading_compatible=True
"""The counters of a loop, under the names that loop.stats() documents."""

from netpoll._core cimport Loop
from netpoll._native.c cimport np_arena_kind_name, np_backend_stats, np_head

from netpoll._core import FEATURES


def read_counters(Loop loop not None):
    """What loop.stats() returns: see there."""
    if loop.be is not NULL:
        loop.last_stats = np_backend_stats(np_head(loop.be))
    s = &loop.last_stats
    n = &s.counts
    return {
        "backend": loop.backend, "turns": loop.turns,
        "enters": n.enters, "submissions": n.submissions, "completions": n.completions,
        "recv_bytes": n.recv_bytes, "sent_bytes": n.send_bytes, "zc_bytes": n.zc_bytes,
        "kernel_copied_bytes": n.copied_bytes, "unsure_bytes": n.unsure_bytes, "moves": n.moves,
        "notifs_pending": n.notifs_pending, "regions_count": s.regions_count,
        "ops_live": s.ops_live, "enobufs": n.enobufs, "stale": n.stale, "sq_full": n.sq_full,
        "bufs_total": s.bufs_total, "bufs_free": s.bufs_free,
        "features": [name for name, bit in FEATURES.items() if s.features & bit],
        "arena": np_arena_kind_name(s.arena_kind).decode() if s.arena_kind else None,
        "ready_count": loop.ready_count, "timers_count": loop.timers.count,
        "transports_count": loop.transports_count,
    }
