"""One child process: one module of a suite, run on one kind of loop.

    python worker.py --suite cpython --module test_events --loop uring --out results.jsonl

How the loop gets into CPython's `test.test_asyncio`: everything that makes a loop by name is
replaced before the test module is imported (the policy's factory, `asyncio.SelectorEventLoop`,
`asyncio.EventLoop`). Three places that build a half-mocked loop of asyncio's own are given a real
one instead ("transplants", below), so that their tests say something about the loop under test. The
control (`--loop asyncio`) goes through exactly the same replacements, and only what it passes is
asked of the others.

How it gets into uvloop's tests: they, and the programs that they start, `import uvloop`, and find
shim/uvloop, whose loops are netpoll's. The control imports the real one.

Output: one JSON object a line, written at once, so that a crash or a hang loses only its own test:
{"start": id}, then {"test": id, "outcome": ..., "detail": ..., "loops": n, "seconds": s}.
Outcomes: passed, failed, skipped, leaked (passed, but a closed loop's counters are not zero).
A test that outlives --timeout seconds ends the process with all tracebacks; the parent restarts
it with the tests that are left.
"""

import argparse
import asyncio
import faulthandler
import fnmatch
import importlib
import json
import os
import signal
import sys
import time
import traceback
import unittest
import weakref
from collections.abc import Callable, Iterator
from typing import Any

PACKAGES = {"cpython": "test.test_asyncio", "uvloop": "tests"}
DETAIL_MAX_CHARS = 6000


class LoopMaker:
    """Makes the loops under test, counts them, and looks at their counters after each test."""

    def __init__(self, kind: str) -> None:
        self.made_count = 0
        self._alive: list[weakref.ref[Any]] = []
        self._factory = _factory(kind)
        probe = self._factory()
        self.loop_type: type = type(probe)
        probe.close()

    def __call__(self, *_args: object, **_kwargs: object) -> Any:
        # Arguments (a selector) choose among asyncio's own pollers: no meaning for other loops.
        loop = self._factory()
        self.made_count += 1
        self._alive.append(weakref.ref(loop))
        return loop

    def start_test(self) -> None:
        self.made_count = 0
        self._alive.clear()

    def leaks(self) -> list[str]:
        """What closed loops still hold: operations and receive buffers that never came back."""
        found = []
        for ref in self._alive:
            loop = ref()
            if loop is None or not hasattr(loop, "stats") or not loop.is_closed():
                continue
            stats = loop.stats()
            if stats["ops_live"]:
                found.append(f"{stats['ops_live']} operations live after close()")
            if stats["bufs_free"] != stats["bufs_total"]:
                found.append(f"{stats['bufs_free']} of {stats['bufs_total']} buffers free")
        return found


def _factory(kind: str) -> Callable[[], Any]:
    if kind == "asyncio":
        return asyncio.SelectorEventLoop
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    import netpoll

    return lambda: netpoll.new_event_loop(backend=kind)


