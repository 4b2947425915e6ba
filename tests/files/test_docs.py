"""The examples of the pages about files and the raw ring run as they stand there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import netpoll
from netpoll.probe import choose_backend

DOCS = Path(__file__).resolve().parents[2] / "docs"
PACKAGES = Path(netpoll.__file__).resolve().parents[1]  # it may run from its source tree
EXAMPLES = [
    pytest.param(code, id=f"{page}-{number}")
    for page in ("files", "raw-ring")
    for number, code in enumerate(
        re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    )
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_example_runs(tmp_path: Path, code: str) -> None:
    if "uring" in code:
        if importlib.util.find_spec("netpoll._native.liburing") is None:
            pytest.skip("built without cffi")
        try:
            choose_backend("uring")
        except netpoll.BackendUnavailableError as error:
            pytest.skip(str(error))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PACKAGES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if "print(" in code:
        assert done.stdout
