"""Every extension type, handled as nobody should: the program behind test_extension_types.py.

    python -m tests.regress.mishandle BACKEND fresh|live|functions

Each piece runs in a forked child. What is printed, as JSON: the pieces that a signal ended or that
hung, with where; which types were met as live objects; which of these could be copied or pickled.
"""

import asyncio
import contextlib
import copy
import faulthandler
import gc
import importlib
import inspect
import itertools
import json
import logging
import operator
import os
import pickle
import pkgutil
import random
import resource
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import netpoll

HANG_S = 60.0 if os.environ.get("NETPOLL_SANITIZED") else 20.0
HEAPTYPE = 1 << 9
CHILDREN_COUNT = 3

# What waits by contract, or ends the process on purpose.
WAITS = {
    "run_forever",
    "run_until_complete",
    "_run_once",
    "_run_turns",
    "_run_patched_turns",
    "floor_epoll",
    "floor_uring",
    "floor_udp_epoll",
    "send_stream",
    "die_with_parent",
    "result",
    "exception",
    "_work",
    "_live_in_loop",
    "shutdown",
    "__exit__",
    "run",
    "stop",
    "wait",
    "_start",
}
# Last, so that the others meet a live object.
ENDS = (
    "close",
    "abort",
    "_close_native",
    "_force_close",
    "_fatal_error",
    "_detach",
    "cancel",
    "release",
    "detach",
    "_end",
    "__init__",
    "__setstate__",
    "_stop",
    "_begin_stop",
    "fail",
)
OWN = {"__class__", "__init_subclass__", "__subclasshook__", "__doc__", "__dir__"}


class Odd:
    """Does something else than it is asked for, or nothing."""

    def __index__(self) -> int:
        return -(1 << 40)

    def __len__(self) -> int:
        return 1 << 40

    def __iter__(self) -> Iterator[Any]:
        return iter((None, self, b"x"))

    def fileno(self) -> int:
        return 1 << 30

    def __fspath__(self) -> str:
        raise KeyError("no path")

    def __call__(self, *_args: object, **_kwargs: object) -> None:
        raise ValueError("an odd callback")


ARGUMENTS: list[tuple[Any, ...]] = [
    (),
    (None,),
    (1,),
    (-1,),
    (b"x",),
    (1 << 70,),
    ("x",),
    (1.5,),
    (float("nan"),),
    ([],),
    ({},),
    (Odd(),),
    (object(),),
    ((),),
    ((1, 2),),
    (memoryview(b"ab"),),
    (bytearray(3),),
    (lambda *a: None,),
    (None, None),
    (1, 2),
    (b"x", None),
    (Odd(), Odd()),
    (-1, b"x"),
    (1, 2, 3),
    (None, None, None),
    (0, None, None, None),
    (1, True, Odd(), ()),
    (None,) * 5,
    (None,) * 6,
    (None,) * 7,
]
OPERATORS: list[Callable[[Any], Any]] = [
    repr,
    str,
    hash,
    bool,
    len,
    iter,
    next,
    bytes,
    dir,
    lambda o: list(itertools.islice(o, 99)),
    vars,
    int,
    float,
    complex,
    operator.index,
    operator.neg,
    operator.invert,
    abs,
    reversed,
    memoryview,
    bytearray,
    callable,
    lambda o: o == o,
    lambda o: o != o,
    lambda o: o < o,
    lambda o: o <= 1,
    lambda o: o > None,
    lambda o: o >= o,
    lambda o: o == b"x",
    lambda o: o + o,
    lambda o: o + 1,
    lambda o: 1 + o,
    lambda o: o * 2,
    lambda o: o % o,
    lambda o: o & 1,
    lambda o: o | o,
    lambda o: o[0],
    lambda o: o["x"],
    lambda o: o[1:2],
    lambda o: o(),
    lambda o: o(1, x=2),
    lambda o: operator.setitem(o, 0, 0),
    lambda o: operator.delitem(o, 0),
    lambda o: o.__await__(),
    lambda o: o.__aiter__(),
    lambda o: o.__anext__(),
    lambda o: o.__enter__(),
    lambda o: o.__aenter__(),
    lambda o: isinstance(o, asyncio.Transport),
    lambda o: getattr(o, "no\0name"),
    lambda o: getattr(o, "\udcff"),
    lambda o: getattr(o, ""),
    lambda o: format(o),
    lambda o: format(o, "5x"),
    lambda o: sys.getsizeof(o),
    lambda o: gc.get_referents(o),
    lambda o: o.__reduce__(),
    lambda o: o.__reduce_ex__(0),
    lambda o: o.__reduce_ex__(2),
    lambda o: o.__reduce_ex__(4),
    lambda o: o.__getstate__(),
    lambda o: setattr(o, "__class__", object),
    lambda o: setattr(o, "__class__", type(o)),
    lambda o: object.__setattr__(o, "__class__", Odd),
    lambda o: o.__sizeof__(),
    lambda o: inspect.signature(o),
]


