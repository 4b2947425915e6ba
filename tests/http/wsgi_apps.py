"""WSGI applications for the tests, and what they return."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]

TEXT = [("Content-Type", "text/plain")]


def hello(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", TEXT)
    return [b"hello"]


def echo(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", TEXT)
    return [environ["wsgi.input"].read()]


class Result:
    """An iterable with a close() that is counted."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self.parts = iter(parts)
        self.given = 0
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        part = next(self.parts)
        self.given += 1
        return part

    def close(self) -> None:
        self.closed += 1
