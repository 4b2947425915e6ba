"""``bench bursts``: as `bench broadcast`, with eight lines at a time."""

from __future__ import annotations

from netpoll.bench.kinds.broadcast import BroadcastKind

__all__ = ["KIND"]


class Bursts(BroadcastKind):
    name = "bursts"
    what = "8 lines of 1 KiB at a time to 200 connections; ns per line and connection"
    lines_at_once = 8


KIND = Bursts()
