"""Objects that act when a native call runs code of theirs."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

Act = Callable[[], Any]

needs_buffer_classes = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="classes cannot define __buffer__ before Python 3.12"
)


class Number:
    """Does something when it is asked for its value."""

    def __init__(self, act: Act, value: int = 0) -> None:
        self.act, self.value = act, value

    def __index__(self) -> int:
        self.act()
        return self.value

    def __int__(self) -> int:
        return self.__index__()

    def __float__(self) -> float:
        return float(self.__index__())


class Trash:
    """Does something when it is let go of."""

    def __init__(self, act: Act) -> None:
        self.act: Act | None = act

    def __del__(self) -> None:
        act, self.act = self.act, None
        if act is not None:
            act()


class TrashBytes(bytes):
    """A piece of data that does something when it has left."""

    act: Act | None = None

    def __del__(self) -> None:
        if self.act is not None:
            self.act()


class Exporter:
    """Does something when its memory is asked for, and when it is given back."""

    def __init__(self, memory: bytearray | bytes, get: Act, release: Act = lambda: None) -> None:
        self.memory, self.get, self.release = memory, get, release

    def __buffer__(self, _flags: int) -> memoryview:
        self.get()
        return memoryview(self.memory)

    def __release_buffer__(self, view: memoryview) -> None:
        self.release()
        view.release()