def install(maker: LoopMaker) -> None:
    """Replaces every name through which the tests (and asyncio.run) get a loop."""

    class Meta(type):
        def __instancecheck__(cls, obj: object) -> bool:
            return isinstance(obj, maker.loop_type)

        def __call__(cls, *args: object, **kwargs: object) -> Any:
            return maker(*args, **kwargs)

    class Replacement(metaclass=Meta):
        """Stands where asyncio's loop class was."""

    asyncio.SelectorEventLoop = Replacement  # type: ignore[misc,assignment]
    asyncio.unix_events.SelectorEventLoop = Replacement  # type: ignore[attr-defined]
    if hasattr(asyncio, "EventLoop"):
        asyncio.EventLoop = Replacement  # type: ignore[misc,assignment]
    for name in ("_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):
        policy = getattr(asyncio.unix_events, name, None)
        if policy is not None:
            policy._loop_factory = Replacement
    if not hasattr(asyncio.events, "_BaseDefaultEventLoopPolicy") and not hasattr(
        asyncio.events, "BaseDefaultEventLoopPolicy"
    ):  # a Python without policies
        asyncio.new_event_loop = asyncio.events.new_event_loop = maker


def transplant(module_name: str) -> None:
    """Real loops where CPython's tests build asyncio's own loop around mocks.

    The control gets them too; a test that then fails with asyncio is not asked of anybody.
    """
    package = PACKAGES["cpython"]
    utils = importlib.import_module(f"{package}.utils")
    original_new_test_loop = utils.TestCase.new_test_loop
    original_close_loop = utils.TestCase.close_loop

    def new_test_loop(self: Any, gen: Any = None) -> Any:
        if gen is not None:  # virtual time: only asyncio's own loop can be driven like that
            return original_new_test_loop(self, gen)
        loop = asyncio.new_event_loop()
        self.set_event_loop(loop)
        return loop

    def close_loop(loop: Any) -> None:
        if hasattr(loop, "_default_executor"):
            original_close_loop(loop)
            return
        if not loop.is_closed():
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    utils.TestCase.new_test_loop = new_test_loop
    utils.TestCase.close_loop = staticmethod(close_loop)

    module = importlib.import_module(f"{package}.{module_name}")
    if module_name == "test_base_events":
        case = module.BaseEventLoopTests

        def set_up(self: Any) -> None:
            super(case, self).setUp()
            self.loop = asyncio.new_event_loop()
            if isinstance(self.loop, asyncio.BaseEventLoop):
                self.loop.__class__ = _deaf_to_mocks(type(self.loop))
            self.set_event_loop(self.loop)

        case.setUp = set_up
    if module_name == "test_runners":
        module.BaseTest.new_loop = _runner_loop


def _deaf_to_mocks(loop_type: type) -> type:
    """The control, a whole loop, must not lose its organs to `loop._write_to_self = Mock()`."""

    class DeafLoop(loop_type):  # type: ignore[misc,valid-type]
        def __setattr__(self, name: str, value: object) -> None:
            if name not in ("_process_events", "_write_to_self"):
                super().__setattr__(name, value)

    return DeafLoop


def _runner_loop(_self: Any) -> Any:
    """test_runners wants to see that shutdown_asyncgens() was called, on any loop."""
    loop = asyncio.SelectorEventLoop()
    loop.shutdown_ag_run = False  # type: ignore[attr-defined]

    async def shutdown_asyncgens() -> None:
        loop.shutdown_ag_run = True  # type: ignore[attr-defined]

    loop.shutdown_asyncgens = shutdown_asyncgens  # type: ignore[method-assign]
    return loop


def use_uvloop_tests(kind: str) -> None:
    """Their folder goes first on the path, and what they import as uvloop in front of it."""
    os.environ["NETPOLL_BACKEND"] = kind  # the shim's loops, those of child processes too
    path = [os.environ["NETPOLL_UVLOOP_TESTS"]]
    if kind != "uvloop":
        path.insert(0, os.path.join(os.path.dirname(__file__), "shim"))
        os.environ["PYTHONPATH"] = os.pathsep.join([path[0], os.environ.get("PYTHONPATH", "")])
    sys.path[:0] = path


def watch_uvloop_tests(maker: LoopMaker) -> None:
    """The loops that the tests make by calling uvloop.new_event_loop are counted and looked at."""
    import uvloop

    uvloop.new_event_loop = maker


class Recorder(unittest.TestResult):
    """Writes what happened, test by test, and arms the watchdog around each."""

    def __init__(self, out_fd: int, maker: LoopMaker, timeout_s: float) -> None:
        super().__init__()
        self._out_fd = out_fd
        self._maker = maker
        self._timeout_s = timeout_s
        self._outcome = "passed"
        self._detail = ""
        self._started_s = 0.0

    def _write(self, record: dict[str, Any]) -> None:
        os.write(self._out_fd, (json.dumps(record) + "\n").encode())

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._outcome, self._detail = "passed", ""
        self._started_s = time.monotonic()
        self._maker.start_test()
        self._write({"start": short_id(test)})
        print(f"== {short_id(test)}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback_later(self._timeout_s, exit=True)

    def stopTest(self, test: unittest.TestCase) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._outcome == "passed":
            leaks = self._maker.leaks()
            if leaks:
                self._outcome, self._detail = "leaked", "; ".join(leaks)
        self._record(short_id(test))
        super().stopTest(test)

    def _record(self, test_id: str) -> None:
        self._write(
            {
                "test": test_id,
                "outcome": self._outcome,
                "detail": self._detail[-DETAIL_MAX_CHARS:],
                "loops": self._maker.made_count,
                "seconds": round(time.monotonic() - self._started_s, 3),
            }
        )

    def _fail(self, err: Any) -> None:
        text = "".join(traceback.format_exception(*err))
        self._outcome, self._detail = "failed", self._detail + text

    def addError(self, test: Any, err: Any) -> None:
        self._fail(err)
        if not isinstance(test, unittest.TestCase):  # setUpClass, setUpModule and their twins
            self._record(str(test))

    def addFailure(self, test: Any, err: Any) -> None:
        self._fail(err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self._fail(err)

    def addSkip(self, test: Any, reason: str) -> None:
        self._outcome, self._detail = "skipped", reason

    def addUnexpectedSuccess(self, test: Any) -> None:
        self._outcome, self._detail = "failed", "unexpected success"


def short_id(test: unittest.TestCase) -> str:
    test_id = test.id()
    for package in PACKAGES.values():
        test_id = test_id.removeprefix(package + ".")
    return test_id


def flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flatten(item)
        else:
            yield item


def read_ids(path: str) -> set[str]:
    with open(path, encoding="utf-8") as file:
        return set(file.read().split())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite", required=True, choices=sorted(PACKAGES))
    parser.add_argument("--module", required=True)
    parser.add_argument("--loop", required=True)
    parser.add_argument("--out", required=True, help="JSON lines are appended to this file")
    parser.add_argument("--only", help="a file with test ids, one a line")
    parser.add_argument("--skip", help="a file with test ids (wildcards allowed), one a line")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for one test")
    return parser.parse_args()


def load(args: argparse.Namespace, maker: LoopMaker) -> list[unittest.TestCase]:
    """The tests of the module, with the loop under test in place."""
    if args.suite == "cpython":
        install(maker)
        transplant(args.module)
    else:
        watch_uvloop_tests(maker)
    module = importlib.import_module(f"{PACKAGES[args.suite]}.{args.module}")
    return list(flatten(unittest.TestLoader().loadTestsFromModule(module)))


def main() -> int:
    # A job in the background starts with SIGINT ignored, and so would the programs of the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # likewise, under nohup
    args = parse_arguments()
    if args.suite == "uvloop":
        use_uvloop_tests(args.loop)
    maker = LoopMaker(args.loop)
    tests = load(args, maker)
    if args.only:
        wanted = read_ids(args.only)
        tests = [test for test in tests if short_id(test) in wanted]
    if args.skip:
        patterns = read_ids(args.skip)
        tests = [
            test
            for test in tests
            if not any(fnmatch.fnmatchcase(short_id(test), pattern) for pattern in patterns)
        ]
    out_fd = os.open(args.out, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    os.write(out_fd, (json.dumps({"tests": [short_id(test) for test in tests]}) + "\n").encode())
    unittest.TestSuite(tests).run(Recorder(out_fd, maker, args.timeout))
    os.write(out_fd, b'{"end": true}\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
