"""io_uring refused in every way that containers and kernels have: a sentence, and a fallback."""

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

RESTRICTED = Path(__file__).with_name("restricted.py")

# What a program sees: the choice by itself, the choice by force, a loop that runs.
REPORT = """
import asyncio, json, netpoll
from netpoll.probe import choose_backend

async def main():
    await asyncio.sleep(0)
    return asyncio.get_running_loop().backend

found = {"auto": choose_backend("auto"), "ran_on": netpoll.run(main()), "forced": None}
try:
    netpoll.new_event_loop(backend="uring").close()
except netpoll.BackendUnavailableError as exc:
    found["forced"] = [exc.errno, str(exc)]
result = netpoll.probe()
found["probe"] = [result.uring_available, result.uring_errno, result.uring_reason, result.backend]
print(json.dumps(found))
"""


def run_restricted(*options: str, code: str = REPORT) -> str:
    env = {name: value for name, value in os.environ.items() if name != "NETPOLL_BACKEND"}
    command = [sys.executable, str(RESTRICTED), *options, code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    # Falling back is not worth a line on anybody's terminal.
    assert done.stderr == ""
    return done.stdout


def report(*options: str) -> dict:
    return json.loads(run_restricted(*options))


def assert_falls_back(found: dict, code: int, *words: str) -> None:
    backend, reason = found["auto"]
    assert (backend, found["ran_on"]) == ("epoll", "epoll")
    for word in words:
        assert word in reason
    forced_errno, message = found["forced"]
    assert forced_errno == code
    assert reason in message
    assert found["probe"] == [False, code, reason, "epoll"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("EPERM", ("seccomp", "allow")),
        ("ENOSYS", ("CONFIG_IO_URING", "allow io_uring_setup")),
        ("ENOMEM", ("RLIMIT_MEMLOCK", "ulimit -l")),
        ("EINVAL", ("DEFER_TASKRUN", "6.1")),
        ("EACCES", ("security module",)),
    ],
)
def test_setup_refused(name: str, words: tuple[str, ...]) -> None:
    found = report("--refuse", f"io_uring_setup={name}")
    assert_falls_back(found, getattr(errno, name), *words)


@pytest.mark.parametrize("call", ["io_uring_enter", "io_uring_register"])
def test_a_profile_that_allows_only_part(call: str) -> None:
    """A ring that can be made but not used is no ring: found before a loop is built on it."""
    found = report("--refuse", f"{call}=EPERM")
    assert_falls_back(found, errno.EPERM, f"allow {call}")


def kernel_charges_rings() -> bool:
    major, minor = platform.release().split("-")[0].split(".")[:2]
    return (int(major), int(minor)) >= (6, 14)


@pytest.mark.parametrize("kib", [0, 64])
def test_little_lockable_memory(kib: int) -> None:
    """Since Linux 6.14 rings are charged; before that (and after 5.11) they are not."""
    found = report("--memlock-kib", str(kib))
    if found["auto"][0] == "epoll":
        assert_falls_back(found, errno.ENOMEM, "RLIMIT_MEMLOCK", f"{kib} KiB")
    else:
        assert not kernel_charges_rings()
        assert found["ran_on"] == "uring"


def test_a_run_of_loops_does_not_exhaust_the_memory() -> None:
    """A closed ring is charged for some milliseconds more: the next loop waits for it."""
    code = """
import netpoll

async def main():
    pass

for _ in range(150):
    netpoll.run(main(), backend="uring")
print("all of them")
"""
    if report()["auto"][0] == "epoll":
        pytest.skip("no io_uring here")
    assert "all of them" in run_restricted("--memlock-kib", "2048", code=code)


def test_too_many_loops_at_once_fall_back() -> None:
    """The memory that was there for the first loop may be gone for the tenth."""
    code = """
import netpoll

loops = [netpoll.new_event_loop() for _ in range(8)]
print(*[loop.backend for loop in loops])
try:
    loops.append(netpoll.new_event_loop(backend="uring"))
    print("one more")
except netpoll.BackendUnavailableError as exc:
    print(exc)
for loop in loops:
    loop.close()
"""
    if report()["auto"][0] == "epoll":
        pytest.skip("no io_uring here")
    is_charged = kernel_charges_rings()
    # The kernel counts what all processes of this user have locked: other tests' rings, too. So
    # the limit at which the memory ends in between is looked for.
    for limit_kib in range(512, 1 << 15, 128):
        backends, last = run_restricted("--memlock-kib", str(limit_kib), code=code).splitlines()
        if backends.startswith("uring") and (backends.endswith("epoll") or not is_charged):
            break
    if is_charged:
        assert backends.split() == sorted(backends.split(), reverse=True)
        assert backends.startswith("uring")
        assert backends.endswith("epoll")
        assert "RLIMIT_MEMLOCK" in last
    else:
        assert set(backends.split()) == {"uring"}


def test_the_command_explains_a_refusal() -> None:
    code = "from netpoll.cli import main; main(['probe'])"
    printed = run_restricted("--refuse", "io_uring_setup=EPERM", code=code)
    assert "seccomp" in printed
    assert "epoll" in printed
