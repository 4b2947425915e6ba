"""Loads that are not the harness's: a closed loop of echo in C of its own, and wrk for HTTP.

`bench verify` sets the harness's figures against theirs. Each of them runs as a program on the
load's core, and is asked for windows as the harness's load is; CPU time is read around them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import netpoll
from netpoll.bench.errors import ServerError

__all__ = [
    "CLOSED_LOOP",
    "WRK",
    "ClosedLoop",
    "Wrk",
    "compiled",
    "parse_wrk",
    "why_no_closed_loop",
    "why_no_wrk",
]

CLOSED_LOOP, WRK = "C loop", "wrk"

SOURCE = Path("csrc") / "bench" / "closed_loop.c"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")
ANSWER_TIMEOUT_S = 10.0  # beyond the window


def _source() -> Path:
    """Of the closed loop; it is there in a source tree only."""
    return Path(netpoll.__file__).resolve().parents[2] / SOURCE


def _compiler() -> str | None:
    return next((found for name in ("cc", "gcc") if (found := shutil.which(name))), None)


def why_no_closed_loop() -> str | None:
    """Why it cannot be compiled here, one clause; None when it can."""
    if not _source().is_file():
        return f"its source, {SOURCE}, is in a source tree of netpoll only"
    if _compiler() is None:
        return "there is no C compiler here (apt-get install gcc libc6-dev)"
    return None


def why_no_wrk() -> str | None:
    """Why it cannot be asked, one clause; None when it can."""
    if shutil.which(WRK) is None:
        return "there is no program 'wrk' here (apt-get install wrk)"
    return None


@contextmanager
def compiled() -> Iterator[Path]:
    """The program of the closed loop, in a folder of its own for a while. Raises ServerError when
    the compiler refuses it."""
    compiler = _compiler()
    assert compiler is not None, "why_no_closed_loop() was not asked"
    with tempfile.TemporaryDirectory(prefix="netpoll-bench-") as folder:
        program = Path(folder) / "closed_loop"
        words = [compiler, *FLAGS, str(_source()), "-o", str(program)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise ServerError(f"{SOURCE} does not compile: {done.stderr.strip()}")
        yield program


class ClosedLoop:
    """The program at work: connects at once, and stays. A context manager."""

    def __init__(
        self, program: Path, address: tuple[str, int], connections: int, size_bytes: int
    ) -> None:
        words = [str(program), address[0], str(address[1]), str(connections), str(size_bytes)]
        self.size_bytes = size_bytes
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def run(self, duration_s: float, rate_per_s: float = 0.0) -> Mapping[str, Any]:
        """A window, as `_native.Load` has it, without latencies. Raises ServerError."""
        assert not rate_per_s, "a closed loop has no rate"
        start_ns = time.perf_counter_ns()
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(f"{round(duration_s * 1000)}\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            _, errors = self.process.communicate()
            raise ServerError(f"the {CLOSED_LOOP} ended: {errors.strip() or 'without a word'}")
        within, window_ns, whole = map(int, line.split())
        return {
            "requests": within,
            "requests_all": whole,
            "checked_bytes": whole * self.size_bytes,
            "window_ns": window_ns,
            "elapsed_ns": time.perf_counter_ns() - start_ns,
            "latency_max_ns": 0,
            "histogram": [],
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.communicate()


WRK_DONE = re.compile(r"^\s*(\d+) requests in ", re.MULTILINE)
WRK_RATE = re.compile(r"^Requests/sec:\s*([\d.]+)", re.MULTILINE)
WRK_FAULT = re.compile(r"^\s*(Socket errors: .*|Non-2xx or 3xx responses: .*)$", re.MULTILINE)


def parse_wrk(text: str) -> tuple[int, float]:
    """(requests, requests per second) out of what it prints. Raises ServerError when it tells of
    errors, or when it says something else."""
    if fault := WRK_FAULT.search(text):
        raise ServerError(f"wrk: {fault[1]}")
    done, rate = WRK_DONE.search(text), WRK_RATE.search(text)
    if not done or not rate or not float(rate[1]):
        raise ServerError(f"wrk says nothing that is understood: {text.strip()[-200:]}")
    return int(done[1]), float(rate[1])


class Wrk:
    """wrk, which runs once for each window: one thread, so many connections, one path."""

    def __init__(self, address: tuple[str, int], connections: int, path: str) -> None:
        self.words = [WRK, "-t1", f"-c{connections}", "--timeout", "5s"]
        self.url = f"http://{address[0]}:{address[1]}{path}"

    def run(self, duration_s: float, rate_per_s: float = 0.0) -> Mapping[str, Any]:
        """A window of whole seconds. Raises ServerError."""
        assert not rate_per_s, "wrk has no rate"
        words = [*self.words, f"-d{max(round(duration_s), 1)}s", self.url]
        start_ns = time.perf_counter_ns()
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=duration_s + ANSWER_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise ServerError("wrk did not end") from None
        requests, rate = parse_wrk(done.stdout)
        return {
            "requests": requests,
            "requests_all": requests,
            "checked_bytes": 0,
            "window_ns": round(requests / rate * 1e9),
            "elapsed_ns": time.perf_counter_ns() - start_ns,
            "latency_max_ns": 0,
            "histogram": [],
        }
