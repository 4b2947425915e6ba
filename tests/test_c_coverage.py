"""scripts/c-coverage: what gcc has counted, file by file."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAIN = """
#include "http/np_utf8.h"
int main(void)
{
    struct np_utf8 state = {0};
    return !np_utf8_check(&state, (const uint8_t *)"plain", 5);
}
"""


def report(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "c-coverage"), str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True)


def test_lines_that_were_run_and_those_that_were_not(tmp_path: Path) -> None:
    if not all(map(shutil.which, ("gcc", "gcov"))):
        pytest.skip("gcc and gcov are not installed")
    (tmp_path / "main.c").write_text(MAIN)
    core = str(ROOT / "csrc" / "http" / "np_utf8.c")
    compiled = ["gcc", "-O0", "--coverage", f"-I{ROOT / 'csrc'}", "-c", core, "-o", "np_utf8.o"]
    linked = ["gcc", "--coverage", f"-I{ROOT / 'csrc'}", "main.c", "np_utf8.o", "-o", "program"]
    for command in (compiled, linked, ["./program"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    lines = report(tmp_path, "--lines").stdout.splitlines()
    assert [line.split()[-1] for line in lines[::2]] == ["csrc/http/np_utf8.c", "lines"]
    assert 0 < float(lines[0].split()[0]) < 100
    text = Path(core).read_text().splitlines()
    never = {int(part.split("-")[0]) for part in lines[1].split(",")}
    assert never and all(text[number - 1].strip() for number in never)
    assert lines[2].split()[0] == lines[0].split()[0]


def test_nothing_was_measured(tmp_path: Path) -> None:
    done = report(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"netpoll: nothing was measured in {tmp_path}\n"
