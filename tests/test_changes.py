"""The files in changes/, of which a release makes its part of the changelog."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHANGES = ROOT / "changes"
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]
KINDS = [kind["directory"] for kind in CONFIG["type"]]
NAME = re.compile(rf"[a-z0-9]+(?:-[a-z0-9]+)*\.(?:{'|'.join(KINDS)})\.md")


def faults(name: str, text: str) -> list[str]:
    """What is wrong with one change; changes/README.md has the rules."""
    found = []
    if not NAME.fullmatch(name):
        found.append(f"its name is not WHAT.KIND.md with one of these kinds: {', '.join(KINDS)}")
    if text != text.strip() + "\n" or "\n\n" in text:
        found.append("it is not one paragraph that ends with a line break")
    if re.match(r"[-*#]\s", text):
        found.append("it begins with a bullet or a heading")
    if not text.rstrip().endswith("."):
        found.append("it does not end with a full stop")
    if any(len(line) > 100 for line in text.splitlines()):
        found.append("it has a line of more than 100 characters")
    return found


def test_every_change_can_be_put_into_the_changelog() -> None:
    wrong = [
        f"{path.name}: {fault}"
        for path in sorted(CHANGES.iterdir())
        if path.name not in CONFIG["ignore"]
        for fault in faults(path.name, path.read_text())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("accept-limit.added.md", "A limit.\n", 0),
        ("two-lines.fixed.md", "Two\nlines.\n", 0),
        ("accept-limit.new.md", "A limit.\n", 1),
        ("Accept limit.added.md", "A limit.\n", 1),
        ("added.md", "A limit.\n", 1),
        ("a.added.md", "- A limit.\n", 1),
        ("a.added.md", "A limit.\n\nAnd another.\n", 1),
        ("a.added.md", "", 2),
        ("a.added.md", "A limit\n", 1),
    ],
)
def test_faults_are_found(name: str, text: str, count: int) -> None:
    assert len(faults(name, text)) == count


def test_the_kinds_are_explained() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", (CHANGES / "README.md").read_text(), re.MULTILINE)
    assert explained == KINDS


def test_a_release_finds_its_place() -> None:
    assert (ROOT / "CHANGELOG.md").read_text().count(CONFIG["start_string"]) == 1


def test_towncrier_makes_a_list(tmp_path: Path) -> None:
    pytest.importorskip("towncrier", reason="towncrier is not installed (pip install towncrier)")
    (tmp_path / "changes").mkdir()
    for file in ("pyproject.toml", "CHANGELOG.md", CONFIG["template"]):
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    (tmp_path / "changes" / "one.added.md").write_text("First line,\nsecond line.\n")
    (tmp_path / "changes" / "two.fixed.md").write_text("It works.\n")
    command = [sys.executable, "-m", "towncrier", "build", "--keep"]
    command += ["--version", "7.0", "--date", "2030-01-02"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "CHANGELOG.md").read_text().split(CONFIG["start_string"])[1]
    assert text.startswith(
        "\n## 7.0 (2030-01-02)\n\n### Added\n\n- First line,\n  second line.\n\n"
        "### Fixed\n\n- It works.\n\n"
    )
