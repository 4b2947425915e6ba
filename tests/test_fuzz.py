"""The fuzz targets: each one is built, listed and has a corpus; none is forgotten."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "c"
MAKEFILE = (FOLDER / "Makefile").read_text()
TARGETS = re.search(r"^TARGETS := ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)

# Of all inputs of one target: they are read by people who look for what is covered.
CORPUS_MAX_BYTES = 24_000


def targets() -> set[str]:
    assert TARGETS is not None
    return set(TARGETS[1].replace("\\", " ").split())


def test_every_program_is_a_target() -> None:
    assert {path.stem.removeprefix("fuzz_") for path in FOLDER.glob("fuzz_*.c")} == targets()


def test_every_target_has_a_small_corpus() -> None:
    folders = {path.name: path for path in (FOLDER / "corpus").iterdir() if path.is_dir()}
    assert set(folders) == targets()
    for name, folder in folders.items():
        sizes = [path.stat().st_size for path in folder.iterdir()]
        assert sizes, name
        assert sum(sizes) <= CORPUS_MAX_BYTES, name


def test_the_docs_have_every_target() -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    section = page.split("## Inputs that nobody wrote")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \| [a-zA-Z]", section, re.MULTILINE)) == targets()
