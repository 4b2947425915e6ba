"""Each system call that old kernels lack or filters refuse: a fallback, or one clear sentence.

Filters of containers answer a call that they do not know with an error of their author's choice.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.restricted import BY_ARGUMENT, OLDER_SYSCALLS, SYSCALLS

PROGRAM = Path(__file__).with_name("refused_program.py")
CODES = ["ENOSYS", "EPERM", "EACCES", "EOPNOTSUPP", "EINVAL"]

FALL_BACK = [
    "close_range", "epoll_pwait2", "getrandom", "io_uring_enter", "io_uring_register",
    "io_uring_setup", "madvise", "pidfd_open", "pidfd_send_signal", "preadv2", "recvmmsg",
    "sched_getaffinity", "sendfile", "sendmmsg", "waitid", "waitid_pidfd",
]  # fmt: skip


def run(call: str) -> dict[str, dict[str, str]]:
    """{"backend errno": {part: "ok" or what went wrong, "backend": its name}}"""
    names = call.split("+")
    if any(BY_ARGUMENT.get(name, (name,))[0] not in SYSCALLS for name in names):
        pytest.skip(f"the number of {call} on this machine is not known here")
    command = [sys.executable, str(PROGRAM), call, *CODES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


# A filter that knows neither: what the one falls back on is refused as well.
TOGETHER = [
    "pidfd_open+waitid", "pidfd_send_signal+waitid_pidfd", "pidfd_send_signal+waitid",
    "io_uring_setup+epoll_pwait2+close_range", "recvmmsg+sendmmsg+sendfile+preadv2",
]  # fmt: skip


def faults(results: dict[str, str]) -> dict[str, str]:
    return {
        part: result for part, result in results.items() if result != "ok" and part != "backend"
    }


@pytest.mark.parametrize("call", FALL_BACK + TOGETHER)
def test_falls_back_in_silence(call: str) -> None:
    found = run(call)
    assert len(found) == 2 * len(CODES)
    assert {case: faults(results) for case, results in found.items() if faults(results)} == {}


def test_accept4_is_done_without() -> None:
    """But in sock_accept(), where Python's socket.accept() falls back for ENOSYS only."""
    for case, results in run("accept4").items():
        wrong = faults(results)
        assert list(wrong) == ([] if "ENOSYS" in case else ["socks"]), wrong


@pytest.mark.parametrize("call", ["eventfd2", "epoll_create1"])
def test_no_loop_without_them(call: str) -> None:
    for case, results in run(call).items():
        if call == "epoll_create1" and results.get("timer") == "ok":
            assert case.startswith("auto")  # on io_uring
            continue
        assert list(faults(results)) == ["loop"], results
        assert f"allow {call}" in results["loop"]


def test_the_table_of_calls_is_whole() -> None:
    """docs/backends.md says of each what happens."""
    text = Path(__file__).parents[2].joinpath("docs", "backends.md").read_text()
    for name in [*FALL_BACK, "accept4", "eventfd2", "epoll_create1"]:
        assert f"`{name.replace('waitid_pidfd', 'waitid(P_PIDFD)')}`" in text
    assert set(OLDER_SYSCALLS["x86_64"]) == set(OLDER_SYSCALLS["aarch64"])
