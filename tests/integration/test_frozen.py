"""README's programs in one file or folder that needs no installation: PyInstaller, shiv, Nuitka.

Nuitka compiles for minutes, and is run when it is asked for by name: NETPOLL_NUITKA=1.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
import zipapp
from collections.abc import Callable
from pathlib import Path

import pytest

from .. import readme
from .programs import ROOT

PROGRAMS = readme.blocks(ROOT / "README.md")
# The number of a program, and the port that it listens on.
MAIN = """
import sys
def main():
    if sys.argv[1] == "0":
        import program0
    elif sys.argv[1] == "1":
        import program1
    else:
        import program2
if __name__ == "__main__":
    main()
"""


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} (the extra `integration`) is not installed")


def run(*command: str, cwd: Path, **env: str) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with netpoll as pip installs it, and the programs."""
    folder = tmp_path_factory.mktemp("frozen") / "site"
    skip = shutil.ignore_patterns("__pycache__", "*.pyx", "*.pxd", "*.c")
    shutil.copytree(ROOT / "src" / "netpoll", folder / "netpoll", ignore=skip)
    run(sys.executable, "setup.py", "-q", "dist_info", "--output-dir", str(folder), cwd=ROOT)
    (folder / "main.py").write_text(MAIN)
    for number, code in enumerate(PROGRAMS):
        text = readme.PORT.sub("int(sys.argv[2])", code)
        (folder / f"program{number}.py").write_text(f"import sys\n{text}")
    return folder


def pyinstaller(site: Path, out: Path) -> list[str]:
    needs("PyInstaller")
    command = (sys.executable, "-m", "PyInstaller", "--onefile", "--name", "app", "--distpath", ".")
    run(*command, str(site / "main.py"), cwd=out, PYTHONPATH=str(site))
    return [str(out / "app")]


def shiv(site: Path, out: Path) -> list[str]:
    needs("shiv")
    command = (sys.executable, "-m", "shiv", "--site-packages", str(site), "-e", "main:main")
    run(*command, "-o", str(out / "app.pyz"), "--root", str(out / "unpacked"), cwd=out)
    return [sys.executable, "-I", str(out / "app.pyz")]


def nuitka(site: Path, out: Path) -> list[str]:
    if not os.environ.get("NETPOLL_NUITKA"):
        pytest.skip("Nuitka compiles for minutes: NETPOLL_NUITKA=1 asks for it")
    needs("nuitka")
    options = ("--standalone", "--include-package=netpoll", "--nofollow-import-to=netpoll.bench")
    command = (sys.executable, "-m", "nuitka", *options, "--assume-yes-for-downloads")
    run(*command, f"--output-dir={out}", str(site / "main.py"), cwd=out, PYTHONPATH=str(site))
    return [str(out / "main.dist" / "main.bin")]


@pytest.mark.parametrize("freeze", [pyinstaller, shiv, nuitka])
def test_programs(
    freeze: Callable[[Path, Path], list[str]],
    site: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On both backends, where nothing of this tree can be imported."""
    command = freeze(site, tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for backend in ("auto", "epoll"):
        monkeypatch.setenv("NETPOLL_BACKEND", backend)
        for number, code in enumerate(PROGRAMS):
            port = readme.free_port()
            with readme.running([*command, str(number), str(port)], port):
                readme.ask(code, port)


def test_a_plain_zip_is_not_enough(site: Path, tmp_path: Path) -> None:
    """Python imports no extension out of a zip: shiv and pex unpack themselves for that."""
    app = tmp_path / "app.pyz"
    zipapp.create_archive(site, app, main="main:main")
    done = subprocess.run(
        [sys.executable, "-I", str(app), "0", "0"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert textwrap.dedent(done.stderr).rstrip().splitlines()[-1].startswith("ModuleNotFoundError")
