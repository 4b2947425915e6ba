"""Keeps what `make -C tests/c bench` prints: python benchmarks/heads.py FILE.json [--rivals DIR]

The result has the form of those of `netpoll bench`, so that `benchmarks/record` takes it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netpoll.bench.cores import choose_pinning
from netpoll.bench.environment import describe

ROOT = Path(__file__).resolve().parent.parent
MAKE = ("make", "-C", "tests/c", "bench")
ROUNDS_COUNT = 401  # ROUNDS_COUNT of bench_http1.c
REQUEST = re.compile(r"(\S.*), (\d+) bytes")
READER = re.compile(r"  (\S+) +(\d+) ns \(fastest (\d+)\)")

Row = dict[str, Any]


def rows_of(printed: str) -> list[Row]:
    """A row for each request and reader."""
    rows: list[Row] = []
    request: Row = {}
    for line in printed.splitlines():
        if found := REQUEST.fullmatch(line):
            request = {"request": found[1], "size_bytes": int(found[2])}
        elif found := READER.fullmatch(line):
            facts = {"arm": found[1], "mode": "-", "fault": None, "rounds": ROUNDS_COUNT}
            ns = {"median": int(found[2]), "min": int(found[3])}
            rows.append(request | facts | {"ns": ns})
    return rows


def document_of(command: Sequence[str], started: str, printed: str) -> dict[str, Any]:
    rows = rows_of(printed)
    arms = {row["arm"]: {"version": None, "skipped": None} for row in rows}
    return {
        "started": started,
        "command": list(command),
        "stopped": None if rows else "nothing was measured",
        "environment": describe(choose_pinning()),
        "settings": {"rounds": ROUNDS_COUNT},
        "arms": arms,
        "control": {"pairs": [], "is_trustworthy": None},
        "rows": rows,
    }


def main(argv: Sequence[str] | None = None) -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, metavar="FILE.json")
    parser.add_argument("--rivals", metavar="DIR", help="picohttpparser.c and llhttp are there")
    options = parser.parse_args(argv)
    variables = {"RIVALS": options.rivals, "RIVALS_FLAGS": "-msse4.2"} if options.rivals else {}
    command = [*MAKE, *(f"{name}={value}" for name, value in variables.items())]
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, end="")
    said = [*MAKE, *(word.replace(options.rivals or "DIR", "DIR") for word in command[4:])]
    document = document_of(said, started, done.stdout)
    options.file.write_text(json.dumps(document, indent=1) + "\n")
    return int(not document["rows"])


if __name__ == "__main__":
    sys.exit(main())
