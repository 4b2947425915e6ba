"""For each project a folder with its tests and an environment to run them in, below build/suites.

The tests come out of the project's source distribution, which pip fetches from the index that it is
set up for (or, where that has no tests, out of Debian's source package of the same release). The
project itself is installed as users install it, so that the built release is tested. netpoll is
not installed: a .pth file leads to this tree, and to the module that puts the loop in.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

from .projects import ROOT, Project

STORE = ROOT / "build" / "suites"
INSIDE = Path(__file__).parent / "inside"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PIP_TIMEOUT_S = 540.0


class NotToBeHad(Exception):
    """Why a project cannot be run here."""


def prepare(project: Project, checkout: Path | None = None) -> Path:
    """Makes what is missing; the folder where pytest runs."""
    folder = work(project).parent
    stamp = folder / "ready.json"
    wanted = json.dumps([project.fingerprint(), str(ROOT), str(checkout or "")])
    if stamp.exists() and stamp.read_text() == wanted:
        return work(project)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _unpack(project, checkout or _source(project), folder / "work")
    _make_environment(project, folder / "env", folder / "pip.log")
    stamp.write_text(wanted)
    return work(project)


def work(project: Project) -> Path:
    """Where pytest runs."""
    return STORE / "projects" / project.name / "work"


def python(project: Project) -> Path:
    return STORE / "projects" / project.name / "env" / "bin" / "python"


def installed_version(project: Project) -> str:
    """Of the project, as its environment has it."""
    code = f"import importlib.metadata as m; print(m.version({project.index_name!r}))"
    found = subprocess.run(
        [str(python(project)), "-c", code], capture_output=True, text=True, env=_environment()
    )
    return found.stdout.strip() or project.version


def _environment() -> dict[str, str]:
    """Without what would lead Python or pip elsewhere."""
    drop = ("PYTHONPATH", "PYTHONHOME", "NETPOLL_SUITES_LOOP", "NETPOLL_BACKEND")
    return {name: value for name, value in os.environ.items() if name not in drop}


def _run(what: str, command: list[str], log: Path | None = None, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PIP_TIMEOUT_S,
            cwd=cwd,
            env=_environment(),
        )
    except subprocess.TimeoutExpired:
        raise NotToBeHad(f"{what}: not within {PIP_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise NotToBeHad(f"{what}: {error}") from None
    if log is not None:
        log.write_text(done.stdout)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("ERROR", "E:"))]
        raise NotToBeHad(f"{what}: {(errors or lines or ['no output'])[-1]}")


def _source(project: Project) -> Path:
    """The archive with the tests; kept, so that it is fetched once."""
    folder = STORE / "sources" / f"{project.index_name}-{project.version}"
    kept = _archives(folder)
    if kept:
        return kept[0]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        fetched = Path(name) / "archives"
        fetched.mkdir()
        if project.source.startswith("debian:"):
            _fetch_from_debian(project, Path(name), fetched)
        elif project.source == "index":
            _fetch_from_index(project, fetched)
        else:
            # pip asks the project's build system for its name; what that needs comes as wheels.
            command = [sys.executable, "-m", "pip", "download", "--no-deps"]
            command += ["--no-binary", project.index_name, "--dest", str(fetched)]
            command += [f"{project.index_name}=={project.version}"]
            _run(f"the source distribution of {project.name}", command)
        if not _archives(fetched):
            raise NotToBeHad(f"no source distribution of {project.name} {project.version}")
        shutil.rmtree(folder, ignore_errors=True)
        fetched.rename(folder)
    return _archives(folder)[0]


def _archives(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if ".tar." in path.name)


def _fetch_from_debian(project: Project, scratch: Path, target: Path) -> None:
    """apt checks the signature; its own state is not touched."""
    suite, _, package = project.source.removeprefix("debian:").partition("/")
    for part in ("lists/partial", "cache/archives/partial"):
        (scratch / part).mkdir(parents=True)
    apt = ["apt-get", "-q", f"-oDir::Etc::SourceList={scratch}/sources.list"]
    apt += ["-oDir::Etc::SourceParts=/nonexistent", f"-oDir::State::Lists={scratch}/lists"]
    apt += [f"-oDir::Cache={scratch}/cache", "-oAPT::Sandbox::User=root"]
    apt += ["-oAcquire::Check-Valid-Until=false"]
    line = f"deb-src [signed-by={KEYRING}] {debian_archive()} {suite} main\n"
    (scratch / "sources.list").write_text(line)
    what = f"Debian's source package {package}"
    _run(what, [*apt, "update"])
    download = [*apt, "source", "--only-source", "--tar-only", "--download-only", package]
    _run(what, download, cwd=target)


def _fetch_from_index(project: Project, target: Path) -> None:
    """The source distribution of a project whose build system does not install here. pip would ask
    that system for the project's name first."""
    asked = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    commands = (["-m", "pip", "config", "get", "global.index-url"], ["-c", asked])
    words = (
        subprocess.run([sys.executable, *command], capture_output=True, text=True).stdout.strip()
        for command in commands
    )
    index = os.environ.get("PIP_INDEX_URL") or next(filter(None, words), "")
    if not index:
        raise NotToBeHad("pip has no index")
    page = f"{index.rstrip('/')}/{project.index_name}/"
    try:
        with urllib.request.urlopen(page, timeout=60) as answer:
            text = answer.read().decode()
        name = re.escape(f"{project.index_name}-{project.version}.tar.gz")
        link = re.search(rf'href="([^"#]*/{name})#sha256=([0-9a-f]+)"', text)
        if link is None:
            raise NotToBeHad(f"no source distribution of {project.name} {project.version}")
        with urllib.request.urlopen(urllib.parse.urljoin(page, link[1]), timeout=60) as answer:
            archive = answer.read()
    except OSError as error:
        raise NotToBeHad(f"the source distribution of {project.name}: {error}") from None
    if hashlib.sha256(archive).hexdigest() != link[2]:
        raise NotToBeHad(f"the source distribution of {project.name} is not what the index says")
    (target / link[1].rpartition("/")[2]).write_bytes(archive)


