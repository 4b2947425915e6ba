"""The table of docs/compatibility.md: versions and counts, written by the lane itself."""

import platform
from pathlib import Path

from . import environment
from .judge import Verdict
from .projects import ROOT, projects

PAGE = ROOT / "docs" / "compatibility.md"
BEGIN = "<!-- made by ./test --suites --table -->"
END = "<!-- end -->"
COLUMNS = ("project", "version", "on asyncio", "on uring", "on epoll", "excepted", "not judged")


def text(verdicts: dict[str, list[Verdict]], old: str = "") -> str:
    """One row per project: how many tests pass on asyncio, and how many of them on netpoll.

    Projects that were not run keep the row that `old` has.
    """
    rows = _rows_of(old)
    rows |= {name: _row(name, found) for name, found in verdicts.items() if found}
    kept = [rows[name] for name in projects() if name in rows]
    total = ["total", "", *(str(sum(int(row[i]) for row in kept)) for i in range(2, 7))]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * 2 + "---:|" * 5]
    lines += ["| " + " | ".join(row) + " |" for row in [*kept, total]]
    return "\n".join(lines)


def _rows_of(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {row[0]: row for row in rows if len(row) == len(COLUMNS) and row[0] in projects()}


def _row(name: str, verdicts: list[Verdict]) -> list[str]:
    by_loop = {verdict.loop: verdict for verdict in verdicts}
    asked = max(len(v.passed) + len(v.flaky) + len(v.excepted) + len(v.worse) for v in verdicts)
    passes = [
        str(len(by_loop[loop].passed) + len(by_loop[loop].flaky)) if loop in by_loop else "0"
        for loop in ("uring", "epoll")
    ]
    excepted = len(set().union(*(v.excepted for v in verdicts)))
    not_judged = max(len(v.not_judged) for v in verdicts)
    version = environment.installed_version(projects()[name])
    return [name, version, str(asked), *passes, str(excepted), str(not_judged)]


def write(verdicts: dict[str, list[Verdict]], page: Path = PAGE) -> None:
    """Puts the table between its two marks."""
    old = page.read_text(encoding="utf-8")
    before, begin, rest = old.partition(BEGIN)
    table, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page}: the marks of the table are not there")
    about = f"CPython {platform.python_version()}, Linux {platform.release().split('-')[0]}."
    page.write_text(f"{before}{BEGIN}\n{about}\n\n{text(verdicts, table)}\n{END}{after}", "utf-8")
