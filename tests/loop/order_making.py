"""Programs out of seeds, for orders.py, and smaller ones out of those that fail."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

Step = tuple[Any, ...]
Program = dict[str, Any]

# Ends 2k and 2k + 1 are the two sides of pair k.
RAW_ENDS = (0, 1, 2, 3)
TRANSPORT_ENDS = (4, 6)
DATAGRAM_ENDS = (8, 10)


class Maker:
    """Makes programs out of a seed: the same seed, the same program."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.labels_count = 0
        self.has_transport = self.has_server = self.has_endpoint = False

    def program(self) -> Program:
        rnd = self.random
        return {
            "idle": rnd.random() < 0.06,
            "bursts": [self.body(0, rnd.randint(1, 5)) for _ in range(rnd.randint(1, 5))],
        }

    def body(self, depth: int, count: int) -> list[Step]:
        return [self.step(depth) for _ in range(count)]

    def inner(self, depth: int) -> list[Step]:
        """The steps of a callback; fewer the deeper it is."""
        if depth >= 3:
            return []
        return self.body(depth + 1, self.random.choice((0, 0, 1, 1, 2, 3)))

    def label(self) -> int:
        self.labels_count += 1
        return self.labels_count

    def end(self) -> int:
        return self.random.choice(RAW_ENDS)

    def peer(self) -> int:
        """An end that steps may send from: a raw one, or the far side of a transport's."""
        ends = RAW_ENDS + tuple(end + 1 for end in TRANSPORT_ENDS if self.has_transport)
        ends += tuple(end + 1 for end in DATAGRAM_ENDS if self.has_endpoint)
        return self.random.choice(ends)

    def mode(self) -> str:
        return self.random.choice(("drain", "once", "stay"))

    def number(self) -> int:
        return self.random.randint(0, 3)

    def awaits(self, depth: int) -> list[Step]:
        makers: tuple[Callable[[], Step], ...] = (
            lambda: ("zero",),
            lambda: ("future", self.number()),
            lambda: ("sendall", self.end()),
            lambda: ("steps", self.inner(depth)),
        )
        return [self.random.choice(makers)() for _ in range(self.random.randint(0, 3))]

    def script(self, depth: int) -> dict[str, list[Step]]:
        events = ("factory", "made", "data", "eof", "lost", "pause", "resume")
        script = {name: self.inner(depth) for name in events if self.random.random() < 0.4}
        if self.random.random() < 0.5:
            script["keep"] = []
        return script

    def connect(self, depth: int) -> Step:
        self.has_transport = True
        return ("connect", self.label(), self.random.choice(TRANSPORT_ENDS), self.script(depth))

    def serve(self, depth: int) -> Step:
        self.has_transport = self.has_server = True
        return ("serve", self.label(), self.script(depth))

    def endpoint(self, depth: int) -> Step:
        self.has_endpoint = True
        events = ("factory", "made", "got", "error", "lost", "pause", "resume")
        script = {name: self.inner(depth) for name in events if self.random.random() < 0.4}
        return ("endpoint", self.label(), self.random.choice(DATAGRAM_ENDS), script)

    def step(self, depth: int) -> Step:
        while True:
            make = self.random.choices(MAKERS, WEIGHTS)[0]
            if made := make(self, depth):
                return made


def of_transport(name: str) -> Callable[[Maker, int], Step | None]:
    return lambda m, depth: (name, m.number()) if m.has_transport else None


def of_server(name: str) -> Callable[[Maker, int], Step | None]:
    return lambda m, depth: (name, m.number()) if m.has_server else None


def of_endpoint(name: str) -> Callable[[Maker, int], Step | None]:
    return lambda m, depth: (name, m.number()) if m.has_endpoint else None


