"""The counters of a loop."""

from netpoll._core import Loop
from netpoll.stats import LoopStats

def read_counters(loop: Loop) -> LoopStats: ...
