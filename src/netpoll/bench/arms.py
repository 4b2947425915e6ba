"""Who takes part in a benchmark: event loops, stdlib sockets, the floors in C, other programs.

An arm is only a description here. Whether a `SocketArm` can run is found out in a child process
(``python -m netpoll.bench.server --arm X --check``), so that a peer that crashes at its import
takes nobody with it, and an arm that is measured never shares a process with another.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, cast

from netpoll.bench.errors import ArmUnavailable
from netpoll.bench.records import Facts

__all__ = [
    "AGAIN",
    "ARMS",
    "DEFAULT_ARMS",
    "ECHO_MODES",
    "LONE_MODES",
    "LOOP_ARMS",
    "LOOP_MODES",
    "PEER_ARMS",
    "SERVER_MODES",
    "TLS_MODE",
    "UDP_MODE",
    "Arm",
    "CommandArm",
    "SocketArm",
    "is_own",
    "loop_guest",
]

LoopFactory = Callable[..., asyncio.AbstractEventLoop]

# Of an event loop over connections; and all that `bench echo` can measure.
LOOP_MODES = ("protocol", "streams", "sock")
UDP_MODE = "udp"
SERVER_MODES = ("on_data", "session")
TLS_MODE = "tls"  # the protocol mode over TLS 1.3
ECHO_MODES = (*LOOP_MODES, *SERVER_MODES, UDP_MODE, TLS_MODE)
# A load of their own each, so they are never mixed with others in one run. Each has a scenario.
LONE_MODES = (UDP_MODE, TLS_MODE)

# asyncio receives into a new bytes object of 256 KiB per read, as do sock_recv and socket.recv when
# they are asked for so much. With glibc's defaults each of these is mapped and unmapped (or the
# heap is trimmed and grown again), which makes asyncio look four times slower than it is. These
# keep such blocks on the heap.
MALLOC_TUNED = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "67108864"}


@dataclass(frozen=True)
class Arm:
    """One competitor. `kind` says of what sort it is; `distribution`: whose version is reported."""

    name: str
    kind: str
    summary: str
    distribution: str = field(default="", kw_only=True)

    def installed_version(self) -> str | None:
        """The version of its distribution, None for what comes with Python or with netpoll."""
        if not self.distribution:
            return None
        if self.distribution == "netpoll":  # which may run from its source tree
            return getattr(sys.modules.get("netpoll"), "__version__", None)
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return None


@dataclass(frozen=True)
class CommandArm(Arm):
    """A server that is a program of its own: `process.Program` runs it.

    command: its words; "{port}" stands for the port that it has to listen on, "{python}" for this
        interpreter.
    module: what has to be importable, for a program of Python; environment: added to ours.
    """

    command: tuple[str, ...] = field(kw_only=True)
    module: str = field(default="", kw_only=True)
    environment: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    def words(self, port: int) -> list[str]:
        """The command that listens on this port of 127.0.0.1."""
        places = {"{port}": str(port), "{python}": sys.executable}
        words = list(self.command)
        for place, word in places.items():
            words = [each.replace(place, word) for each in words]
        return words

    def check(self) -> Facts:
        """What it is here ({"version"}). Raises ArmUnavailable when it is not installed."""
        program = self.words(0)[0]
        if shutil.which(program) is None:
            raise ArmUnavailable(f"there is no program {program!r} here")
        if self.module and importlib.util.find_spec(self.module) is None:
            raise ArmUnavailable(f"not installed (pip install {self.distribution or self.module})")
        return {"version": self.installed_version()}


@dataclass(frozen=True)
class SocketArm(Arm):
    """One that this package writes the server for (`server.py`), or an echo server that is a
    program of others.

    kind: "loop" (an asyncio event loop, `LOOP_MODES`), "server" (netpoll.Server, `SERVER_MODES`),
        "stdlib", "floor" or "program" (the mode "-").
    interface: which floor is the nearer one, "uring" or "epoll".
    udp: it answers datagrams, too. netpoll.Server has none.
    module: what a loop is imported from.
    over: the module whose loops this one's are built on.
    factory: "module:factory", what makes its loops when that is not its module's rule.
    command: of a program, as `CommandArm` has it.
    """

    interface: str = "epoll"
    udp: bool = True
    module: str = ""
    loop_options: dict[str, str] = field(default_factory=dict)
    over: str = ""
    factory: str = ""
    command: tuple[str, ...] = ()

    @property
    def modes(self) -> tuple[str, ...]:
        """The mode "-" stands for the one of an arm that is not an event loop."""
        if self.kind == "server":
            return SERVER_MODES
        streams = LOOP_MODES if self.kind == "loop" else ("-",)
        tls = (TLS_MODE,) if self.kind == "loop" else ()
        return (*streams, UDP_MODE, *tls) if self.udp else (*streams, *tls)

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """A new event loop of this arm. Raises ArmUnavailable with the reason."""
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if error.name == self.module and self.distribution not in ("", "netpoll"):
                raise ArmUnavailable(f"not installed (pip install {self.distribution})") from None
            raise ArmUnavailable(f"its import failed: {error}") from error
        except Exception as error:
            raise ArmUnavailable(f"its import failed: {error}") from error
        factory = self.loop_factory(module)
        if factory is None:
            name = self.factory.partition(":")[2] or "new_event_loop"
            raise ArmUnavailable(f"{self.module} has no {name}()")
        try:
            return factory(**self.loop_options)
        except Exception as error:
            raise ArmUnavailable(f"it makes no loop here: {error}") from error

    def loop_factory(self, module: ModuleType) -> LoopFactory | None:
        """What makes the loops of this arm's module."""
        if self.factory:
            made_by: Any = module
            for name in self.factory.partition(":")[2].split("."):
                made_by = getattr(made_by, name, None)
            return cast("LoopFactory | None", made_by)
        if not self.over:
            return getattr(module, "new_event_loop", None)
        try:
            below = importlib.import_module(self.over).new_event_loop
        except ImportError:
            raise ArmUnavailable(f"not installed (pip install {self.over})") from None
        factory: LoopFactory = module.loop_factory(below)
        return factory

    def program(self) -> CommandArm:
        """What runs, of an arm that is a program."""
        return CommandArm(self.name, self.kind, self.summary, command=self.command)


