"""Everything at once, for a moment; NETPOLL_MIXED_SOAK_S makes it longer. See tests/soak."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..soak.__main__ import GROWTH_MAX, growths, slope
from ..support import SLOWNESS

ROOT = Path(__file__).resolve().parents[2]
SECONDS = float(os.environ.get("NETPOLL_MIXED_SOAK_S", "5"))


def test_everything_at_once(backend: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ["--backend", backend, "--seconds", str(SECONDS), "--json", str(figures)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=(100 + 2 * SECONDS) * SLOWNESS,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    document = json.loads(figures.read_text())
    assert sum(document["works"]["done"].values()) > 50
    assert sum(document["works"]["cancelled"].values()) > 0
    assert sum(document["kills"].values()) > 0


def test_a_slope() -> None:
    assert slope([(0.0, 5.0), (10.0, 5.0), (20.0, 5.0)]) == 0
    assert slope([(0.0, 1.0), (10.0, 21.0), (20.0, 41.0)]) == pytest.approx(2)


def test_what_grows_is_seen() -> None:
    """A descriptor that is lost every ten seconds; memory that comes and goes."""
    still = dict.fromkeys(GROWTH_MAX, 10.0)
    samples = [
        (at * 10.0, still | {"fds": 10.0 + at, "rss_bytes": 1e8 + (at % 2) * 1e6})
        for at in range(30)
    ]
    found = growths(samples)
    grown = {name for name, row in found.items() if row["grown"] > row["room"]}
    assert grown == {"fds"}
    assert found["fds"]["per_hour"] == pytest.approx(360)