WHAT = [""]


def doing(what: str) -> None:
    """Notes it for the report of a crash, which says no more than the line."""
    WHAT[0] = what
    os.pwrite(202, what.encode(errors="replace").ljust(120), 0)


def quietly(call: Callable[..., Any], *args: Any) -> Any:
    """What call gives; any exception is as good, unless it says that netpoll is at fault."""
    try:
        return call(*args)
    except BaseException as error:
        if is_ours(error):
            MISTAKES.add(f"{WHAT[0]}: {error!r}")
        return None


# Exceptions of this piece that no argument may lead to.
MISTAKES: set[str] = set()


def is_ours(error: BaseException) -> bool:
    """SystemError: a function broke the interpreter's rules. AssertionError: netpoll's own, not one
    of asyncio's or of Odd."""
    if isinstance(error, SystemError):
        return True
    if not isinstance(error, AssertionError):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return "netpoll" in frames[-1].filename


def drive(awaitable: Any) -> None:
    """What a call gave is awaited a little, and given up."""
    if inspect.iscoroutine(awaitable) or inspect.isgenerator(awaitable):
        awaitable.close()
    elif is_native(type(awaitable)) and hasattr(awaitable, "throw"):
        quietly(awaitable.send, None)
        quietly(awaitable.send, None)
        quietly(awaitable.throw, ValueError)
        quietly(awaitable.close)
        quietly(awaitable.send, None)


def names_of(target: Any, shuffle: random.Random | None) -> list[str]:
    names = [n for n in dir(type(target)) if n not in OWN and n not in WAITS]
    if shuffle is not None:
        shuffle.shuffle(names)
        return names
    return sorted(names, key=lambda name: (name in ENDS, name))


def mishandle(target: Any, shuffle: random.Random | None = None) -> None:
    """Everything that Python code can do to an object, one thing after the other."""
    doing(f"operators of {name_of(type(target))}")
    for operation in OPERATORS:
        drive(quietly(operation, target))
    for name in names_of(target, shuffle):
        value = quietly(getattr, target, name)
        raw = quietly(getattr, type(target), name)
        doing(f"{name_of(type(target))}.{name}")
        if not callable(value):
            for odd in (None, 1, -1, b"x", Odd(), 1 << 70):
                quietly(setattr, target, name, odd)
            quietly(delattr, target, name)
            continue
        for args in ARGUMENTS:
            drive(quietly(value, *args))
        if callable(raw):  # unbound, with a wrong self
            doing(f"{name_of(type(target))}.{name}, unbound")
            for args in ((), (None,), (1,), (Odd(),), (object(), 1)):
                drive(quietly(raw, *args))
    for operation in OPERATORS:
        quietly(operation, target)


def is_native(cls: type) -> bool:
    return not cls.__flags__ & HEAPTYPE and str(cls.__module__).startswith("netpoll")


def netpoll_modules() -> list[Any]:
    found = []
    for info in pkgutil.walk_packages(netpoll.__path__, "netpoll."):
        if not info.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # netpoll.uring without cffi
                found.append(importlib.import_module(info.name))
    return found


def all_types() -> list[type]:
    """All extension types of the package, and the classes that derive from them."""
    netpoll_modules()
    found: set[type] = set()
    pending = [object]
    while pending:
        for cls in type.__subclasses__(pending.pop()):
            if cls not in found:
                found.add(cls)
                pending.append(cls)
    ours = [c for c in found if any(is_native(base) for base in c.__mro__)]
    return sorted(ours, key=lambda c: (str(c.__module__), c.__qualname__))


def name_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


# ---- half-made objects ------------------------------------------------------------------------


