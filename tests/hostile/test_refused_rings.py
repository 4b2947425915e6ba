"""Filters that refuse a part of io_uring: the program works on what is left.

Each system call with each error that a filter or a kernel may give, and each opcode of
io_uring_register by itself: filters that look at the second argument exist.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import restricted
from tests.faults.restricted import REGISTER_OPCODES

PROGRAM = Path(restricted.__file__).with_name("refused_program.py")
CODES = ["ENOSYS", "EPERM", "EACCES", "EOPNOTSUPP", "EINVAL", "ENOMEM", "EBUSY", "EMFILE"]
RINGS = ["io_uring_setup", "io_uring_enter", "io_uring_register"]

# What netpoll does with an opcode of io_uring_register. Without one of the first kind there is no
# io_uring loop; without one of the second there is one, and something is done in another way.
NEEDED = {"enable_rings", "pbuf_ring"}
DONE_WITHOUT = {"buffers2", "buffers_update", "sync_cancel"}
ONLY_PROBED = {"buffers", "probe"}
UNUSED = set(REGISTER_OPCODES) - NEEDED - DONE_WITHOUT - ONLY_PROBED


def run(calls: str, *codes: str, backends: str) -> dict[str, dict[str, str]]:
    """{"backend errno": {part: "ok" or what went wrong, "backend": its name}}"""
    command = [sys.executable, str(PROGRAM), "--backends", backends, calls, *codes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def assert_all_parts_run_on(backend: str, results: dict[str, str]) -> None:
    wrong = {part: text for part, text in results.items() if text != "ok"}
    assert wrong == {"backend": backend}


def assert_refused_with_a_sentence(results: dict[str, str], call: str) -> None:
    assert set(results) == {"loop", "lines"}
    assert results["lines"] == "ok"
    assert results["loop"].startswith("BackendUnavailableError: [Errno ")
    said = results["loop"].partition("is not available: ")[2]
    assert re.search(rf"{call}|RLIMIT_MEMLOCK|ulimit -n|too old", said), said
    assert said.endswith("'auto' and 'epoll' work here")


@pytest.mark.parametrize("call", RINGS)
def test_a_call_is_refused(call: str) -> None:
    found = run(call, *CODES, backends="auto,uring")
    assert len(found) == 2 * len(CODES)
    for case, results in found.items():
        if case.startswith("auto"):
            assert_all_parts_run_on("epoll", results)
        else:
            assert_refused_with_a_sentence(results, call)


@pytest.mark.parametrize("opcode", sorted(NEEDED))
def test_an_opcode_that_is_needed(opcode: str) -> None:
    found = run(f"io_uring_register_{opcode}", *CODES, backends="auto,uring")
    for case, results in found.items():
        if case.startswith("auto"):
            assert_all_parts_run_on("epoll", results)
        else:
            assert_refused_with_a_sentence(results, "io_uring_register")


@pytest.mark.parametrize("opcode", sorted(DONE_WITHOUT))
def test_an_opcode_that_is_done_without(opcode: str, needs_uring: None) -> None:
    found = run(f"io_uring_register_{opcode}", *CODES, backends="uring")
    assert len(found) == len(CODES)
    for results in found.values():
        assert_all_parts_run_on("uring", results)


def test_all_of_those_together(needs_uring: None) -> None:
    calls = "+".join(f"io_uring_register_{name}" for name in sorted(DONE_WITHOUT | ONLY_PROBED))
    for results in run(calls, *CODES, backends="uring").values():
        assert_all_parts_run_on("uring", results)


def test_no_other_opcode_is_used(needs_uring: None) -> None:
    """A loop that made a call with one of them would be dead."""
    calls = "+".join(f"io_uring_register_{name}" for name in sorted(UNUSED | ONLY_PROBED))
    assert_all_parts_run_on("uring", run(calls, "KILL", backends="uring")["uring KILL"])


@pytest.mark.parametrize("backends", ["epoll"])
def test_epoll_makes_no_call_of_io_uring(backends: str) -> None:
    results = run("+".join(RINGS), "KILL", backends=backends)[f"{backends} KILL"]
    assert_all_parts_run_on("epoll", results)


def test_the_environment_switches_io_uring_off() -> None:
    """NETPOLL_BACKEND=epoll: not one of its calls, whatever the program does not say."""
    code = """
import netpoll

async def main():
    return "done"

print(netpoll.run(main()), netpoll.new_event_loop().backend)
with netpoll.Server(lambda conn: conn.take(), "127.0.0.1", 0) as server:
    print(server.port > 0)
"""
    command = [sys.executable, restricted.__file__]
    for call in RINGS:
        command += ["--kill", call]
    done = subprocess.run(
        [*command, code],
        env={"NETPOLL_BACKEND": "epoll"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done epoll\nTrue\n"), done.stderr


def test_the_kill_filter_kills() -> None:
    """The control of the tests above."""
    command = [sys.executable, restricted.__file__, "--kill", "io_uring_setup"]
    code = "import netpoll; netpoll.new_event_loop()"
    done = subprocess.run([*command, code], env={}, capture_output=True, timeout=60, check=False)
    assert done.returncode == -31  # SIGSYS


CONFINED = """
import errno, sys
sys.path.insert(0, {folder!r})
from restricted import refuse
import netpoll

async def main():
    pass

netpoll.run(main(), backend="uring")
refuse({{"io_uring_setup": errno.{code}}})
loop = netpoll.new_event_loop()
print(loop.backend)
loop.close()
try:
    netpoll.new_event_loop(backend="uring")
except netpoll.BackendUnavailableError as exc:
    print(exc.errno == errno.{code}, "allow" in str(exc))
"""


@pytest.mark.parametrize("code", ["EPERM", "ENOSYS", "EACCES"])
def test_a_program_that_confines_itself(code: str, needs_uring: None) -> None:
    """It was asked before what works here; what it was told then does not hold any more."""
    text = CONFINED.format(folder=str(PROGRAM.parent), code=code)
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "epoll\nTrue True\n"), done.stderr


def test_the_probe_says_what_is_refused(needs_uring: None) -> None:
    command = [sys.executable, restricted.__file__]
    for name in ONLY_PROBED:
        command += ["--refuse", f"io_uring_register_{name}=EPERM"]
    code = """
import netpoll

found = {feature.name: feature.detail for feature in netpoll.probe().features}
print(*[found[name].split(";")[0] for name in ("send_zc", "sendmsg_zc", "buffers")], sep="\\n")
"""
    done = subprocess.run([*command, code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == 3 * "refused with EPERM (Operation not permitted)\n", done.stderr


def test_the_page_has_the_opcodes() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "backends.md").read_text()
    for name in NEEDED | DONE_WITHOUT | ONLY_PROBED:
        assert f"`IORING_REGISTER_{name.upper()}`" in text, name
