"""Figures on pages are those of the recorded runs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDED = json.loads((ROOT / "benchmarks" / "results" / "http.json").read_text())
HEADING = "## What a request costs\n"
PAGE = (ROOT / "docs" / "http.md").read_text().split(HEADING)[1].split("\n## ")[0]
COLUMNS = [
    *("netpoll-raw", "netpoll-asgi", "uvicorn-uvloop", "granian-asgi", "fastpysgi-asgi", "floor"),
]
TABLE = {
    line[0].strip("`"): line[1:]
    for line in (
        [cell.strip() for cell in text.strip("|").split("|")]
        for text in re.findall(r"^\| `.*\|$", PAGE, re.MULTILINE)
    )
}


def medians() -> dict[tuple[str, str], float]:
    rows: list[dict[str, Any]] = [row for run in RECORDED["runs"] for row in run["rows"]]
    found: dict[tuple[str, str], float] = {}
    for row in rows:
        found.setdefault((row["work"], row["arm"]), row["cpu_us"]["median"])
    return found


MEDIANS = medians()


@pytest.mark.parametrize("work", TABLE)
def test_a_line_of_the_table(work: str) -> None:
    for arm, cell in zip(COLUMNS, TABLE[work], strict=True):
        ours = arm.startswith("netpoll")
        names = [f"{arm}-uring", f"{arm}-epoll"] if ours and cell != "–" else [arm]
        for name, figure in zip(names, cell.split(" / "), strict=True):
            measured = MEDIANS.get((work, name))
            assert figure == ("–" if measured is None else f"{measured:.3g}"), (work, name)


def test_figures_of_the_text() -> None:
    text = " ".join(PAGE.split())
    for arm, words in {
        "netpoll-wsgi-inline-uring": "{} in the loop's thread",
        "netpoll-wsgi-uring": "{} out of a pool",
        "granian-wsgi": "granian {}",
        "fastpysgi-wsgi": "fastpysgi {}",
    }.items():
        assert words.format(f"{MEDIANS['hello', arm]:.3g}") in text


def test_each_recorded_run_tells_its_command() -> None:
    assert len(TABLE) == 8
    for run in RECORDED["runs"]:
        assert run["command"].startswith("python -m netpoll bench http ")
        assert all(row["rounds"] >= 5 for row in run["rows"])
