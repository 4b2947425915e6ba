"""Figures on pages are those of the recorded runs, and a page says which runs there are."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import heads, quote
from netpoll.bench import cli
from netpoll.bench.arms import AGAIN
from netpoll.bench.control import control_facts

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


FILES = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_recorded_run_has_five_rounds(path: Path) -> None:
    for run in json.loads(path.read_text())["runs"]:
        assert all(row["rounds"] >= 5 for row in run["rows"])


def test_the_control_of_the_loops_figures_was_kept() -> None:
    """By the rule of today, at the load that is quoted."""
    control = control_facts({AGAIN: "asyncio"}, list(RATIOS.values()))
    assert control["is_trustworthy"]
    small = [pair["ratio"] for pair in control["pairs"]]
    assert len(small) == 3 and all(0.985 < found < 1.005 for found in small)
    assert len(TABLE) == 8


# ---- the page of results ----------------------------------------------------------------------

RESULTS = (ROOT / "docs" / "results.md").read_text()


def test_each_file_is_on_the_page_with_its_runs() -> None:
    assert quote.with_table(RESULTS) == RESULTS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_whose_control_is_not_kept_is_told(path: Path) -> None:
    runs = json.loads(path.read_text())["runs"]
    text = RESULTS.split("All were taken on")[1].split("\n## ")[0]
    controls = [run.get("control", {}) for run in runs]  # http.json had none
    if any(control.get("is_trustworthy") is False for control in controls):
        assert f"`{path.name}`" in text


@pytest.mark.parametrize(
    "command",
    [run["command"] for path in FILES for run in json.loads(path.read_text())["runs"]],
)
def test_each_command_can_be_given(command: str) -> None:
    words = command.split()
    if words[0] == "make":
        assert words[:4] == ["make", "-C", "tests/c", "bench"]
    else:
        assert words[:4] == ["python", "-m", "netpoll", "bench"]
        assert cli.parser().parse_args(words[4:]).run


# ---- recording --------------------------------------------------------------------------------


def run_document(**others: Any) -> dict[str, Any]:
    row = {"arm": "a", "mode": "-", "rounds": 2, "fault": None, "ns_by_round": [1.23456, 2.0]}
    return {
        "started": "2026-01-01T00:00:00+0000",
        "command": ["bench", "micro", "--json", "x.json", "--rounds", "2", "--html=y.html"],
        "stopped": None,
        "environment": {"kernel": "6.1", "pinning": {}, "load_average": [0.1]},
        "settings": {"rounds": 2},
        "arms": {"a": {"version": "1", "skipped": None}, "b": {"version": None, "skipped": "no"}},
        "control": {"pairs": [], "is_trustworthy": None},
        "rows": [row | {"histogram_ns": [[1, 2]]}],
    } | others


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    def run(*documents: dict[str, Any], options: Sequence[str] = ()) -> tuple[int, str]:
        paths = [tmp_path / f"{number}.json" for number in range(len(documents))]
        for path, document in zip(paths, documents, strict=True):
            path.write_text(json.dumps(document))
        script = [sys.executable, str(ROOT / "benchmarks" / "record"), "kept", *map(str, paths)]
        done = subprocess.run(
            [*script, *options, "--directory", str(tmp_path)], capture_output=True, text=True
        )
        return done.returncode, done.stderr

    return run


def test_a_run_is_kept(record: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    assert record(run_document(), run_document(arms={"c": {"version": "3", "skipped": None}})) == (
        0,
        "",
    )
    whole = json.loads((tmp_path / "kept.json").read_text())
    assert whole["versions"] == {"a": "1", "c": "3"}
    assert whole["environment"]["kernel"] == "6.1" and "pinning" not in whole["environment"]
    first, second = whole["runs"]
    assert first["command"] == second["command"] == "python -m netpoll bench micro --rounds 2"
    (row,) = first["rows"]
    assert row == {"arm": "a", "mode": "-", "rounds": 2, "ns_by_round": [1.235, 2.0]}


def test_what_is_not_kept(record: Callable[..., tuple[int, str]]) -> None:
    failed = run_document()
    failed["rows"][0]["fault"] = "it hangs"
    other = run_document(environment={"kernel": "6.2"})
    for documents, words in (
        ([run_document(stopped="interrupted")], "not complete: interrupted"),
        ([failed], "a failed: it hangs"),
        ([run_document(), other], "differ in their kernel"),
    ):
        code, said = record(*documents)
        assert code == 2 and words in said
    assert record(failed, options=["--without", "a"]) == (0, "")
    code, said = record(run_document(control={"pairs": [], "is_trustworthy": False}))
    assert code == 1 and "not to be trusted" in said


def test_the_heads_that_make_bench_prints(record: Callable[..., tuple[int, str]]) -> None:
    printed = """make: Entering directory
curl, 3 fields, 106 bytes
  netpoll              64 ns (fastest 62)
  picohttpparser       45 ns (fastest 44)
"""
    document = heads.document_of(["make", "-C", "tests/c", "bench"], "2026-01-01", printed)
    found = [(row["request"], row["size_bytes"], row["arm"], row["ns"]) for row in document["rows"]]
    assert found == [
        ("curl, 3 fields", 106, "netpoll", {"median": 64, "min": 62}),
        ("curl, 3 fields", 106, "picohttpparser", {"median": 45, "min": 44}),
    ]
    assert record(document) == (0, "")
    code, said = record(heads.document_of(["make"], "2026-01-01", "cc -O2"))
    assert code == 2 and "nothing was measured" in said
