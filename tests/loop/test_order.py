"""The order of what happens within a turn and between turns: asyncio's, see docs/turn.md.

Generated programs (orders.py) run on asyncio and on netpoll; their traces must be equal. By default
some thousands of them; NETPOLL_ORDER_PROGRAMS=100000 says how many, NETPOLL_ORDER_SEED where to
begin. What fails is made smaller and printed as a literal: paste it into PROGRAMS.
"""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from .order_making import Program, make_program, smallest, step_names
from .orders import Comparison, Search

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
    "what came before reading was paused waits for the turn after resume_reading()": {
        "idle": False,
        "bursts": [
            [("connect", 1, 6, {})],
            *([], []),
            [("pause_reading", 0), ("send", 7)],
            [("send", 7), ("soon", 2, [])],
            [("resume_reading", 0), ("soon", 3, [("soon", 4, [])]), ("later", 5, [])],
        ],
    },
    "what came together with the pause, and more before it ends": {
        "idle": False,
        "bursts": [
            [("connect", 1, 6, {})],
            *([], []),
            [("send", 7), ("soon", 2, [("pause_reading", 0), ("send", 7)])],
            [("send", 7)],
            [("resume_reading", 0), ("soon", 3, [("send", 7)])],
        ],
    },
    "a pause that ends in the same turn takes the call away": {
        "idle": False,
        "bursts": [
            [("connect", 1, 6, {})],
            *([], []),
            [("send", 7)],
            [("pause_reading", 0), ("resume_reading", 0), ("soon", 2, [])],
        ],
    },
    "so do two of them, and one in the turn that would have delivered": {
        "idle": False,
        "bursts": [
            [("connect", 1, 6, {})],
            *([], []),
            [("send", 7)],
            *([("pause_reading", 0), ("resume_reading", 0), ("soon", n, [])] for n in (2, 3)),
        ],
    },
    "a pause that ends within data_received": {
        "idle": False,
        "bursts": [
            [("connect", 1, 6, {"data": [("pause_reading", 0), ("resume_reading", 0)]})],
            *([], []),
            [("send", 7)],
            [("send", 7), ("soon", 2, [])],
        ],
    },
    "an accepted connection is paused and resumed in one turn": {
        "idle": False,
        "bursts": [
            [("serve", 1, {}), ("client", 0), ("client_send", 0)],
            *([], [], []),
            *([("pause_reading", 0), ("resume_reading", 0), ("soon", n, [])] for n in (2, 3)),
        ],
    },
    "the end comes while reading is paused": {
        "idle": False,
        "bursts": [
            [("connect", 1, 6, {"keep": []})],
            *([], []),
            [("send", 7), ("shut", 7)],
            [("pause_reading", 0), ("soon", 2, [])],
            [("resume_reading", 0), ("soon", 3, [("soon", 4, [])])],
        ],
    },
    "who has heard the end and resumes reading hears it again": {
        "idle": False,
        "bursts": [
            [("connect", 1, 6, {"keep": []})],
            *([], []),
            [("shut", 7)],
            [],
            [("pause_reading", 0)],
            [("resume_reading", 0), ("soon", 2, [])],
            [],
            [("pause_reading", 0), ("resume_reading", 0), ("soon", 3, [])],
        ],
    },
    "who resumes reading within eof_received does not": {
        "idle": False,
        "bursts": [
            [
                (
                    "connect",
                    1,
                    6,
                    {"keep": [], "eof": [("pause_reading", 0), ("resume_reading", 0)]},
                )
            ],
            *([], []),
            [("shut", 7)],
        ],
    },
    "a connection that was closed is lost with its last byte": {
        "idle": False,
        "bursts": [
            [("connect", 1, 4, {"lost": [("soon", 2, [])]})],
            *([], []),
            [("write_much", 0), ("close", 0)],
            *([("recv", 5), ("soon", n, [])] for n in range(3, 10)),
        ],
    },
    # Three that say whether the reference finds asyncio's order.
    "a connection whose label is the number of an end": {
        "idle": False,
        "bursts": [
            [
                (
                    "connect",
                    1,
                    6,
                    {
                        "factory": [("reader", 3, 0, "drain", [])],
                        "made": [("set_protocol", 4, 2, {}), ("send_from_thread", 5)],
                    },
                )
            ],
            [
                (
                    "writer",
                    8,
                    3,
                    "stay",
                    [
                        ("reader", 9, 2, "drain", []),
                        ("past", 11, [("writer", 12, 1, "stay", [])]),
                    ],
                ),
                ("send", 3),
            ],
            [("send", 1), ("send", 7)],
        ],
    },
    "accepting between a reader and a writer": {
        "idle": False,
        "bursts": [
            [("shut", 3)],
            [],
            [
                ("soon", 5, [("reader", 9, 3, "stay", [("soon", 10, [])])]),
                ("writer", 11, 1, "stay", [("task", 12, [])]),
                ("serve", 13, {}),
            ],
            [("client", 1), ("reader", 14, 2, "drain", []), ("send", 2)],
        ],
    },
    "accepting in several turns, each time at another place": {
        "idle": False,
        "bursts": [
            [("later", 1, [("shut", 0)]), ("serve", 12, {})],
            [
                (
                    "reader",
                    10,
                    1,
                    "drain",
                    [("task", 11, [("zero",), ("steps", [("later", 14, [("client", 0)])])])],
                )
            ],
            *([], []),
            [("send", 1), ("reader", 18, 0, "stay", [("soon", 15, [])])],
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
    "what is written leaves when the turn ends, and that it failed is heard then": (
        BOTH,
        {
            "idle": False,
            "bursts": [[("connect", 1, 4, {})], [], [], [("write", 0), ("recv_raw", 5)]],
        },
        [{"write", "client_close"}, {"write_much", "client_close"}],
    ),
    "datagrams leave when the turn ends, and that sending failed is heard then": (
        BOTH,
        {
            "idle": False,
            "bursts": [
                [("endpoint", 1, 8, {})],
                *([], []),
                [("close_end", 9), ("soon", 2, [("sendto", 0), ("soon", 3, [])]), ("later", 4, [])],
            ],
        },
        [{"sendto", "close_end"}, {"sendto_much", "close_end"}],
    ),
    "several datagrams are received in one turn": (
        BOTH,
        {
            "idle": False,
            "bursts": [
                [("endpoint", 1, 8, {"got": [("soon", 2, [])]})],
                *([], []),
                [("send", 9), ("send", 9), ("send", 9)],
            ],
        },
        [],  # the reference can do it as well: BurstingTransport
    ),
    "who closes when told of room is lost once, in the next turn": (
        BOTH,
        {
            "idle": False,
            "bursts": [
                [("connect", 1, 4, {"resume": [("close", 0), ("soon", 2, [])]})],
                *([], []),
                [("write_much", 0)],
                *([("recv", 5), ("soon", n, [])] for n in range(3, 10)),
            ],
        },
        [],  # generated programs have not the turns to receive so much
    ),
    "how much a full socket takes of what is written in pieces": (
        BOTH,
        {
            "idle": False,
            "bursts": [
                [("connect", 1, 4, {})],
                *([], []),
                [("write", 0), ("write_much", 0)],
                [("recv", 5)],
            ],
        },
        [],  # amounts like these are not compared
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
        assert comparison.difference(program, is_strict=True) is not None, "take it off the list"


def test_a_search_looks_labels_up() -> None:
    """Also where a label is the number of another one's descriptor (bug class 50)."""
    readers = [("reader", 7, 0, "once", []), ("reader", 5, 2, "once", [])]
    search = Search({"idle": False, "bursts": [readers]}, ["turn 0", "7 reader 1", "5 reader 1"])
    run: Any = SimpleNamespace(turn=0, trace=[], early=None, end_number={0: 5, 2: 7}.__getitem__)
    search.begin(run)
    assert search.likely_order([5, 7]) == [0, 1]
