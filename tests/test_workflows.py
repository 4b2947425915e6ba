"""The workflows of a forge: their form, what they may do, and that what they run is there.

They cannot run here. yamllint, the schema, zizmor and, where it is installed, actionlint look at
them; the rest is compared with the project.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORGE = ROOT / ".github"
WORKFLOWS = sorted((FORGE / "workflows").glob("*.yml"))
TEXT = {path.name: path.read_text() for path in WORKFLOWS}
RULES = (
    "{extends: default, rules: {line-length: {max: 100}, truthy: {check-keys: false}, "
    "document-start: disable, comments: {min-spaces-from-content: 1}}}"
)


def passes(*command: str | Path) -> None:
    """Skips where the program is not installed."""
    name = str(command[0])
    program = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip(f"{name} (the extra `workflows`) is not installed")
    done = subprocess.run(
        [program, *map(str, command[1:])], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_workflows() -> None:
    assert list(TEXT) == ["release.yml", "tests.yml", "wheels.yml"]


def test_yamllint() -> None:
    passes("yamllint", "--strict", "-d", RULES, FORGE / "dependabot.yml", *WORKFLOWS)


def test_the_schemas() -> None:
    passes("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    passes("check-jsonschema", "--builtin-schema", "vendor.dependabot", FORGE / "dependabot.yml")


def test_zizmor() -> None:
    """Permissions, passwords that stay in a checkout, names of branches that reach a shell."""
    passes("zizmor", "--offline", "--no-progress", FORGE)


def test_actionlint() -> None:
    """Expressions, contexts, the inputs of well-known actions."""
    passes("actionlint", "-no-color", *WORKFLOWS)


@pytest.mark.parametrize("name", TEXT)
def test_actions_are_pinned_by_digest(name: str) -> None:
    used = re.findall(r"uses: (\S+)(.*)", TEXT[name])
    assert used
    for action, comment in used:
        if not action.startswith("./"):
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action), action
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action


@pytest.mark.parametrize("name", TEXT)
def test_what_is_run_is_there(name: str) -> None:
    for script in re.findall(r"(?:scripts/[\w.-]+|\.ci/run)", TEXT[name]):
        assert (ROOT / script).is_file(), script
    for workflow in re.findall(r"uses: \./(\S+)", TEXT[name]):
        assert (ROOT / workflow).is_file(), workflow


def test_every_python_has_a_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    classified = re.findall(r"Python :: (3\.\d+)'", str(project["classifiers"]))
    listed = re.findall(r"^ {12}(3\.\d+t?)$", TEXT["wheels.yml"], re.MULTILINE)
    assert sorted(name for name in listed if not name.endswith("t")) == sorted(classified)
    tested = re.search(r"python: \[(.*)\]", TEXT["tests.yml"])
    assert tested and tested[1] == f'"{classified[0]}", "{classified[-1]}"'


def test_a_release_is_published_without_a_password() -> None:
    text = TEXT["release.yml"]
    assert "secrets." not in text and "password" not in text
    publish = text.split("\n  publish:\n")[1].split("\n  page:\n")[0]
    assert "environment: pypi" in publish
    assert publish.split("permissions:\n")[1].split("    steps:")[0].split() == [
        "id-token:",
        "write",
    ]
