"""The types are right: mypy's of the Python modules, stubtest's of the stubs of the native ones."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "netpoll"

# For stubtest, which compares the stubs with what is imported: the implementation is mypy's.
CONFIG = """
[mypy]
python_version = 3.12
ignore_missing_imports = True
[mypy-netpoll.*]
ignore_errors = True
"""

# Private names, and what Cython adds: the last part of a name begins with an underscore.
ALLOWED = r".*\._[^.]*"


def needs_mypy() -> None:
    pytest.importorskip("mypy", reason="mypy is not installed (pip install 'netpoll[types]')")


@pytest.mark.timeout(300)
def test_the_package_passes_mypy() -> None:
    """With the configuration of pyproject.toml."""
    needs_mypy()
    done = subprocess.run([sys.executable, "-m", "mypy"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def stubbed_modules() -> list[str]:
    stubs = (stub.relative_to(PACKAGE.parent) for stub in PACKAGE.rglob("*.pyi"))
    return sorted(".".join(stub.with_suffix("").parts) for stub in stubs)


@pytest.mark.timeout(300)
def test_the_stubs_fit(tmp_path: Path) -> None:
    needs_mypy()
    config, allowed = tmp_path / "mypy.ini", tmp_path / "allowed"
    config.write_text(CONFIG)
    allowed.write_text(ALLOWED)
    modules = stubbed_modules()
    assert {"netpoll._core", "netpoll._native.server.connection"} <= set(modules)
    command = [sys.executable, "-m", "mypy.stubtest", "--concise", "--ignore-positional-only"]
    command += ["--ignore-disjoint-bases"]  # PEP 800, which Python 3.11 has no typing for
    command += ["--ignore-missing-stub", "--ignore-unused-allowlist", "--allowlist", str(allowed)]
    command += ["--mypy-config-file", str(config), *modules]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stdout + done.stderr


IGNORE = re.compile(r"#\s*type:\s*ignore(?P<rest>.*)")


def test_each_ignore_has_a_reason() -> None:
    lines = [
        (path.relative_to(ROOT), match["rest"])
        for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]
        for match in IGNORE.finditer(path.read_text())
    ]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"\[[a-z, -]+\]  # \w.+", line[1])] == []
