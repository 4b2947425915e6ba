"""``python -m netpoll bench``: one command for each kind, and `all`, `compare`, `show`, `agent`.

Exit codes: 0 everything asked for was measured (what is not installed is skipped, and said);
1 something failed or nothing could be measured; 2 wrong usage; 130 interrupted (what was measured
until then is shown and written all the same).
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

from netpoll.bench import agent, compare, everything
from netpoll.bench.command import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    add_options,
    require_packages,
    run_command,
)
from netpoll.bench.document import read_json, write_whole
from netpoll.bench.errors import ServerError, UsageError
from netpoll.bench.registry import all_kinds

__all__ = ["main", "parser"]


def parser() -> argparse.ArgumentParser:
    """The parser of everything behind `bench`. The parsed arguments carry `run`, a function of
    themselves that returns the exit code."""
    whole = argparse.ArgumentParser(
        prog="netpoll bench", description="Benchmarks of netpoll against its peers and its floor."
    )
    commands = whole.add_subparsers(title="benchmarks", metavar="COMMAND", required=True)
    for kind in all_kinds().values():
        command = commands.add_parser(
            kind.name, help=kind.help, description=kind.description, epilog=kind.epilog
        )
        add_options(command, kind)
        command.set_defaults(run=functools.partial(run_command, kind))
    show = commands.add_parser(
        "show", help="a result that was saved: its table, and its page with --html"
    )
    show.add_argument("json", type=Path, metavar="FILE", help="written by an earlier run")
    show.add_argument("--html", type=Path, metavar="PATH", help="where the page goes")
    show.set_defaults(run=run_show)
    both = commands.add_parser(
        "compare",
        help="two results: better, worse, equal, or that one cannot tell",
        description="Judges a run against an earlier one of the same kind, row by row.",
    )
    compare.add_options(both)
    both.set_defaults(run=compare.run_compare)
    other = commands.add_parser(
        "agent",
        help="the other machine of `bench echo` and `bench zerocopy`: runs their arms when asked",
        description="Waits for a harness on another machine that has the same token, and runs the "
        "servers or the load for it: its own arms, and nothing else.",
    )
    agent.add_options(other)
    other.set_defaults(run=agent.run_agent)
    every = commands.add_parser("all", help="every benchmark; with --quick within six minutes")
    everything.add_options(every)
    every.set_defaults(run=functools.partial(everything.run_all, all_kinds(), whole.parse_args))
    return whole


def run_show(options: argparse.Namespace) -> int:
    """``bench show``; returns the exit code."""
    require_packages()
    from rich.console import Console

    from netpoll.bench.display import show
    from netpoll.bench.page import page

    try:
        document = read_json(options.json)
        if options.html:
            write_whole(options.html, page(document))
    except OSError as error:
        raise UsageError(f"cannot use {error.filename}: {error.strerror}") from None
    show(Console(), document)
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """``python -m netpoll.bench``; errors become one sentence. Returns the exit code."""
    options = parser().parse_args(argv)
    try:
        return int(options.run(options))
    except (UsageError, ValueError) as error:
        print(f"netpoll bench: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ServerError as error:  # of what all arms need: the far end of a proxy
        print(f"netpoll bench: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("netpoll bench: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads any more; the interpreter must not complain at its end
        return EXIT_FAILED
