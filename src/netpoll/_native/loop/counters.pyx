# cython: language_level=3, freethreading_compatible=True
"""The counters of a loop, under the names that loop.stats() documents."""

from netpoll._core cimport Loop
from netpoll._native.c cimport np_arena_kind_name

from netpoll._core import FEATURES


def read_counters(Loop loop not None):
    """What loop.stats() returns: see there."""
    if loop.be is not NULL:
        loop.ops.stats(loop.be, &loop.last_stats)
    s = &loop.last_stats
    return {
        "backend": loop.backend, "turns": loop.turns,
        "enters": s.enters, "submissions": s.submissions, "completions": s.completions,
        "recv_bytes": s.recv_bytes, "send_bytes": s.send_bytes, "zc_bytes": s.zc_bytes,
        "copied_bytes": s.copied_bytes, "unsure_bytes": s.unsure_bytes, "moves": s.moves,
        "notifs_pending": s.notifs_pending, "regions_count": s.regions_count,
        "ops_live": s.ops_live, "enobufs": s.enobufs, "stale": s.stale, "sq_full": s.sq_full,
        "bufs_total": s.bufs_total, "bufs_free": s.bufs_free,
        "features": [name for name, bit in FEATURES.items() if s.features & bit],
        "arena": np_arena_kind_name(s.arena_kind).decode() if s.arena_kind else None,
        "ready_count": loop.ready_count, "timers_count": loop.timers.count,
        "transports_count": loop.transports_count,
    }
