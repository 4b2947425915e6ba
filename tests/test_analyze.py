"""scripts/analyze: what gcc's static analyzer finds ends it with an error, and is in its report."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 120

CLEAN = "int twice(int number) { return 2 * number; }\n"
LEAK = """
#include <stdlib.h>

int lose(void)
{
    char *lost = malloc(10);
    return lost ? 1 : 0;
}
"""

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="the analyzer is gcc's")


def analyze(tmp_path: Path, text: str) -> tuple[int, str, Path]:
    source, output = tmp_path / "source.c", tmp_path / "report.sarif"
    source.write_text(text)
    command = [sys.executable, ROOT / "scripts/analyze", "--output", output, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    return done.returncode, done.stdout + done.stderr, output


def test_a_clean_file(tmp_path: Path) -> None:
    status, said, output = analyze(tmp_path, CLEAN)
    assert status == 0, said
    assert json.loads(output.read_text())["runs"][0]["results"] == []


def test_a_finding_is_an_error_and_is_in_the_report(tmp_path: Path) -> None:
    status, said, output = analyze(tmp_path, LEAK)
    assert status == 1, said
    assert "source.c:7: lose: leak of" in said
    report = json.loads(output.read_text())
    (result,) = report["runs"][0]["results"]
    assert report["version"] == "2.1.0"
    assert result["ruleId"] == "-Wanalyzer-malloc-leak"
    assert result["locations"][0]["physicalLocation"]["region"]["startLine"] == 7
    assert len(result["codeFlows"][0]["threadFlows"][0]["locations"]) > 1
    assert "suppressions" not in result


def test_a_file_that_is_no_c_is_not_taken_for_clean(tmp_path: Path) -> None:
    status, said, output = analyze(tmp_path, "this is no C\n")
    assert status == 2, said
    assert not output.exists()
