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


ECHO = json.loads((ROOT / "benchmarks" / "results" / "echo.json").read_text())
RATIOS = {
    (row["mode"], row["arm"]): row for row in ECHO["runs"][0]["rows"] if row["cell"] == "64 × 64 B"
}
README = (ROOT / "README.md").read_text()
MODES = {"protocol": "protocols", "streams": "streams", "sock": "`sock_recv`, `sock_sendall`"}


def ratio(mode: str, arm: str, to: str = "uvloop") -> str:
    return f"{RATIOS[mode, arm][f'cpu_vs_{to}']:.2f}"


@pytest.mark.parametrize("mode", MODES)
def test_the_loops_figures_are_the_same_everywhere(mode: str) -> None:
    uring, epoll = ratio(mode, "netpoll-uring"), ratio(mode, "netpoll-epoll")
    assert f"| {MODES[mode]} | {uring} | {epoll} |\n" in README
    index = (ROOT / "docs" / "index.md").read_text()
    picture = (ROOT / "docs" / "assets" / "cost.svg").read_text()
    for backend, figure in {"uring": uring, "epoll": epoll}.items():
        word = backend.replace("uring", "io_uring")
        assert f'class="{backend}" style="--cost: {figure}"></i>{figure} {word}<' in index
        assert f">{figure} {word}</text>" in picture
        assert (
            f'width="{round(440 * RATIOS[mode, f"netpoll-{backend}"]["cpu_vs_uvloop"])}"' in picture
        )
    said = {"protocol": "of uvloop's", "sock": "with socket calls"}.get(mode, "with streams")
    for page in (README, index, (ROOT / "docs" / "faq.md").read_text()):
        assert f"{uring} {said}" in " ".join(page.split())


def test_the_floor_and_the_server_are_those_of_the_run() -> None:
    assert f"is at {ratio('-', 'floor-epoll')} in the first line" in README
    ours = [ratio("on_data", f"server-{backend}", "floor_epoll") for backend in ("uring", "epoll")]
    assert (
        "takes {} times the CPU of that echo in C on io_uring, {} on epoll".format(*ours) in README
    )


@pytest.mark.parametrize("recorded", [RECORDED, ECHO], ids=["http", "echo"])
def test_each_recorded_run_tells_its_command(recorded: dict[str, Any]) -> None:
    for run in recorded["runs"]:
        assert run["command"].startswith("python -m netpoll bench ")
        assert all(row["rounds"] >= 5 for row in run["rows"])


def test_the_control_of_the_loops_figures_was_kept() -> None:
    control = ECHO["runs"][0]["control"]
    assert control["is_trustworthy"]
    small = [pair["ratio"] for pair in control["pairs"] if pair["where"].startswith("64 × 64 B")]
    assert len(small) == 3 and all(0.985 < found < 1.005 for found in small)
    assert len(TABLE) == 8
