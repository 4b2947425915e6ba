"""The scheduler's example runs as a user would run it."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "scheduler.py"


def test_the_crawl_finds_every_page() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--workers", "2", "--pages", "100"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("100 pages, ")
    assert done.stdout.count("worker ") == 2
