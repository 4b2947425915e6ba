"""The CPythons to build wheels for: those that run here, and those that Debian has headers of.

A wheel needs of its CPython the headers and what sysconfig says, so any CPython can build for any
other. Flags of whoever built a CPython are left out: a wheel's bytes do not depend on them.
"""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from debian import NotToBeHad, Packages, output

OLDEST = (3, 11)
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
SUITE = "sid"
SERIES = re.compile(r"3\.\d+t?")
IDENTITY = """
import sys, sysconfig
free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
assert sys.implementation.name == "cpython" and sys.version_info.releaselevel == "final"
print("%d.%d%s" % (*sys.version_info[:2], free))
"""
VARIABLES = """
import importlib, json, sysconfig
print(json.dumps(importlib.import_module(sysconfig._get_sysconfigdata_name()).build_time_vars))
"""
# setup.py by another CPython than the wheel is for: bdist_wheel wants a tag of its own.
LENT = """
import runpy, sys
from setuptools.command.bdist_wheel import bdist_wheel
tag = tuple(sys.argv.pop(1).split("-"))
bdist_wheel.get_tag = lambda self: tag
sys.argv[0] = "setup.py"
runpy.run_path("setup.py", run_name="__main__")
"""
FLAGS = {
    "CFLAGS": "-fno-strict-overflow -DNDEBUG -Wall",
    "CCSHARED": "-fPIC",
    "Py_ENABLE_SHARED": 0,
    **dict.fromkeys(("OPT", "BASECFLAGS", "LDFLAGS", "CPPFLAGS"), ""),
}


@dataclasses.dataclass(frozen=True)
class CPython:
    """What a wheel is built for; `python` is None where it does not run here."""

    series: str
    python: Path | None

    @property
    def tag(self) -> str:
        digits = self.series.replace(".", "")
        return f"cp{digits.rstrip('t')}-cp{digits}"


def version_of(series: str) -> tuple[int, ...]:
    return tuple(int(part) for part in series.rstrip("t").split("."))


def series_of(python: Path) -> str | None:
    """None for what is no released CPython that netpoll supports."""
    series = output(str(python), "-c", IDENTITY)
    return series if series and version_of(series) >= OLDEST else None


def those_here() -> list[CPython]:
    """The newest CPython of each series that runs here."""
    places = [Path(folder) for folder in os.environ.get("PATH", "").split(":") if folder]
    places += sorted(Path("/opt").glob("*/bin"))
    store = os.environ.get("NETPOLL_PYTHONS_DIR", "~/.cache/netpoll/pythons")
    places += sorted(Path(store).expanduser().glob("*/bin"))
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    versions = sorted(
        (root / "versions").glob("3.*/bin"),
        key=lambda path: [int(part) for part in re.findall(r"\d+", path.parent.name)],
        reverse=True,
    )
    found: dict[str, Path] = {}
    for folder in [*versions, *places]:
        for path in sorted(folder.glob("python3.*")):
            is_one = SERIES.fullmatch(path.name.removeprefix("python"))
            if is_one and (series := series_of(path)) is not None:
                found.setdefault(series, path)
    return in_order([CPython(series, path) for series, path in found.items()])


def in_order(found: list[CPython]) -> list[CPython]:
    return sorted(found, key=lambda cpython: (version_of(cpython.series), cpython.series))


def those_of_debian(packages: Packages) -> list[CPython]:
    """What Debian has headers of. Raises NotToBeHad."""
    named = re.findall(r"^libpython(3\.\d+)-dev$", packages.names(), re.MULTILINE)
    return in_order([CPython(s, None) for s in named if version_of(s) >= OLDEST])


# ---- what a wheel needs of its CPython ------------------------------------------------------


def flat_headers(include: Path, multiarch: str, target: Path) -> Path:
    """Headers in one folder: Debian's pyconfig.h is one of many, which stand beside the others."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(include, target)
    chosen = include.parent / multiarch / include.name / "pyconfig.h"
    if multiarch and chosen.exists():
        shutil.copy(chosen, target)
    return target


def of_this_machine(cpython: CPython, here: str, arch: str, target: Path) -> dict[str, Any]:
    """What sysconfig says, of the interpreter. Headers of one 64-bit Linux serve the others."""
    said: dict[str, Any] = json.loads(output(str(cpython.python), "-c", VARIABLES))
    multiarch = said.get("MULTIARCH") or ""
    said["INCLUDEPY"] = str(flat_headers(Path(said["INCLUDEPY"]), multiarch, target))
    for name in ("EXT_SUFFIX", "SOABI", "MULTIARCH"):
        said[name] = (said.get(name) or "").replace(here, arch)
    return said


def of_debian(cpython: CPython, packages: Packages, target: Path) -> dict[str, Any]:
    """What sysconfig would say, out of Debian's packages. Raises NotToBeHad."""
    name = f"libpython{cpython.series}"
    root = packages.unpacked(f"{name}-dev", f"{name}-minimal")
    files = sorted(root.glob(f"usr/lib/python{cpython.series}/_sysconfigdata_*linux*.py"))
    include = root / "usr" / "include" / f"python{cpython.series}"
    level = include / "patchlevel.h"
    if not files or not level.exists():
        raise NotToBeHad(f"Debian's {name}-dev is not what it was")
    if not re.search(r"define PY_RELEASE_LEVEL\s+PY_RELEASE_LEVEL_FINAL", level.read_text()):
        raise NotToBeHad(f"Debian's CPython {cpython.series} is no release yet")
    variables: dict[str, Any] = {}
    exec(files[0].read_text(), variables)
    said: dict[str, Any] = variables["build_time_vars"]
    said["INCLUDEPY"] = str(flat_headers(include, said.get("MULTIARCH") or "", target))
    return said


def described(said: dict[str, Any], arch: str, scratch: Path) -> dict[str, str]:
    """The environment in which sysconfig of any CPython speaks of another one."""
    said = said | FLAGS | {"CONFINCLUDEPY": said["INCLUDEPY"]}
    file = scratch / "_sysconfigdata_described.py"
    file.write_text(f"build_time_vars = {said!r}\n")
    return {
        "PYTHONPATH": str(scratch),
        "_PYTHON_SYSCONFIGDATA_NAME": file.stem,
        "_PYTHON_HOST_PLATFORM": f"linux-{arch}",
    }
