"""scripts/release in a repository of its own: the commit, the tag, the files, or nothing.

What builds wheels and what makes chroots have stand-ins, which write down how they were called. The
wheel that one of them makes is real, but has no code in it. Everything else is itself: git,
towncrier, setuptools, twine, CycloneDX.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
VERSION = "7.1.0"
WHEEL = f"netpoll-{VERSION}-cp313-cp313-manylinux_2_28_x86_64.whl"

for _name in ("towncrier", "twine", "cyclonedx", "jsonschema", "Cython"):
    pytest.importorskip(_name, reason=f"{_name} (the extra `release`) is not installed")

CALLED = """#!/usr/bin/env python3
import os, pathlib, sys
name = pathlib.Path(__file__).name
with open(os.environ["CALLS"], "a") as calls:
    print(name, *sys.argv[1:], file=calls)
if os.environ.get("FAILS") == name:
    sys.exit("this system is not for netpoll")
"""
BUILD_WHEELS = (
    CALLED
    + """
import re, tempfile, zipfile, sbom
if sys.argv[1] == "--look":
    sys.exit(print(f"looked at {sys.argv[2]}"))
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
version = re.search('version = "(.*?)"', open("pyproject.toml").read())[1]
version = os.environ.get("BUILDS", version)
tag = "cp313-cp313-manylinux_2_28_x86_64"
wheel, info = out / f"netpoll-{version}-{tag}.whl", f"netpoll-{version}.dist-info"
metadata = f"Metadata-Version: 2.4\\nName: netpoll\\nVersion: {version}\\n"
metadata += "Description-Content-Type: text/markdown\\n\\nText.\\n"
with zipfile.ZipFile(wheel, "w") as files:
    files.writestr("netpoll/__init__.py", "")
    files.writestr(f"{info}/METADATA", metadata)
    files.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\\nTag: {tag}\\n")
    files.writestr(f"{info}/RECORD", "")
with tempfile.TemporaryDirectory() as scratch:
    lib = pathlib.Path(scratch, "lib")
    (lib / "pkgconfig").mkdir(parents=True)
    (lib / "liburing.a").write_text("an archive")
    (lib / "pkgconfig" / "liburing.pc").write_text("Name: liburing\\nVersion: 2.9\\n")
    linked = [sbom.liburing(pathlib.Path(scratch))]
date_s = int(os.environ["SOURCE_DATE_EPOCH"])
sbom.put_into(wheel, sbom.bill(version, date_s, linked, sbom.tools(["ziglang==0.17.1"])))
"""
)


class Repository:
    """This tree, committed on main of a repository of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder.with_suffix(".calls")
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if listed.returncode:
            pytest.skip("only a checkout of git says which files are ours")
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        (folder / "scripts" / "build-wheels").write_text(BUILD_WHEELS)
        (folder / "scripts" / "test-install").write_text(CALLED)
        (folder / "changes" / "seventh.added.md").write_text("The seventh thing.\n")
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "Somebody")
        self.git("config", "user.email", "somebody@example.org")
        self.commit()

    def git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "-q", "--no-gpg-sign", "-m", "the tree")

    def state(self) -> list[str]:
        """What a release that ends early may not have touched."""
        questions = ("rev-parse HEAD", "tag", "worktree list", "branch", "status --porcelain")
        return [self.git(*question.split()) for question in questions]

    def release(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        self.calls.unlink(missing_ok=True)
        return subprocess.run(
            [sys.executable, str(self.folder / "scripts" / "release"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"CALLS": str(self.calls)} | env,
        )


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("release") / "tree")


@pytest.fixture
def repository(committed: Repository, tmp_path: Path) -> Repository:
    """A copy, so that a test may do to it what it likes."""
    copied = object.__new__(Repository)
    copied.folder, copied.calls = tmp_path / "tree", tmp_path / "calls"
    shutil.copytree(committed.folder, copied.folder, symlinks=True)
    return copied


def json_in(path: Path) -> Any:
    return json.loads(path.read_text())


def assert_files(folder: Path, commit: str) -> None:
    """The distributions, and the papers that belong to them."""
    made = {WHEEL, f"netpoll-{VERSION}.tar.gz"}
    papers = {f"netpoll-{VERSION}.cdx.json", f"netpoll-{VERSION}.provenance.json"}
    assert {path.name for path in folder.iterdir()} == made | papers | {"SHA256SUMS"}
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "SHA256SUMS"
    }
    sums = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sums == digests
    bill = json_in(folder / f"netpoll-{VERSION}.cdx.json")
    parts = {part["name"]: part for part in bill["components"]}
    assert set(parts) == made | {"liburing"}
    assert all(parts[name]["hashes"][0]["content"] == digests[name] for name in made)
    assert parts["liburing"]["version"] == "2.9"
    linked = {"ref": WHEEL, "dependsOn": [parts["liburing"]["bom-ref"]]}
    assert linked in bill["dependencies"]
    statement = json_in(folder / f"netpoll-{VERSION}.provenance.json")
    subjects = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
    assert subjects == {name: digests[name] for name in made | {f"netpoll-{VERSION}.cdx.json"}}
    (source,) = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source["digest"] == {"gitCommit": commit}
    with tarfile.open(folder / f"netpoll-{VERSION}.tar.gz") as archive:
        package = archive.extractfile(f"netpoll-{VERSION}/src/netpoll/__init__.py")
        assert package is not None and f'__version__ = "{VERSION}"'.encode() in package.read()


