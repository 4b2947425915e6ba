"""How a piece of work is timed here: CPU time per operation, the least of some rounds."""

from collections.abc import Callable
from time import process_time_ns

from pytest_benchmark.fixture import BenchmarkFixture

ROUNDS, WARMUP_ROUNDS = 10, 2


def cpu_ns(work: Callable[[], object], count: int) -> float:
    """Nanoseconds of CPU per operation of a piece of work that does `count` of them."""
    start_ns = process_time_ns()
    work()
    return (process_time_ns() - start_ns) / count


def record(benchmark: BenchmarkFixture, group: str, one_round: Callable[[], float]) -> None:
    """Runs the rounds. `one_round` returns nanoseconds of CPU per operation; the least of them is
    `ns_per_operation`, which benchmarks/gate compares."""
    benchmark.group = group
    figures: list[float] = []
    benchmark.pedantic(
        lambda: figures.append(one_round()), rounds=ROUNDS, warmup_rounds=WARMUP_ROUNDS
    )
    benchmark.extra_info["ns_per_operation"] = round(min(figures), 2)
