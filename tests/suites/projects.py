"""What projects.toml and exceptions.toml say, as objects; wrong entries end with a sentence."""

import dataclasses
import fnmatch
import functools
import hashlib
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LOOPS = ("uring", "epoll")


@dataclasses.dataclass(frozen=True)
class Project:
    """Somebody's suite: where it comes from, what it needs, which part of it is run."""

    name: str
    version: str
    arguments: tuple[str, ...]  # pytest's
    requires: tuple[str, ...] = ()  # for pip, besides the project itself
    package: str = ""  # the name on the index, where two entries are of one project
    install: str = ""  # what pip installs; the default is package==version
    source: str = ""  # "debian:SUITE/PACKAGE", "index"; see projects.toml
    keep: tuple[str, ...] = ("tests", "pyproject.toml")  # copied out of it: patterns
    left_out: tuple[dict[str, Any], ...] = ()  # tests run on no loop: {tests = [...], reason}
    setup: str = ""  # Python: a pytest plugin, for what the project's own test runner sets
    servers: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    alone: bool = False  # fixed ports, or tight times: nothing else runs meanwhile
    test_timeout_s: float = 30.0
    run_timeout_s: float = 900.0
    python: str = ""  # ">=3.12": other Pythons skip it

    @property
    def index_name(self) -> str:
        return self.package or self.name

    def fingerprint(self) -> str:
        fields = dataclasses.asdict(self)
        del fields["test_timeout_s"], fields["run_timeout_s"]  # more time makes nothing wrong
        del fields["package"]  # it is what `install` and `version` stand for
        text = json.dumps(fields, sort_keys=True) + sys.version
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def leaves_out(self, test: str) -> bool:
        patterns = (pattern for entry in self.left_out for pattern in entry["tests"])
        return any(fnmatch.fnmatchcase(test, _literal(pattern)) for pattern in patterns)


@dataclasses.dataclass(frozen=True)
class Exception_:
    """One test, or a few of a kind, that may fail on netpoll although asyncio passes."""

    project: str
    tests: tuple[str, ...]
    reason: str
    backends: tuple[str, ...] = LOOPS
    expect: str = ""  # a regular expression that the failure must match

    def covers(self, test: str) -> bool:
        return any(fnmatch.fnmatchcase(test, _literal(pattern)) for pattern in self.tests)


def _literal(pattern: str) -> str:
    """Ids of parametrized tests have brackets: only * and ? are wildcards."""
    return pattern.replace("[", "[[]")


def _tuples(item: dict[str, Any]) -> dict[str, Any]:
    found = {k: tuple(v) if isinstance(v, list) else v for k, v in item.items()}
    if "environment" in found:
        found["environment"] = tuple(sorted(found["environment"].items()))
    return found


@functools.cache
def projects(path: Path = HERE / "projects.toml") -> dict[str, Project]:
    """All of them, by name, in the order of the file."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: _project(name, item) for name, item in table.items()}


def _project(name: str, item: dict[str, Any]) -> Project:
    try:
        project = Project(name=name, **_tuples(item))
    except TypeError as error:
        raise SystemExit(f"projects.toml: [{name}]: {error}") from None
    for entry in project.left_out:
        if set(entry) != {"tests", "reason"} or len(entry["reason"]) < 10:
            raise SystemExit(f"projects.toml: [{name}]: left_out needs tests and a reason")
    return project


@functools.cache
def exceptions(path: Path = HERE / "exceptions.toml") -> tuple[Exception_, ...]:
    """All of them; each has a reason."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    found = []
    for item in table.get("exception", ()):
        try:
            entry = Exception_(**_tuples(item))
            re.compile(entry.expect)
        except (TypeError, re.error) as error:
            raise SystemExit(f"exceptions.toml: {item.get('tests')}: {error}") from None
        if len(entry.reason) < 10 or not entry.tests or set(entry.backends) - set(LOOPS):
            raise SystemExit(f"exceptions.toml: {entry.tests}: tests, a reason, known backends")
        found.append(entry)
    return tuple(found)