def is_own(name: str) -> bool:
    """Whether the arm of this name is netpoll's, which tables and charts show in bold."""
    return name.startswith(("netpoll", "server-", "ring-"))


def loop_guest(name: str, factory: str) -> SocketArm:
    """The arm of any event loop, "module:factory"."""
    module = factory.partition(":")[0]
    return SocketArm(name, "loop", f"the event loop of {factory}", module=module, factory=factory)


AGAIN = "asyncio-again"
SELECTOR = "asyncio:SelectorEventLoop"


def _peer(name: str) -> SocketArm:
    return SocketArm(name, "loop", f"{name}, an asyncio event loop", module=name, distribution=name)


ARMS: dict[str, SocketArm] = {
    arm.name: arm
    for arm in (
        SocketArm(
            "netpoll-uring",
            "loop",
            "netpoll on io_uring",
            interface="uring",
            module="netpoll",
            distribution="netpoll",
            loop_options={"backend": "uring"},
        ),
        SocketArm(
            "netpoll-epoll",
            "loop",
            "netpoll on epoll",
            module="netpoll",
            distribution="netpoll",
            loop_options={"backend": "epoll"},
        ),
        SocketArm(
            "server-uring",
            "server",
            "netpoll.Server on io_uring",
            interface="uring",
            module="netpoll",
            distribution="netpoll",
            loop_options={"backend": "uring"},
        ),
        SocketArm(
            "server-epoll",
            "server",
            "netpoll.Server on epoll",
            module="netpoll",
            distribution="netpoll",
            loop_options={"backend": "epoll"},
        ),
        SocketArm(
            "asyncio", "loop", "asyncio's own selector loop", module="asyncio", factory=SELECTOR
        ),
        SocketArm(
            AGAIN,
            "loop",
            "asyncio a second time: the control",
            module="asyncio",
            factory=SELECTOR,
        ),
        SocketArm("uvloop", "loop", "uvloop (libuv)", module="uvloop", distribution="uvloop"),
        _peer("rloop"),
        _peer("rsloop"),
        _peer("zuvloop"),
        _peer("blazio"),
        SocketArm(
            "aiofastnet",
            "loop",
            "aiofastnet's transports on asyncio's loop",
            module="aiofastnet",
            distribution="aiofastnet",
            over="asyncio",
        ),
        SocketArm(
            "aiofastnet-uvloop",
            "loop",
            "aiofastnet's transports on uvloop's loop",
            module="aiofastnet",
            distribution="aiofastnet",
            over="uvloop",
        ),
        SocketArm(
            "sockets-threads", "stdlib", "stdlib sockets, a thread per connection", udp=False
        ),
        SocketArm(
            "sockets-selectors", "stdlib", "stdlib sockets and selectors, one thread", udp=False
        ),
        SocketArm("floor-epoll", "floor", "an echo in C on epoll"),
        SocketArm("floor-uring", "floor", "an echo in C on io_uring", interface="uring", udp=False),
    )
}

PEER_ARMS = ("rloop", "rsloop", "zuvloop", "blazio", "aiofastnet", "aiofastnet-uvloop")
DEFAULT_ARMS = tuple(name for name in ARMS if name not in PEER_ARMS)
LOOP_ARMS = tuple(name for name, arm in ARMS.items() if arm.kind == "loop")
