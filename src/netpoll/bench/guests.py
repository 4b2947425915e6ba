"""Arms that the command line brings: `--loop name=module:factory`, `--server name='command'`.

They take part for one run. A kind that takes guests says what they are to it (`Kind.loop_guest`,
`Kind.server_guest`); for the length of the run they stand in its table of arms, as all others do.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from netpoll.bench.errors import UsageError
from netpoll.bench.kind import Kind

__all__ = ["add_options", "admitted"]

NAME = r"[A-Za-z0-9][\w.+-]*"
FACTORY = r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"
PORT = "{port}"


@dataclass(frozen=True)
class Guest:
    """What an option says: a name, and the factory or the command that it stands for."""

    name: str
    text: str


def _guest(text: str) -> Guest:
    name, equals, rest = text.partition("=")
    if not equals or not re.fullmatch(NAME, name):
        raise argparse.ArgumentTypeError(f"{text!r} has no name: write name=...")
    return Guest(name, rest.strip())


def loop(text: str) -> Guest:
    """Parses "name=module:factory"."""
    guest = _guest(text)
    if not re.fullmatch(FACTORY, guest.text):
        raise argparse.ArgumentTypeError(f"{guest.text!r} is no factory: write module:factory")
    return guest


def server(text: str) -> Guest:
    """Parses "name=command", where the command says {port}."""
    guest = _guest(text)
    try:
        words = shlex.split(guest.text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{guest.text!r} is no command: {error}") from None
    if not any(PORT in word for word in words):
        raise argparse.ArgumentTypeError(f"the command of {guest.name} has to say {PORT}")
    return guest


def add_options(group: argparse._ArgumentGroup, kind: Kind) -> None:
    """The two options, for a kind that takes guests."""
    group.add_argument(
        "--loop",
        action="append",
        type=loop,
        default=[],
        metavar="NAME=MODULE:FACTORY",
        help=f"another event loop; {kind.loop_guest_help}; may be given several times",
    )
    group.add_argument(
        "--server",
        action="append",
        type=server,
        default=[],
        metavar="NAME=COMMAND",
        help=f"another server, a command with {PORT}; {kind.server_guest_help}; may be given "
        "several times",
    )


@contextmanager
def admitted(kind: Kind, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Puts the guests of the command line among the kind's arms, and takes them away at the end.
    Gives their names. Raises UsageError when a name is taken."""
    if not kind.takes_guests:
        yield ()
        return
    arms = [kind.loop_guest(guest.name, guest.text) for guest in options.loop]
    arms += [kind.server_guest(g.name, tuple(shlex.split(g.text))) for g in options.server]
    names = [arm.name for arm in arms]
    for name in names:
        if name in kind.arms or names.count(name) > 1:
            raise UsageError(f"there is more than one arm {name!r}: choose another name")
    kind.arms.update(zip(names, arms, strict=True))
    try:
        yield tuple(names)
    finally:
        for name in names:
            del kind.arms[name]
