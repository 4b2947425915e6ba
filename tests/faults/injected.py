"""Runs the programs of bad_days.py until so many faults have happened to them.

    python -m tests.faults.injected --faults 1000000 --backend uring --seed 1
    python -m tests.faults.injected --faults 1000000 --backend epoll --tls --seed 1

Each round has a seed of its own, the next number. One that fails ends the run, with the command
that repeats it. A round that hangs ends by its own time limit; one whose loop does not turn any
more ends the process, with the stack of every thread.
"""

import argparse
import collections
import faulthandler
import sys
import time

from netpoll.testing import KINDS
from tests.faults.bad_days import ROUND_TIMEOUT_S, BrokenError, Round


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.injected", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--backend", choices=("uring", "epoll"), default="uring")
    parser.add_argument("--faults", type=int, default=1_000_000, help="how many, at least")
    parser.add_argument("--rounds", type=int, default=0, help="at most; 0: as many as it takes")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--rate", type=float, default=0.1, help="of faults where one can happen")
    parser.add_argument("--tls", action="store_true", help="every connection")
    parser.add_argument("--told", action="store_true", help="errors, too: connections end of them")
    return parser.parse_args()


def run(
    backend: str,
    faults: int,
    *,
    rounds: int = 0,
    seed: int = 1,
    rate: float = 0.1,
    tls: bool = False,
    told: bool = False,
    is_loud: bool = False,
) -> collections.Counter[str]:
    """Rounds until `faults` have happened; how many of each kind. Raises BrokenError."""
    total: collections.Counter[str] = collections.Counter()
    count = 0
    while total.total() < faults and not (rounds and count == rounds):
        faulthandler.dump_traceback_later(2 * ROUND_TIMEOUT_S, exit=True)
        try:
            total.update(Round(backend, seed + count, tls=tls, rate=rate, told=told).run())
        finally:
            faulthandler.cancel_dump_traceback_later()
        count += 1
        if is_loud and count % 100 == 0:
            print(f"{count} rounds, {total.total()} faults", flush=True)
    return total


def main() -> int:
    given = vars(arguments())
    backend, faults = given.pop("backend"), given.pop("faults")
    start_s = time.monotonic()
    try:
        total = run(backend, faults, is_loud=True, **given)
    except BrokenError as error:
        print(error, file=sys.stderr)
        return 1
    for kind in KINDS:
        print(f"{kind:12} {total[kind]:9}")
    print(f"{'all':12} {total.total():9} in {time.monotonic() - start_s:.0f} s, on {backend}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
