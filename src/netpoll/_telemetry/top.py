"""`netpoll top PID`: what the loops of a running program do, a line for each."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from netpoll._telemetry import screen
from netpoll._telemetry.look import LookError, Watched

__all__ = ["main"]

EVERY_S = 1.0


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    watched = Watched(options.pid)
    try:
        if options.json:
            print_json(watched, options.every, options.once)
        elif options.once:
            before = watched.readings()
            time.sleep(options.every)
            print("\n".join(screen.lines(before, watched.readings(), *screen.PLAIN_SIZE)))
        else:
            screen.show(watched, options.every)
    except LookError as exc:
        print(f"netpoll: {exc}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        watched.close()
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="netpoll top",
        description="Shows what the loops, servers and schedulers of a running program do. The "
        "program was started with NETPOLL_TOP=1, or by `netpoll serve --top`. Ctrl-C ends it.",
    )
    made.add_argument("pid", type=int, metavar="PID", help="of the program; its children as well")
    made.add_argument(
        "--every", type=float, default=EVERY_S, metavar="SECONDS", help="between two readings (1)"
    )
    made.add_argument("--once", action="store_true", help="one reading, without a screen")
    made.add_argument(
        "--json", action="store_true", help="a line of JSON for each reading: all counters"
    )
    return made


def print_json(watched: Watched, every_s: float, once: bool) -> None:
    while True:
        reading: dict[str, Any] = {"time_s": time.time(), "processes": watched.readings()}
        print(json.dumps(reading), flush=True)
        if once:
            return
        time.sleep(every_s)
