"""``bench all``: every kind after the other, each with its table, its file and its page."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from netpoll.bench.command import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    duration_text,
    file_name,
    require_packages,
)
from netpoll.bench.errors import ServerError, UsageError
from netpoll.bench.kind import Kind

__all__ = ["QUICK_TOTAL_S", "add_options", "quick_limit_s", "run_all"]

QUICK_TOTAL_S = 330.0  # of six minutes
# Of each kind: its imports, the check of its arms, its table and its page.
AROUND_S = 6.0

Parse = Callable[[list[str]], argparse.Namespace]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quick", action="store_true", help="a first impression: ends within six minutes"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(),
        metavar="PATH",
        help="where the files go; default: here",
    )


def quick_limit_s(left_s: float, count: int) -> float:
    """How long the next one of so many kinds may measure, when there is so much time for all."""
    return left_s / count - AROUND_S


def _words(kind: Kind, options: argparse.Namespace) -> list[str]:
    files = [str(options.directory / file_name(kind, suffix)) for suffix in ("json", "html")]
    quick = ["--quick"] if options.quick else []
    return [kind.name, *quick, "--json", files[0], "--html", files[1]]


def run_all(kinds: dict[str, Kind], parse: Parse, options: argparse.Namespace) -> int:
    """Runs every kind that is in it, those that fill their time last: they have what the others
    leave. One that cannot be run here is said, and the others are run.
    Returns the worst exit code. `parse`: of the words of one command."""
    require_packages()
    start_s = time.monotonic()
    codes = {}
    chosen = [kind for kind in kinds.values() if kind.is_in_all]
    chosen.sort(key=lambda kind: kind.fills_limit)
    for number, kind in enumerate(chosen):
        print(f"\nnetpoll bench {kind.name}", flush=True)
        one = parse(_words(kind, options))
        if options.quick:
            left_s = QUICK_TOTAL_S - (time.monotonic() - start_s)
            one.quick_limit_s = quick_limit_s(left_s, len(chosen) - number)
        try:
            codes[kind.name] = int(one.run(one))
        except (UsageError, ValueError, ServerError) as error:
            print(f"netpoll bench {kind.name}: {error}", file=sys.stderr)
            codes[kind.name] = EXIT_FAILED
        if codes[kind.name] == EXIT_INTERRUPTED:
            return EXIT_INTERRUPTED
    failed = [name for name, code in codes.items() if code]
    said = f"; with failures: {', '.join(failed)}" if failed else ""
    print(f"\n{len(codes)} benchmarks in {duration_text(time.monotonic() - start_s)}{said}.")
    return EXIT_FAILED if failed else EXIT_OK
