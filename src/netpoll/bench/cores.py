"""Which core the servers run on, and which one the load."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Pinning", "choose_pinning", "on_cpu"]


@dataclass(frozen=True)
class Pinning:
    """Which core the servers run on and which one the load."""

    server_cpu: int
    load_cpu: int

    @property
    def shared(self) -> bool:
        return self.server_cpu == self.load_cpu

    def sentence(self) -> str:
        if self.shared:
            return (
                f"one core only: servers and load share CPU {self.server_cpu}, so rates and "
                "latencies are of the pair; CPU per request is still the server's own"
            )
        return f"servers on CPU {self.server_cpu}, load on CPU {self.load_cpu}"


def _siblings(cpu: int) -> set[int]:
    """The hardware threads that share a core with `cpu`, itself included."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        text = path.read_text().strip()
    except OSError:
        return {cpu}
    result: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        result.update(range(int(first), int(last or first) + 1))
    return result


def choose_pinning(server_cpu: int | None = None, load_cpu: int | None = None) -> Pinning:
    """Two different physical cores of those this process may use; the last one for the servers,
    because interrupts like the first. Raises ValueError for a core that is not available."""
    allowed = sorted(os.sched_getaffinity(0))
    for cpu in (server_cpu, load_cpu):
        if cpu is not None and cpu not in allowed:
            raise ValueError(
                f"CPU {cpu} is not available: this process may use {', '.join(map(str, allowed))}"
            )
    if server_cpu is None:
        server_cpu = max((cpu for cpu in allowed if cpu != load_cpu), default=allowed[0])
    if load_cpu is None:
        apart = [cpu for cpu in allowed if cpu not in _siblings(server_cpu)]
        others = [cpu for cpu in allowed if cpu != server_cpu]
        load_cpu = (apart or others or allowed)[0]
    return Pinning(server_cpu, load_cpu)


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Keeps the calling thread on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
