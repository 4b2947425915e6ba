"""The stubs say what the extensions are: mypy's stubtest compares them with what is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "netpoll"

# Only the comparison: what mypy thinks of the implementation is not asked here.
CONFIG = """
[mypy]
python_version = 3.12
ignore_missing_imports = True
[mypy-netpoll.*]
ignore_errors = True
"""

# Private names, and what Cython adds: the last part of a name begins with an underscore.
ALLOWED = r".*\._[^.]*"


@pytest.mark.timeout(300)
def test_the_stubs_fit(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed (pip install 'netpoll[types]')")
    config, allowed = tmp_path / "mypy.ini", tmp_path / "allowed"
    config.write_text(CONFIG)
    allowed.write_text(ALLOWED)
    modules = sorted(f"netpoll.{stub.stem}" for stub in PACKAGE.glob("*.pyi"))
    command = [sys.executable, "-m", "mypy.stubtest", "--concise", "--ignore-positional-only"]
    command += ["--ignore-disjoint-bases"]  # PEP 800, which Python 3.11 has no typing for
    command += ["--ignore-missing-stub", "--ignore-unused-allowlist", "--allowlist", str(allowed)]
    command += ["--mypy-config-file", str(config), *modules]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)
    assert modules and done.returncode == 0, done.stdout + done.stderr
