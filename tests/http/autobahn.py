"""The Autobahn test suite against an echo on netpoll: `python -m tests.http.autobahn`.

The suite is a program of Python 2.7:

    python2.7 -m pip install --target build/autobahn autobahntestsuite

Its fuzzing client judges each case. All have to be OK, non-strict or informational. Handlers and
ASGI applications are run, with and without compression.
"""

import argparse
import collections
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from netpoll import http

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = "import site; site.addsitedir({!r}); from autobahntestsuite.wstest import run; run()"
GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")


async def raw(request: http.Request) -> None:
    websocket = request.websocket()
    async for message in websocket:
        await websocket.send(message)


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send(message | {"type": "websocket.send"})


APPS = {"raw": raw, "asgi": asgi}


def agents(backends: list[str]) -> list[tuple[str, http.Server]]:
    made = []
    for backend in backends:
        for name, app in APPS.items():
            for deflates in (False, True):
                server = http.Server(
                    app, "127.0.0.1", 0, backend=backend, lifespan="off", websocket_deflate=deflates
                )
                made.append((f"{name}-{backend}{'-deflate' * deflates}", server))
    return made


def judge(report: Path) -> int:
    """Prints what each agent has got. The number of cases that went wrong."""
    wrong = 0
    for agent, cases in sorted(json.loads((report / "index.json").read_text()).items()):
        counts = collections.Counter(case["behavior"] for case in cases.values())
        closes = collections.Counter(case["behaviorClose"] for case in cases.values())
        bad = [
            name
            for name, case in cases.items()
            if case["behavior"] not in (*GOOD, "UNIMPLEMENTED")
            or case["behaviorClose"] not in GOOD
            # What is not offered is not implemented: compression, where it is off.
            or (case["behavior"] == "UNIMPLEMENTED" and agent.endswith("-deflate"))
        ]
        print(f"{agent}: {len(cases)} cases: {dict(counts)}, closes: {dict(closes)}; wrong: {bad}")
        wrong += len(bad)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.http.autobahn", description=__doc__)
    parser.add_argument("--python2", default="python2.7")
    parser.add_argument("--suite", type=Path, default=ROOT / "build" / "autobahn")
    parser.add_argument("--cases", nargs="+", default=["*"], help="such as '6.*' '9.1.*'")
    parser.add_argument("--backends", nargs="+", default=["uring", "epoll"])
    parser.add_argument("--report", type=Path, help="a folder to keep the report in")
    options = parser.parse_args()
    report = options.report or Path(tempfile.mkdtemp())
    made = agents(options.backends)
    for _, server in made:
        server.start()
    specification = {
        "outdir": str(report),
        "servers": [
            {"agent": name, "url": f"ws://127.0.0.1:{server.port}"} for name, server in made
        ],
        "cases": options.cases,
        "exclude-cases": [],
        "exclude-agent-cases": {
            name: ["12.*", "13.*"] for name, _ in made if not name.endswith("-deflate")
        },
    }
    begin_s = time.monotonic()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(specification, file)
        file.flush()
        run = [options.python2, "-c", RUN.format(str(options.suite.resolve()))]
        done = subprocess.run(
            [*run, "-m", "fuzzingclient", "-s", file.name], capture_output=True, text=True
        )
    for _, server in made:
        server.close(1)
    if not (report / "index.json").exists():
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
        return 2
    wrong = judge(report)
    print(f"{time.monotonic() - begin_s:.0f} s")
    if options.report is None:
        shutil.rmtree(report)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
