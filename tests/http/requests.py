"""What the tests of requests share: a stream of bytes and what the parser makes of it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netpoll._native.http.parser import RequestParser

if TYPE_CHECKING:  # in the stub only
    from netpoll._native.http.parser import _Event, _Head


@dataclass
class Message:
    """One request, as a reader has understood it."""

    head: "_Head"
    body: bytes = b""
    is_whole: bool = False


@dataclass
class Outcome:
    """What came of a stream: its requests, and what ended it."""

    messages: list[Message] = field(default_factory=list)
    fault: tuple[str, int, str, str] | None = None

    @property
    def fault_name(self) -> str | None:
        return self.fault and self.fault[0]


def collect(events: "list[_Event]") -> Outcome:
    """As a server does: what follows a request that ends its connection is not looked at."""
    outcome = Outcome()
    for event in events:
        if event[0] == "head":
            if outcome.messages and not outcome.messages[-1].head["keep_alive"]:
                break
            outcome.messages.append(Message(event[1]))
        elif event[0] == "data":
            outcome.messages[-1].body += event[1]
        elif event[0] == "end":
            outcome.messages[-1].is_whole = True
        elif not outcome.messages or not outcome.messages[-1].is_whole:
            outcome.fault = event[1:]
        elif outcome.messages[-1].head["keep_alive"]:
            outcome.fault = event[1:]
    return outcome


def read(data: bytes, step: int | None = None, **limits: int) -> Outcome:
    """The whole stream at once, or in parts of `step` bytes."""
    parser = RequestParser(**limits)
    step = step or len(data) or 1
    events: list[_Event] = []
    for at in range(0, len(data), step):
        events += parser.feed(data[at : at + step])
    return collect(events)
