"""tests.scale runs, says what it could not, and puts the machine's numbers back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .scale import room
from .scale.__main__ import possible, table, verdicts
from .support import SLOWNESS

ROOT = Path(__file__).resolve().parent.parent


def test_a_short_run(backend: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = [*("--connections", "40,200,100000000"), *("--arms", f"server-{backend}")]
    options += ["--cycle-arms", f"loop-{backend}", "--windows", "1", "--seconds", "0.1"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.scale", *options, "--json", str(figures)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100 * SLOWNESS,
    )
    if done.returncode == 2:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100,000,000 connections are left out" in done.stdout
    document = json.loads(figures.read_text())
    few, many, cycles = document["rows"]
    assert [row["connections"] for row in (few, many, cycles)] == [40, 200, 0]
    for row in (few, many):
        for name in ("accepts_per_s", "request_cpu_us", "requests_per_s", "accept_cpu_us"):
            assert row[name] > 0, name
    assert cycles["cycles_per_s"] > 0
    assert {one["what"] for one in document["verdicts"]} == {"CPU per request", "user memory"}


def test_a_number_is_raised_and_put_back(tmp_path: Path) -> None:
    number = tmp_path / "number"
    number.write_text("100\n")
    with room.at_least(str(number), 50):
        assert number.read_text() == "100\n"
    with pytest.raises(ZeroDivisionError), room.at_least(str(number), 500):
        assert number.read_text() == "500"
        raise ZeroDivisionError
    assert number.read_text() == "100"


def test_what_grows_is_said_to_grow() -> None:
    rows = [
        {"arm": "a", "connections": 1000, "request_cpu_us": 10.0, "user_bytes": 200},
        {"arm": "a", "connections": 9000, "request_cpu_us": 12.0, "user_bytes": 210},
        {"arm": "b", "connections": 1000, "fault": "the server says nothing"},
    ]
    found = {one["what"]: one["is_flat"] for one in verdicts(rows)}
    assert found == {"CPU per request": False, "user memory": True}
    assert "the server says nothing" in table(rows)
    assert possible([1000, 9000], 5000) == [1000]