def test_a_dry_run(repository: Repository) -> None:
    before = repository.state()
    options = ("--dry-run", "--arch", "aarch64", "--python", sys.executable)
    done = repository.release(VERSION, *options)
    assert done.returncode == 0, done.stdout
    assert repository.state() == before
    assert "- The seventh thing." in done.stdout
    folder = repository.folder / "build" / "release" / VERSION
    statement = json_in(folder / f"netpoll-{VERSION}.provenance.json")
    source = statement["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    assert_files(folder, source["digest"]["gitCommit"])
    assert source["digest"]["gitCommit"] != before[0]
    built, looked, here, tried = repository.calls.read_text().splitlines()
    assert re.fullmatch(rf"build-wheels --out \S+ --python {sys.executable} --arch aarch64", built)
    assert re.fullmatch(rf"build-wheels --look \S+/{WHEEL}", looked)
    assert re.fullmatch(r"test-install --here --wheels \S+/dist", here)
    assert re.fullmatch(r"test-install --wheels \S+/dist --sdist", tried)


def test_a_release(repository: Repository) -> None:
    before = repository.git("rev-parse", "HEAD")
    done = repository.release(VERSION, "--without-systems")
    assert done.returncode == 0, done.stdout
    assert "--sdist" not in repository.calls.read_text()
    assert "has to be run elsewhere" in done.stdout
    assert repository.git("status", "--porcelain") == ""
    assert repository.git("rev-parse", "HEAD~1", "main", f"v{VERSION}^{{}}").split() == [
        before,
        *[repository.git("rev-parse", "HEAD")] * 2,
    ]
    message = repository.git("tag", "--list", "--format=%(contents)", f"v{VERSION}")
    assert message.startswith(f"netpoll {VERSION}\n\n## {VERSION} (")
    assert "\n### Added\n" in message and "- The seventh thing." in message
    kept = {"README.md", "template.md.jinja"}
    assert {path.name for path in (repository.folder / "changes").iterdir()} == kept
    assert_files(repository.folder / "dist" / VERSION, repository.git("rev-parse", "HEAD"))
    assert_papers_alone(repository)
    for version in (VERSION, "7.0.9", "7.1.0rc1"):
        again = repository.release(version)
        assert again.returncode == 1
        assert f"{version} is " in again.stdout


def assert_papers_alone(repository: Repository) -> None:
    """What the forge asks for, whose files come from another machine: the same papers."""
    folder = repository.folder / "dist" / VERSION
    bill = (folder / f"netpoll-{VERSION}.cdx.json").read_bytes()
    for path in (*folder.glob("*.json"), folder / "SHA256SUMS"):
        path.unlink()
    done = repository.release(VERSION, "--papers", str(folder))
    assert done.returncode == 0, done.stdout
    assert_files(folder, repository.git("rev-parse", "HEAD"))
    assert (folder / f"netpoll-{VERSION}.cdx.json").read_bytes() == bill
    done = repository.release("7.2.0", "--papers", str(folder))
    assert done.stdout == f"netpoll: this tree is of version {VERSION}, not 7.2.0.\n"


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"FAILS": "test-install"}, "this system is not for netpoll"),
        ({"FAILS": "build-wheels"}, "this system is not for netpoll"),
        ({"BUILDS": "7.0.0"}, f"is not of version {VERSION}."),
    ],
    ids=["systems", "build", "another version"],
)
def test_a_step_that_fails_leaves_nothing(
    repository: Repository, env: dict[str, str], sentence: str
) -> None:
    before = repository.state()
    done = repository.release(VERSION, **env)
    assert done.returncode == 1
    assert sentence in done.stdout and "Traceback" not in done.stdout
    assert repository.state() == before
    assert not (repository.folder / "dist").exists()


