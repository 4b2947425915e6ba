"""Types of what a worker's requests are counted by."""

from typing import TypedDict

class _Reading(TypedDict):
    answers: dict[tuple[str, str], int]
    refused: dict[tuple[str, str], int]
    in_flight: int
    durations: list[tuple[float, int]]
    durations_more: int
    duration_s: float
    stalled: int
    lag_s: float

class Meter:
    def read(self) -> _Reading: ...
