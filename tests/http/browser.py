"""A real browser without a window, driven through a pipe by Chrome's DevTools protocol."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.server.conftest import wait_for
from tests.support import SLOWNESS

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)

# It is to speak with the test's server alone.
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# Where it looks for the pipes.
PLACE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """commands, answers: the ends of its pipes, where a message ends with a NUL. events: what it
    told by itself."""

    def __init__(self, commands: int, answers: int) -> None:
        self.commands = commands
        self.answers = answers
        self.received = b""
        self.number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self.number += 1
        command = {"id": self.number, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        os.write(self.commands, json.dumps(command).encode() + b"\0")
        while (message := self._next()).get("id") != self.number:
            self.events.append(message)  # it tells of other things, too
        return message

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.received:
            readable, _, _ = select.select([self.answers], [], [], 60 * SLOWNESS)
            assert readable, "the browser does not answer"
            part = os.read(self.answers, 65536)
            assert part, "the browser has ended"
            self.received += part
        message, _, self.received = self.received.partition(b"\0")
        return json.loads(message)

    def open(self, url: str) -> "Page":
        target = self.call("Target.createTarget", url=url)["result"]["targetId"]
        answer = self.call("Target.attachToTarget", targetId=target, flatten=True)
        return Page(self, answer["result"]["sessionId"])


class Page:
    def __init__(self, browser: Browser, session: str) -> None:
        self.browser = browser
        self.session = session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def run(self, script: str) -> Any:
        """What an expression is in the page; None where it fails, as before the page is there."""
        answer = self.browser.call("Runtime.evaluate", self.session, expression=script)
        return answer.get("result", {}).get("result", {}).get("value")

    def wait_for(self, script: str, value: Any) -> None:
        wait_for(lambda: self.run(script) == value, 60 * SLOWNESS)


@contextlib.contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """folder: for what it keeps."""
    assert BROWSER is not None
    pipes = [*os.pipe(), *os.pipe()]
    # Above those that they are to become.
    ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in pipes]
    for fd in pipes:
        os.close(fd)
    its_commands, commands, answers, its_answers = ends
    numbers = [str(its_commands), str(its_answers)]
    command = [sys.executable, "-c", PLACE, *numbers, BROWSER, *OPTIONS]
    with subprocess.Popen(
        [*command, f"--user-data-dir={folder}"],
        pass_fds=(its_commands, its_answers),
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(its_commands)
        os.close(its_answers)
        try:
            yield Browser(commands, answers)
        finally:
            process.kill()
            os.close(commands)
            os.close(answers)
