"""Types of arguments, as argparse takes them: lists, names out of a table, bounded numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from typing import Any

__all__ = ["list_of", "number_in", "one_of"]


def list_of(parse: Callable[[str], Any], what: str) -> Callable[[str], tuple[Any, ...]]:
    """The type of "a,b,c"; `parse` raises ValueError with a sentence."""

    def convert(text: str) -> tuple[Any, ...]:
        try:
            items = tuple(parse(part.strip()) for part in text.split(",") if part.strip())
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if not items:
            raise argparse.ArgumentTypeError(f"at least one {what} is needed")
        return tuple(dict.fromkeys(items))

    return convert


def one_of(names: Collection[str], what: str) -> Callable[[str], str]:
    """Parses one of `names`. Raises ValueError with a sentence."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"there is no {what} {text!r}: choose from {', '.join(names)}")
        return text

    return parse


def number_in(
    low: float, high: float, kind: type[int | float] = int, unit: str = ""
) -> Callable[[str], Any]:
    """The type of a number within bounds."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a number from {low:g} to {high:g}{unit}"
            )
        return value

    return convert
