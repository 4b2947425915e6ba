"""Types of what a worker's requests are counted by."""

from typing import TypedDict

class _Ended(TypedDict):
    """Requests of one method (None: of many, or of none that is known) that ended with one status
    (0: without an answer)."""

    method: str | None
    status: int
    durations: list[int]
    duration_s: float

class _Reading(TypedDict):
    """durations of ended: counts by `ends_s`, the upper ends of the buckets, and one beyond."""

    ended: list[_Ended]
    ends_s: list[float]
    refused: dict[tuple[str, int], int]
    active: int
    stalled: int

class Meter:
    def read(self) -> _Reading: ...
