"""The order of what happens within a turn and between turns: asyncio's, see docs/turn.md.

Generated programs (orders.py) run on asyncio and on netpoll; their traces must be equal. By default
some thousands of them; NETPOLL_ORDER_PROGRAMS=100000 says how many, NETPOLL_ORDER_SEED where to
begin. What fails is made smaller and printed as a literal: paste it into PROGRAMS.
"""

import os
from collections.abc import Iterator

import pytest

from .order_making import Program, make_program, smallest, step_names
from .orders import Comparison

PROGRAMS_COUNT = int(os.environ.get("NETPOLL_ORDER_PROGRAMS", "2000"))
FIRST_SEED = int(os.environ.get("NETPOLL_ORDER_SEED", "1"))

# Programs that once were different, and those that say one thing each.
PROGRAMS: dict[str, Program] = {
    "a timer of no delay lets a ready descriptor go first": {
        "idle": False,
        "bursts": [[("send", 1), ("later", 1, []), ("reader", 2, 0, "once", [])]],
    },
    "what another thread posts before a descriptor is ready runs before its handler": {
        "idle": False,
        "bursts": [[("reader", 1, 0, "once", [])], [("post", 2, []), ("send_from_thread", 1)]],
    },
    "a reader that replaces another waits for a new poll": {
        "idle": False,
        "bursts": [
            [("send", 1), ("reader", 1, 0, "stay", [])],
            [("recv", 0), ("reader", 2, 0, "stay", [])],
        ],
    },
    "a writer that replaces another waits for a new poll": {
        "idle": False,
        "bursts": [
            [("writer", 1, 0, "stay", [])],
            [("fill", 0), ("writer", 2, 0, "stay", [])],
        ],
    },
    "a reader that is removed and added waits for a new poll": {
        "idle": False,
        "bursts": [
            [("send", 1), ("reader", 1, 0, "stay", [])],
            [("recv", 0), ("unreader", 0), ("reader", 2, 0, "stay", [])],
        ],
    },
    "of one descriptor that is ready both ways the reader goes first": {
        "idle": False,
        "bursts": [[("writer", 1, 0, "stay", []), ("reader", 2, 0, "stay", []), ("send", 1)]],
    },
    "a reader that removes the writer of its descriptor": {
        "idle": False,
        "bursts": [
            [
                ("writer", 1, 0, "stay", []),
                ("reader", 2, 0, "stay", [("unwriter", 0)]),
                ("send", 1),
            ]
        ],
    },
    "what was readable while the loop slept, and is no more": {
        "idle": True,
        "bursts": [[("reader", 1, 1, "drain", [])], [("send", 0), ("recv", 1)]],
    },
    "a timer that a callback of this turn has cancelled": {
        "idle": False,
        "bursts": [[("later", 1, []), ("soon", 2, [("cancel", 1)])]],
    },
    "an accepted connection: factory, connection_made, data, eof, connection_lost": {
        "idle": False,
        "bursts": [
            [
                ("serve", 1, {n: [("soon", 2, [])] for n in ("factory", "made", "data", "eof")}),
                *(("client", 0), ("client", 0), ("client_send", 0), ("client_shut", 0)),
            ]
        ],
    },
    "a connection that comes while others are being made": {
        "idle": False,
        "bursts": [
            [("serve", 1, {"factory": [("client", 0), ("soon", 2, [])]}), ("client", 0)],
            *([], []),
            [("client", 0), ("client_send", 1)],
        ],
    },
    "the protocol that is told of room, after what was posted": {
        "idle": False,
        "bursts": [
            [("connect", 1, 4, {"pause": [("soon", 2, [])], "resume": [("soon", 3, [])]})],
            *([], []),
            [("write_much", 0), ("soon", 4, [])],
            [("recv", 5), ("soon", 5, [])],
            *([("recv", 5), ("soon", 6, [("recv", 5)])] for _ in range(4)),
        ],
    },
    "what a new protocol hears": {
        "idle": False,
        "bursts": [
            [("connect", 1, 4, {})],
            *([], []),
            [("send", 5), ("set_protocol", 2, 0, {"data": [("close", 0), ("soon", 3, [])]})],
        ],
    },
    "what a timer and a handler post waits for the next turn": {
        "idle": False,
        "bursts": [
            [
                ("send", 1),
                ("reader", 1, 0, "once", [("soon", 2, []), ("later", 3, [])]),
                ("later", 4, [("soon", 5, []), ("later", 6, [])]),
                ("soon", 7, [("soon", 8, []), ("later", 9, [])]),
            ]
        ],
    },
}