def debian_archive() -> str:
    """The archive that this system's apt is set up for."""
    for path in [*sorted(Path("/etc/apt").glob("sources.list*/*")), Path("/etc/apt/sources.list")]:
        text = path.read_text(errors="replace") if path.is_file() else ""
        for line in text.splitlines():
            words = line.split()
            if line.startswith("URIs:") and "/debian" in line and "security" not in line:
                return words[1]
            if line.startswith("deb http") and "/debian" in line and "security" not in line:
                return words[1]
    raise NotToBeHad("apt is not set up for a Debian archive")


def _unpack(project: Project, source: Path, work: Path) -> None:
    """What the project wants of the archive (or of a checkout) becomes its folder."""
    if source.is_dir():
        _keep(project, source, work)
        return
    with tempfile.TemporaryDirectory(dir=work.parent) as folder, tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
        (root,) = Path(folder).iterdir()
        _keep(project, root, work)


def _keep(project: Project, root: Path, work: Path) -> None:
    work.mkdir()
    # pytest looks for its settings upwards; netpoll's own are not meant.
    (work / "pytest.ini").write_text("[pytest]\n")
    (work / "suite_setup.py").write_text(project.setup)
    for pattern in project.keep:
        for path in sorted(root.glob(pattern)):
            target = work / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target, symlinks=True)
            else:
                shutil.copy(path, target)
                if _pytest_section(path):
                    (work / "pytest.ini").unlink(missing_ok=True)


def _pytest_section(path: Path) -> str:
    """The header of pytest's settings in this file, if it has any."""
    if path.suffix not in (".toml", ".cfg"):
        return ""
    found = re.search(r"^\[tool[.:]pytest.*\]", path.read_text(errors="replace"), re.MULTILINE)
    return found[0] if found else ""


def _make_environment(project: Project, env: Path, log: Path) -> None:
    _run("the environment", [sys.executable, "-m", "venv", "--without-pip", str(env)])
    (packages,) = env.glob("lib/python3*/site-packages")
    wanted = project.install or f"{project.index_name}=={project.version}"
    pip = [sys.executable, "-m", "pip", "--python", str(env / "bin" / "python"), "install", "-q"]
    pip += ["--disable-pip-version-check", "--prefer-binary"]
    _run(f"installing {project.name}", [*pip, *wanted.split(), *project.requires], log)
    (packages / "netpoll_suites.pth").write_text(
        f"{ROOT / 'src'}\n{INSIDE}\nimport netpoll_suites_loop\n"
    )