@pytest.mark.parametrize("version", ["0.0.9", "1.0", "v1.0.0", "1.0.0.dev1", "next"])
def test_a_version_that_is_none(committed: Repository, version: str) -> None:
    done = committed.release(version)
    assert done.returncode == 1
    assert done.stdout.startswith(("netpoll: 0.0.9 is older than", f"netpoll: '{version}' is no"))


def test_a_tree_that_is_not_ready(repository: Repository) -> None:
    repository.git("checkout", "-q", "-b", "mine")
    assert "and this is mine." in repository.release(VERSION).stdout
    (repository.folder / "new.py").touch()
    done = repository.release(VERSION)
    assert done.returncode == 1
    assert "changes that are not committed:\n?? new.py" in done.stdout


def test_a_tool_that_is_missing(repository: Repository) -> None:
    project = repository.folder / "pyproject.toml"
    wanted = "nobodys-package>=1"
    project.write_text(project.read_text().replace("towncrier>=24.8", wanted))
    done = repository.release(VERSION)
    assert done.returncode == 1
    assert done.stdout.startswith(f"netpoll: missing: {wanted}. pip install")


# ---- parts ----------------------------------------------------------------------------------


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


@pytest.mark.usefixtures("scripts")
def test_an_archive_has_nothing_of_its_machine() -> None:
    import sdist

    def archive(names: list[str], owner: str, date_s: int) -> bytes:
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w:gz") as files:
            for name in names:
                member = tarfile.TarInfo(name)
                member.uname, member.mtime, member.size = owner, date_s, len(name)
                files.addfile(member, io.BytesIO(name.encode()))
        return target.getvalue()

    one = sdist.in_order(archive(["a", "b"], "ann", 1), 7)
    assert one == sdist.in_order(archive(["b", "a"], "bob", 2), 7)
    with tarfile.open(fileobj=io.BytesIO(one)) as files:
        assert [(m.name, m.mtime, m.uname) for m in files] == [("a", 7, ""), ("b", 7, "")]


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize(
    ("origin", "uri"),
    [
        ("https://example.org/netpoll.git", "git+https://example.org/netpoll.git"),
        ("https://ann:secret@example.org/netpoll", "git+https://example.org/netpoll"),
        ("/srv/netpoll", "urn:netpoll:source:unpublished"),
        ("", "urn:netpoll:source:unpublished"),
    ],
)
def test_where_the_source_is(origin: str, uri: str) -> None:
    import provenance

    assert provenance.address(origin) == uri


@pytest.mark.usefixtures("scripts")
def test_the_bill_of_a_wheel(tmp_path: Path) -> None:
    """Twice the same, and where PEP 770 wants it."""
    import sbom
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    (tmp_path / "lib" / "pkgconfig").mkdir(parents=True)
    (tmp_path / "lib" / "liburing.a").write_bytes(b"an archive")
    (tmp_path / "lib" / "pkgconfig" / "liburing.pc").write_text("Version: 2.9\n")
    bill = sbom.bill("1.2.3", 0, [sbom.liburing(tmp_path)], sbom.tools(["ziglang==0.17.1"]))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom.dump(bill)) is None
    wheels = []
    for folder in ("one", "two"):
        wheel = tmp_path / folder / WHEEL
        wheel.parent.mkdir()
        with zipfile.ZipFile(wheel, "w") as files:
            files.writestr(zipfile.ZipInfo("netpoll-1.2.3.dist-info/METADATA"), "")
        sbom.put_into(wheel, bill)
        assert sbom.of_wheel(wheel) == bill
        wheels.append(wheel.read_bytes())
    assert wheels[0] == wheels[1]
    with zipfile.ZipFile(tmp_path / "two" / WHEEL) as files:
        assert files.namelist()[-1] == "netpoll-1.2.3.dist-info/sboms/netpoll.cdx.json"