def half_made(cls: Any) -> Iterator[Any]:
    """Objects that were not made the way they should be, as far as they can be had."""

    def derived() -> Any:
        class Derived(cls):
            def __init__(self, *_args: object) -> None:
                pass

        return Derived

    makers: list[Callable[..., Any]] = [
        cls,
        lambda *a: cls.__new__(cls, *a),
        lambda *a: object.__new__(cls),
        lambda *a: type.__call__(cls, *a),
        lambda *a: derived()(*a),
        lambda *a: cls.__new__(derived(), *a),
        lambda *a: object.__new__(derived()),
        lambda *a: copy.copyreg.__newobj__(cls, *a),
        lambda *a: copy.copyreg._reconstructor(cls, object, None),
    ]
    for base in cls.__mro__[1:]:
        makers.append(lambda *a, base=base: base.__new__(cls, *a))
    for maker in makers:
        for args in ((), (None,), (1,), (1, 2), (None,) * 3, (None,) * 5, (Odd(),) * 6, ({},)):
            made = quietly(maker, *args)
            if made is not None and type(made).__mro__[0] is not type:
                yield made
                break


def finalised(cls: Any) -> None:
    """Objects that are used by their own finaliser, and once more behind it: it kept them."""
    kept: list[Any] = []

    class Finalised(cls):
        def __init__(self, *_args: object) -> None:
            pass

        def __del__(self) -> None:
            if not kept:  # what is done to it calls this, too
                kept.append(self)
                mishandle(self, random.Random(2))

    for args in ((), (None,), (1, 2), (None,) * 3):
        made = quietly(lambda args=args: Finalised(*args))
        if made is not None:
            made = None
            gc.collect()
            break
    for again in kept:
        mishandle(again)
    kept.clear()


def fresh(cls: type) -> None:
    quietly(finalised, cls)
    for made in half_made(cls):
        mishandle(made)
        quietly(made.__init__) if not hasattr(made, "run_forever") else None
        mishandle(made, random.Random(1))
        del made
        gc.collect()


# ---- functions --------------------------------------------------------------------------------


def functions() -> Iterator[tuple[str, Any]]:
    for module in netpoll_modules():
        for name, value in sorted(vars(module).items()):
            is_function = callable(value) and not isinstance(value, type)
            if (
                is_function
                and getattr(value, "__module__", None) == module.__name__
                and "." + name not in WAITS
                and name not in WAITS
                and not inspect.isfunction(value)
            ):
                yield f"{module.__name__}.{name}", value


def call_oddly(function: Any, loop: Any) -> None:
    for args in ARGUMENTS:
        drive(quietly(function, *args))
    closed = netpoll.new_event_loop(loop.backend)
    closed.close()
    half = type(loop).__new__(type(loop))
    for first in (loop, closed, half):
        for args in ARGUMENTS:
            drive(quietly(function, first, *args))
        for sock in (socket.socket(), socket.socketpair()[0]):
            sock.setblocking(False)
            for args in ARGUMENTS:
                drive(quietly(function, first, sock, *args))
            drive(quietly(function, first, sock, asyncio.Protocol(), None, None, None))
            sock.close()
            drive(quietly(function, first, sock, asyncio.Protocol(), None, None, None))


# ---- children ---------------------------------------------------------------------------------


class Child:
    """A piece of work in a process of its own: it may crash, and it may close any fd."""

    def __init__(self, name: str, work: Callable[[], Any]) -> None:
        self.name = name
        self.log = tempfile.TemporaryFile()
        self.doing = tempfile.TemporaryFile()
        self.answer = tempfile.TemporaryFile()
        self.deadline_s = time.monotonic() + HANG_S
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._run(work)
            finally:
                os._exit(3)

    def _run(self, work: Callable[[], Any]) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        random.seed(1)
        os.dup2(self.log.fileno(), 200)
        os.dup2(self.answer.fileno(), 201)
        os.dup2(self.doing.fileno(), 202)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        warnings.simplefilter("ignore")
        logging.disable()
        sys.unraisablehook = lambda _args: None
        faulthandler.enable(200)
        faulthandler.dump_traceback_later(HANG_S, exit=True, file=200)
        result = work()
        gc.collect()
        answer = {"mistakes": sorted(MISTAKES), "met": [], "copied": []} | (result or {})
        os.write(201, json.dumps(answer).encode())
        faulthandler.disable()
        os._exit(0)

    def fault(self) -> str | None:
        """Waits for the end: how it went wrong, or None."""
        poll = select.poll()
        pidfd = os.pidfd_open(self.pid)
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(max(0.0, self.deadline_s + HANG_S - time.monotonic()) * 1000):
            os.kill(self.pid, signal.SIGKILL)
        os.close(pidfd)
        _, status = os.waitpid(self.pid, 0)
        if status == 0:
            return None
        self.log.seek(0)
        self.doing.seek(0)
        what = (
            f"signal {os.WTERMSIG(status)}"
            if os.WIFSIGNALED(status)
            else f"exit code {os.WEXITSTATUS(status)} (1: it hung)"
        )
        now = self.doing.read().decode(errors="replace").strip()
        return f"{self.name}: {what} at {now}\n{self.log.read().decode(errors='replace')[:3000]}"

    def result(self) -> Any:
        self.answer.seek(0)
        text = self.answer.read()
        return json.loads(text) if text else None