# weight, and what makes the step; None: not now
STEPS: list[tuple[int, Callable[[Maker, int], Step | None]]] = [
    (10, lambda m, depth: ("soon", m.label(), m.inner(depth))),
    (6, lambda m, depth: ("later", m.label(), m.inner(depth))),
    (2, lambda m, depth: ("past", m.label(), m.inner(depth))),
    (1, lambda m, depth: ("due", m.label(), m.inner(depth))),
    (3, lambda m, depth: ("cancel", m.number())),
    (1, lambda m, depth: ("post", m.label(), m.inner(depth))),
    (3, lambda m, depth: ("post_self", m.label(), m.inner(depth))),
    (1, lambda m, depth: ("stop",)),
    (8, lambda m, depth: ("reader", m.label(), m.end(), m.mode(), m.inner(depth))),
    (5, lambda m, depth: ("writer", m.label(), m.end(), m.mode(), m.inner(depth))),
    (3, lambda m, depth: ("unreader", m.end())),
    (2, lambda m, depth: ("unwriter", m.end())),
    (12, lambda m, depth: ("send", m.peer())),
    (1, lambda m, depth: ("send_from_thread", m.peer())),
    (3, lambda m, depth: ("recv", m.peer())),
    (1, lambda m, depth: ("fill", m.end())),
    (2, lambda m, depth: ("shut", m.peer())),
    (1, lambda m, depth: ("renew", m.end())),
    (1, lambda m, depth: ("pause",)),
    (3, lambda m, depth: ("resolve", m.number())),
    (2, lambda m, depth: ("callback", m.label(), m.number(), m.inner(depth))),
    (4, lambda m, depth: ("task", m.label(), m.awaits(depth))),
    (2, lambda m, depth: ("cancel_task", m.number())),
    (3, lambda m, depth: m.connect(depth)),
    (3, of_transport("close")),
    (2, of_transport("abort")),
    (3, of_transport("pause_reading")),
    (3, of_transport("resume_reading")),
    (2, of_transport("closing")),
    (4, of_transport("write")),
    (2, of_transport("write_much")),
    (1, of_transport("write_eof")),
    (
        1,
        lambda m, depth: (
            ("set_protocol", m.label(), m.number(), m.script(depth)) if m.has_transport else None
        ),
    ),
    (2, lambda m, depth: m.serve(depth)),
    (8, of_server("client")),
    (8, of_server("client_send")),
    (2, of_server("client_shut")),
    (2, of_server("client_close")),
    (1, of_server("unserve")),
    (2, lambda m, depth: m.endpoint(depth)),
    (4, of_endpoint("sendto")),
    (2, of_endpoint("sendto_much")),
    (2, of_endpoint("endpoint_close")),
    (1, of_endpoint("endpoint_abort")),
    (2, of_endpoint("endpoint_pause")),
    (2, of_endpoint("endpoint_resume")),
    (
        1,
        lambda m, depth: (
            ("close_end", m.random.choice(DATAGRAM_ENDS) + 1) if m.has_endpoint else None
        ),
    ),
]
MAKERS = [make for _, make in STEPS]
WEIGHTS = [weight for weight, _ in STEPS]


def make_program(seed: int) -> Program:
    return Maker(seed).program()


# ---- looking at programs, making them smaller ---------------------------------------------------


def step_names(program: Program) -> Iterator[str]:
    """The names of all steps and awaits of a program."""
    for burst in program["bursts"]:
        for name, *_ in all_steps(burst):
            yield name


def all_steps(body: list[Step]) -> Iterator[Step]:
    for step in body:
        yield step
        for part in step[1:]:
            if isinstance(part, list):
                yield from all_steps(part)
            elif isinstance(part, dict):
                for inner in part.values():
                    yield from all_steps(inner)


def smaller(program: Program) -> Iterator[Program]:
    """The same program with one thing less."""
    for at, burst in enumerate(program["bursts"]):
        if len(program["bursts"]) > 1 and at == len(program["bursts"]) - 1 and not burst:
            yield {**program, "bursts": program["bursts"][:-1]}
        for body in smaller_bodies(burst):
            bursts = list(program["bursts"])
            bursts[at] = body
            yield {**program, "bursts": bursts}


def smaller_bodies(body: list[Step]) -> Iterator[list[Step]]:
    for at in range(len(body)):
        yield body[:at] + body[at + 1 :]
    for at, step in enumerate(body):
        for k, part in enumerate(step):
            if isinstance(part, list):
                for less in smaller_bodies(part):
                    yield [*body[:at], (*step[:k], less, *step[k + 1 :]), *body[at + 1 :]]
            elif isinstance(part, dict):
                for name in part:
                    rest = {key: value for key, value in part.items() if key != name}
                    yield [*body[:at], (*step[:k], rest, *step[k + 1 :]), *body[at + 1 :]]
                    for less in smaller_bodies(part[name]):
                        changed = {**part, name: less}
                        yield [*body[:at], (*step[:k], changed, *step[k + 1 :]), *body[at + 1 :]]


def smallest(program: Program, fails: Callable[[Program], bool]) -> Program:
    """A program that still fails, and no longer does with anything less."""
    while True:
        for candidate in smaller(program):
            if fails(candidate):
                program = candidate
                break
        else:
            return program