# What netpoll does differently on purpose: docs/turn.md has the reasons. For each the backends, a
# program that shows it, and steps: a generated program that has them all is left out, because it
# may meet the difference.
BOTH = ("uring", "epoll", "sqpoll")
RING = ("uring", "sqpoll")
Difference = tuple[tuple[str, ...], Program, list[set[str]]]
DIFFERENCES: dict[str, Difference] = {
    "bytes are received when the turn polls": (
        BOTH,
        {
            "idle": False,
            "bursts": [
                [("connect", 1, 6, {})],
                [],
                [("writer", 2, 3, "stay", [("soon", 3, [("send", 7)])])],
            ],
        },
        [],  # the reference can do it as well: EarlySocket
    ),
    "what came while reading was being paused is delivered first": (
        RING,
        {
            "idle": False,
            "bursts": [
                [],
                [
                    (
                        "connect",
                        2,
                        6,
                        {"factory": [("post", 4, [("send", 3), ("shut", 7)])], "keep": []},
                    ),
                    ("past", 5, [("reader", 6, 2, "drain", [("pause_reading", 3)])]),
                ],
                [("send", 2), ("reader", 9, 3, "stay", [("resume_reading", 1)])],
            ],
        },
        [{"connect", "resume_reading"}],
    ),
    "a pause that ends in the same turn takes no call away": (
        BOTH,
        {
            "idle": False,
            "bursts": [
                [("connect", 1, 6, {})],
                *([], []),
                [("send", 7)],
                [("pause_reading", 0), ("resume_reading", 0), ("soon", 2, [])],
            ],
        },
        [{"connect", "resume_reading"}, {"serve", "resume_reading"}],
    ),
    "what is written leaves when the turn ends, and that it failed is heard then": (
        BOTH,
        {
            "idle": False,
            "bursts": [[("connect", 1, 4, {})], [], [], [("write", 0), ("recv_raw", 5)]],
        },
        [{"write", "client_close"}, {"write_much", "client_close"}],
    ),
    "a connection whose server is closed before its protocol was made is closed at once": (
        BOTH,
        {
            "idle": False,
            "bursts": [
                [("serve", 1, {"factory": [("unserve", 0)]}), ("client", 0)],
                *([], [], [], []),
                [("client_send", 0)],
            ],
        },
        [{"unserve", name} for name in ("client_send", "client_shut")],
    ),
    "a writer that waits for room of a peer that has shut its side is called a turn later": (
        RING,
        {
            "idle": False,
            "bursts": [
                [("fill", 1), ("shut", 0), ("writer", 1, 1, "stay", [])],
                *([], [], []),
                [("recv", 0)],
            ],
        },
        [{"fill", "shut", "writer"}],
    ),
    "sock_recv does not try where the last one has emptied the socket": (
        BOTH,
        {
            "idle": False,
            "bursts": [
                [("send", 1), ("task", 1, [("recv", 0)])],
                [],
                [],
                [("send", 1), ("task", 2, [("recv", 0)])],
            ],
        },
        [],  # generated tasks do not receive
    ),
    "a socket call that had to wait is made when its task goes on": (
        BOTH,
        {
            "idle": False,
            "bursts": [
                [("fill", 1), ("task", 1, [("sendall", 1)])],
                [],
                [("reader", 2, 0, "drain", [])],
            ],
        },
        [{"fill", "sendall"}],
    ),
}


@pytest.fixture
def comparison(backend: str) -> Iterator[Comparison]:
    comparison = Comparison(backend)
    yield comparison
    comparison.close()


def is_left_out(program: Program) -> bool:
    """Whether a program may meet one of the DIFFERENCES."""
    names = set(step_names(program))
    return any(steps <= names for _, _, sets in DIFFERENCES.values() for steps in sets)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_has_asyncios_order(comparison: Comparison, name: str) -> None:
    different = comparison.difference(PROGRAMS[name])
    assert different is None, different


def is_wrong(comparison: Comparison, program: Program) -> bool:
    return not is_left_out(program) and comparison.is_different(program)


def test_generated_programs_have_asyncios_order(comparison: Comparison) -> None:
    for seed in range(FIRST_SEED, FIRST_SEED + PROGRAMS_COUNT):
        program = make_program(seed)
        if is_wrong(comparison, program):
            program = smallest(program, lambda less: is_wrong(comparison, less))
            pytest.fail(f"seed {seed}\n{comparison.difference(program)}")


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_listed_difference_is_still_there(
    comparison: Comparison, backend: str, name: str
) -> None:
    backends, program, _ = DIFFERENCES[name]
    if backend in backends:
        assert comparison.difference(program, is_early=False) is not None, "take it off the list"
