"""scripts/lint runs what pre-commit runs: the same tools, versions and commands."""

import importlib.util
import re
import tomllib
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text()


@pytest.fixture(scope="module")
def lint() -> ModuleType:
    """The script as a module: it looks at the source only when it is run."""
    loader = SourceFileLoader("netpoll_lint", str(ROOT / "scripts" / "lint"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def hooks(field: str) -> list[str]:
    """This field of every hook, in their order."""
    return re.findall(rf"^ +(?:- )?{field}: \[?([^\]\n]+)\]?$", HOOKS, re.MULTILINE)


def test_the_versions_are_the_hooks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = project["optional-dependencies"]["lint"]
    assert all("==" in requirement for requirement in pinned)
    assert set(hooks("additional_dependencies")) == set(pinned)


def test_the_commands_are_the_hooks(lint: ModuleType) -> None:
    commands = dict(zip(hooks("id"), hooks("entry"), strict=True))
    assert commands == {name: tool.fix for name, tool in lint.TOOLS.items()}


def test_the_hooks_come_from_the_package_index() -> None:
    """Where CI runs there may be no other network."""
    assert hooks("repo") == ["local"]
    assert set(hooks("language")) == {"python"}


def test_every_kind_of_file_is_looked_at(lint: ModuleType) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("only a checkout of git says which files are ours")
    seen = {name for tool in lint.TOOLS.values() for name in lint.files_of(tool.patterns)}
    assert {"setup.py", "scripts/lint", "src/netpoll/_core.pyx", "csrc/io/np_op.c"} <= seen
    python = lint.files_of(lint.PYTHON)
    scripts = [name for name in seen if "." not in Path(name).name]
    first_lines = {name: (ROOT / name).read_bytes().split(b"\n")[0] for name in scripts}
    with_python = [
        name for name, line in first_lines.items() if line.startswith(b"#!") and b"python" in line
    ]
    assert with_python and set(with_python) <= set(python)