def run_all(pieces: list[tuple[str, Callable[[], Any]]]) -> tuple[list[str], list[Any]]:
    """All pieces, a few at once: (faults, what they returned)."""
    faults, results, running = [], [], []
    waiting = pieces[::-1]
    while waiting or running:
        while waiting and len(running) < CHILDREN_COUNT:
            running.append(Child(*waiting.pop()))
        child = running.pop(0)
        fault = child.fault()
        if fault is not None:
            faults.append(fault)
        results.append(child.result())
    return faults, results


def new_loop_of(backend: str) -> Any:
    loop = netpoll.new_event_loop(backend)
    loop.set_exception_handler(lambda _loop, _context: None)
    return loop


def fresh_pieces(_backend: str) -> list[tuple[str, Callable[[], Any]]]:
    return [(name_of(cls), lambda cls=cls: fresh(cls)) for cls in all_types()]


def function_pieces(backend: str) -> list[tuple[str, Callable[[], Any]]]:
    return [
        (name, lambda function=function: call_oddly(function, new_loop_of(backend)))
        for name, function in functions()
    ]


def could_be_copied(target: Any) -> list[str]:
    """Ways in which a copy was made, which can only be half an object."""
    ways: dict[str, Callable[[Any], Any]] = {"copy": copy.copy, "deepcopy": copy.deepcopy}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        ways[f"pickle {protocol}"] = lambda o, protocol=protocol: pickle.dumps(o, protocol)
    found = []
    for way, make in ways.items():
        try:
            make(target)
        except TypeError:
            continue
        except Exception as exc:
            found.append(f"{way} of {name_of(type(target))}: {exc!r}")
        else:
            found.append(f"{way} of {name_of(type(target))}")
    return found


def live_pieces(backend: str) -> list[tuple[str, Callable[[], Any]]]:
    from . import makers

    def work(maker: Any, seed: int | None) -> Any:
        shuffle = None if seed is None else random.Random(seed)
        copied: list[str] = []
        met: set[str] = set()

        def handle(target: Any) -> None:
            met.update(name_of(cls) for cls in type(target).__mro__)
            if is_native(type(target)):
                copied.extend(could_be_copied(target))
            mishandle(target, shuffle)

        makers.run(backend, maker, handle)
        return {"met": sorted(met), "copied": copied}

    return [
        (f"{maker.__name__} (order {seed})", lambda maker=maker, seed=seed: work(maker, seed))
        for maker in makers.MAKERS
        for seed in (None, 1, 2)
    ]


def main() -> None:
    backend, part = sys.argv[1:3]
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    kinds = {"fresh": fresh_pieces, "functions": function_pieces, "live": live_pieces}
    pieces = [piece for piece in kinds[part](backend) if only in piece[0]]
    faults, results = run_all(pieces)
    mistakes = sorted({what for r in results if isinstance(r, dict) for what in r["mistakes"]})
    met = sorted({name for r in results if isinstance(r, dict) for name in r["met"]})
    copied = sorted({way for r in results if isinstance(r, dict) for way in r["copied"]})
    print(
        json.dumps(
            {
                "pieces": len(pieces),
                "faults": faults,
                "mistakes": mistakes,
                "met": met,
                "copied": copied,
                "types": [name_of(cls) for cls in all_types() if is_native(cls)],
            }
        )
    )


if __name__ == "__main__":
    main()
