"""The test command: lanes are listed, run under both of their names, fail when a part does."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ROOT / "test"
LISTED = COMMAND.read_text().split("<<'END'")[1].split("\nEND\n")[0]
LANES = re.findall(r"^(\w+) +\./test", LISTED, re.MULTILINE)


class Tree:
    """The command in a folder of its own, where what it calls only says how it is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(COMMAND, folder / "test")
        for name in ("setup-env", "test-pythons", "build-wheels", "test-install"):
            self.stub(f"scripts/{name}")
        self.stub("bin/make")
        for environment in (".venv", ".venv-sanitize"):
            self.stub(f"{environment}/bin/python")

    def stub(self, name: str, body: str = "") -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*"\n{body}\n')
        path.chmod(0o755)

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.folder / "test"), *arguments],
            capture_output=True,
            text=True,
            env={"PATH": f"{self.folder}/bin:/usr/bin:/bin", "NETPOLL_JOBS": "3"} | env,
        )


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_the_list_starts_nothing(tree: Tree) -> None:
    done = tree.run("--list")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == LISTED.lstrip("\n") + "\n"
    for lane in LANES:
        assert re.search(rf"^{lane} +\./test.* +\d+  \w+", done.stdout, re.MULTILINE), lane
    named = {
        "default",
        "long",
        "c",
        "sanitize",
        "pythons",
        "integration",
        "suites",
        "lint",
        "installs",
    }
    assert named <= set(LANES)


def test_the_docs_have_every_lane() -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    for lane in LANES:
        assert f"| `{lane}` | `./test" in page, lane


def test_a_lane_that_is_not_there(tree: Tree) -> None:
    done = tree.run("frobnicate")
    assert done.returncode == 2
    assert done.stderr == "netpoll: there is no lane 'frobnicate': ./test --list shows them.\n"
    assert done.stdout == ""


@pytest.mark.parametrize("lane", LANES)
def test_a_lane_by_its_names(tree: Tree, lane: str) -> None:
    plain, dashed = tree.run(lane, "-k", "one word"), tree.run(f"--{lane}", "-k", "one word")
    assert (plain.stdout, plain.returncode) == (dashed.stdout, 0)
    assert lane == "c" or "-k one word" in plain.stdout
    if lane == "default":
        assert tree.run().stdout == plain.stdout.replace(" -k one word", "")


@pytest.mark.parametrize("user", [0, 1000])
def test_the_long_lane_installs_wheels(tree: Tree, user: int) -> None:
    """Where it can: in chroots, which root makes with apt-get. Its failure is the lane's."""
    tree.stub("bin/apt-get")
    (tree.folder / "bin" / "id").write_text(f"#!/bin/sh\necho {user}\n")
    (tree.folder / "bin" / "id").chmod(0o755)
    done = tree.run("long")
    assert done.returncode == 0, done.stderr
    assert ("scripts/test-install --build\n" in done.stdout) == (user == 0)
    assert ("no wheel is tried in bare systems" in done.stdout) == (user != 0)
    tree.stub("scripts/test-install", "exit 1")
    done = tree.run("long")
    assert (done.returncode == 1) == ("the installations" in done.stderr) == (user == 0)
    assert done.stdout.splitlines()[-1].startswith(".venv/bin/python -m pytest -n 5 ")


def test_options_of_pytest_and_paths_run_python_tests_only(tree: Tree) -> None:
    (tree.folder / "tests").mkdir()
    for arguments in (["-k", "threadsafe"], ["tests"], ["tests/loop", "-x"], ["--loops", "uring"]):
        done = tree.run(*arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f".venv/bin/python -m pytest {' '.join(arguments)}\n")
        assert "make" not in done.stdout and "lint" not in done.stdout.splitlines()[-1]


def test_an_option_that_nobody_knows(tree: Tree) -> None:
    tree.stub(".venv/bin/python", "exit 4")
    done = tree.run("--lnit")
    assert done.returncode == 4
    assert "neither a lane (./test --list shows them) nor" in done.stderr


@pytest.mark.parametrize(("part", "name"), [("bin/make", "the C tests"), ("lint", "the lint")])
def test_a_part_that_fails(tree: Tree, part: str, name: str) -> None:
    """The others are run all the same, the Python tests last."""
    if part == "lint":
        tree.stub(".venv/bin/python", '[ "$1" != scripts/lint ]')
    else:
        tree.stub(part, "exit 2")
    done = tree.run()
    assert done.returncode == 1
    assert done.stderr == f"netpoll: failed, see above: {name}\n"
    assert "bin/make" in done.stdout
    # Three jobs, and two tests more for the time in which one waits.
    assert done.stdout.splitlines()[-1].startswith(".venv/bin/python -m pytest -n 5 ")


# pytest that fails with a status, and once more alone or not.
PYTEST = """
case "$*" in
*--last-failed*) exit {alone} ;;
*pytest*) mkdir -p .pytest_cache/v/cache
    for number in {failed}; do echo "\"$number\": true,"; done >.pytest_cache/v/cache/lastfailed
    exit {status} ;;
esac
"""


@pytest.mark.parametrize(
    ("case", "returncode"),
    [
        ({"failed": "1 2 3", "alone": 0}, 0),
        ({"failed": "1 2 3", "alone": 1}, 1),
        ({"failed": "1 2 3 4 5 6", "alone": 0}, 1),
        ({"failed": "1", "alone": 0, "status": 2}, 1),
        ({"failed": "1", "alone": 0, "CI": ""}, 1),
    ],
    ids=["chance", "fault", "many", "interrupted", "not in CI"],
)
def test_a_second_run_in_ci(tree: Tree, case: dict[str, object], returncode: int) -> None:
    tree.stub(".venv/bin/python", PYTEST.format(**{"status": 1} | case))
    done = tree.run(CI=str(case.get("CI", "true")))
    assert done.returncode == returncode
    assert (done.stderr == "") == (returncode == 0)
    ran_again = case["failed"] == "1 2 3"
    assert ("once more, alone" in done.stdout) == ran_again
