"""The build: what is missing is named, what is made is lean, what is shipped is whole."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

import netpoll

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(netpoll.__file__).parent


@pytest.fixture(scope="module")
def build_script() -> ModuleType:
    """setup.py as a module: it builds only when it is run."""
    spec = importlib.util.spec_from_file_location("netpoll_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def extension_files() -> list[Path]:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    found = sorted(PACKAGE.rglob(f"*{suffix}"))
    assert found
    return found


def fake_compiler(folder: Path, refuse: str) -> str:
    """A compiler that fails where its arguments, or the file it is given, contain `refuse`."""
    script = folder / "cc"
    real = shutil.which("cc")
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *"{refuse}"*) exit 1 ;; esac\n'
        f'for name; do case $name in *.c) grep -q "{refuse}" "$name" && exit 1 ;; esac; done\n'
        f'exec {real} "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


# ---- what is missing is named ---------------------------------------------------------------


def sentence(check, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        check()
    words = str(caught.value.code)
    assert words.startswith("netpoll: ")
    assert "\n" not in words
    return words


def test_no_compiler(build_script, monkeypatch, capsys) -> None:
    monkeypatch.setenv("CC", "a-compiler-that-is-not-there")
    assert "build-essential" in sentence(build_script.check_compiler, capsys)


def test_a_compiler_without_a_c_library(build_script, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setenv("CC", fake_compiler(tmp_path, "check.c"))
    assert "build-essential" in sentence(build_script.check_liburing, capsys)


def test_what_is_compiled_for_size_exists(build_script: ModuleType) -> None:
    made = {each.name for each in build_script.extensions()}
    assert made | {"netpoll._native.liburing"} >= build_script.RARELY_RUN


def test_no_python_headers(build_script, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(build_script.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(build_script.sysconfig, "get_config_var", lambda name: str(tmp_path))
    assert "python3-dev" in sentence(build_script.check_python_headers, capsys)


@pytest.mark.parametrize(
    ("refuse", "missing"),
    [("liburing.h", "header liburing.h"), ("liburing.a", "library liburing.a")],
)
def test_no_liburing(build_script, monkeypatch, capsys, tmp_path, refuse, missing) -> None:
    monkeypatch.setenv("CC", fake_compiler(tmp_path, refuse))
    words = sentence(build_script.check_liburing, capsys)
    assert missing in words
    assert "liburing-dev" in words


def test_an_old_liburing(build_script, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setenv("CC", fake_compiler(tmp_path, "io_uring_register_buf_ring"))
    words = sentence(build_script.check_liburing, capsys)
    assert "older than 2.3" in words


def test_a_linker_that_shares_pages_by_itself(build_script, monkeypatch, tmp_path) -> None:
    """Zig's refuses to be told."""
    monkeypatch.setattr(build_script, "SYMBOLS", False)
    monkeypatch.setenv("CC", fake_compiler(tmp_path, "noseparate-code"))
    assert build_script.shared_pages() == []
    monkeypatch.delenv("CC")
    monkeypatch.setattr(build_script, "SYMBOLS", True)
    assert build_script.shared_pages() == []


def test_the_sentence_is_all_that_a_build_prints(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "setup.py"), "-q", "build_ext"]
    command += ["--build-lib", str(tmp_path), "--build-temp", str(tmp_path)]
    env = dict(os.environ, CC="a-compiler-that-is-not-there")
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "build-essential" in done.stderr
    assert "Traceback" not in done.stderr


# ---- what is made is lean -------------------------------------------------------------------


def test_every_extension_is_built() -> None:
    made = {path.name.split(".")[0] for path in extension_files()}
    written = {path.stem for path in (ROOT / "src" / "netpoll").rglob("*.pyx")}
    assert written <= made


def test_extensions_export_their_init_only() -> None:
    """Each extension has its own copy of the core; the copies must not find one another."""
    for path in extension_files():
        command = ["nm", "-D", "--defined-only", str(path)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        # Absolute addresses of the linker and the sanitizers' own marks are nobody's to call.
        names = {line.split()[-1] for line in listing.splitlines()}
        names = {n for n in names if not n.startswith(("_", "asan.", "__asan"))}
        assert names == {f"PyInit_{path.name.split('.')[0]}"}, path.name


def test_liburing_is_inside() -> None:
    for path in extension_files():
        command = ["readelf", "-d", str(path)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        needed = re.findall(r"\(NEEDED\).*\[(.+)\]", listing)
        assert not [name for name in needed if "uring" in name]


def test_release_builds_are_small(build_script: ModuleType) -> None:
    """Debug information was four fifths of what a wheel installed."""
    if build_script.FLAVOUR != "release" or "NETPOLL_SANITIZED" in os.environ:
        pytest.skip("this is no release build")
    for path in extension_files():
        command = ["readelf", "-S", "--wide", str(path)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert ".text" in listing
        assert ".debug_info" not in listing, path.name
        assert ".symtab" not in listing, path.name
    # docs/decisions/small-extensions.md has what was tried.
    assert sum(path.stat().st_size for path in extension_files()) <= 6_000_000


def test_sanitizers_are_where_they_should_be() -> None:
    """In the lane that is named after them, and in no build that is for use."""
    for path in extension_files():
        command = ["nm", "-u", str(path)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True)
        is_sanitized = "__asan_init" in listing.stdout and "__ubsan_handle" in listing.stdout
        assert is_sanitized == ("NETPOLL_SANITIZED" in os.environ), path.name


def test_nothing_else_is_needed_at_run_time() -> None:
    requirements = importlib.metadata.requires("netpoll") or []
    assert [r for r in requirements if "extra ==" not in r] == []


def test_the_import_is_light() -> None:
    code = "import netpoll, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"rich", "plotly", "psutil", "uvloop", "Cython", "pytest"}


def test_the_import_leaves_the_gil_off() -> None:
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this Python always has its GIL")
    code = "import netpoll, netpoll.bench._native, sys; sys.exit(sys._is_gil_enabled())"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr


# ---- what is shipped is whole ---------------------------------------------------------------


def test_the_source_distribution_is_complete(tmp_path: Path) -> None:
    """In a copy: making one leaves a directory in the tree."""
    tree = tmp_path / "tree"
    skip = shutil.ignore_patterns("build", ".venv*", ".git", "*.so", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tree, ignore=skip)
    command = [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(tmp_path)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True, timeout=120)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        shipped = {name.split("/", 1)[1] for name in tar.getnames() if "/" in name}
    kinds = ("csrc/**/*.[ch]", "src/**/*.p*", "tests/**/*.py", "scripts/*", "*.md", "bench", "test")
    wanted = {
        path.relative_to(tree).as_posix()
        for kind in kinds
        for path in tree.glob(kind)
        if path.is_file() and ".egg-info" not in str(path)
    }
    assert len(wanted) > 50
    assert wanted - shipped == set()
    assert not [name for name in shipped if name.endswith((".so", ".o", ".a"))]
