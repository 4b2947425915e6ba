"""``bench accept``, ``proxy``, ``broadcast``, ``bursts``: from the options to the report."""

from __future__ import annotations

import argparse
import sys

from netpoll.bench.relay import WORKS as RELAYS

__all__ = ["RELAYS", "run_relay_command"]


def run_relay_command(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    from netpoll.bench import cli

    cli.require_packages()
    from rich.console import Console

    from netpoll.bench import display, relay
    from netpoll.bench.document import arm_facts, header

    console = Console()
    arms = cli.chosen_arms(options, "relay")
    pinning, environment = cli._environment(options)
    checked, able = cli._check(arms, console)
    plan = relay.RelayPlan(
        work=options.work,
        arms=able,
        pinning=pinning,
        rounds=options.rounds or (2 if options.quick else 5),
        limit_s=cli.QUICK_LIMIT_S if options.quick else None,
    )
    what = f"{display.counted(len(able), 'server')}, {display.counted(plan.rounds, 'round')}."
    cli._announce(console, what, plan)
    with display.ProgressBar(console, plan.rounds * len(able)) as bar:
        run = relay.run_relay(plan, bar)
    head = header("relay", environment, sys.argv[1:], run.started_at)
    document = relay.relay_document(run, head, arm_facts(list(checked), checked, "all"))
    return cli._finish(document, options, options.work, console)
