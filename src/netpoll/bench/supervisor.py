"""What stands between the harness and a program of others: ``supervisor CPU COMMAND...``.

It pins itself, and with it the program and all that the program starts, to a core ("-": to none),
and ends as the program does. When it is told to end (SIGTERM), or when the harness ends, it ends
the whole tree first: a worker that was left behind would take its core from the next arm. Orphans
of the tree become its children (PR_SET_CHILD_SUBREAPER), so the tree stays one, and their CPU time
is not lost. It sleeps while it is measured.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import FrameType

from netpoll.bench import _native
from netpoll.bench.clocks import descendants
from netpoll.bench.process import die_with_parent, raise_fd_limit

KILL_PAUSE_S = 0.001
FDS_COUNT = 65536


class Told(BaseException):
    """SIGTERM came."""


def on_term(signum: int, frame: FrameType | None) -> None:
    raise Told


def kill_all() -> None:
    """Ends every descendant. One that forks meanwhile leaves its child to the next look."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while pids := descendants(os.getpid()):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        while any_ended():
            pass
        time.sleep(KILL_PAUSE_S)


def any_ended() -> bool:
    """Takes leave of one child that has ended, if there is one."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def wait_for(program: int) -> int:
    """The exit code of the program, negative for a signal; others are waited for meanwhile."""
    while True:
        pid, status = os.wait()
        if pid == program:
            return os.waitstatus_to_exitcode(status)


def main(argv: list[str]) -> int:
    """Returns the program's exit code."""
    signal.signal(signal.SIGTERM, on_term)
    try:
        die_with_parent(signal.SIGTERM)
        _native.adopt_orphans()
        raise_fd_limit(FDS_COUNT)
        cpu, *command = argv
        if cpu != "-":
            os.sched_setaffinity(0, {int(cpu)})
        # In a group of its own: a program that kills its group does not mean us.
        program = subprocess.Popen(command, process_group=0)
        code = wait_for(program.pid)
    except Told:
        return 0
    finally:
        kill_all()
    if code < 0:
        # As the program ended: the harness reads the signal from our own end.
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
