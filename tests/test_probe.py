"""netpoll.probe and the commands that print it. Refusals by the kernel: tests/faults."""

import dataclasses
import errno
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import netpoll
from netpoll.probe import Feature, System, choose_backend, kernel_version, why_refused

# `netpoll.probe` is the function; the module of the same name is found by its full name.
probe_module = importlib.import_module("netpoll.probe")

KNOWN_ERRNOS = [
    errno.EPERM,
    errno.ENOSYS,
    errno.ENOMEM,
    errno.EINVAL,
    errno.EMFILE,
    errno.ENFILE,
    errno.EACCES,
]
GRANTED = {"setup": 0, "enable": 0, "enter": 0, "ext_arg": 0, "buf_ring": 0}


@pytest.fixture(autouse=True)
def fresh_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "_remembered", None)
    monkeypatch.delenv("NETPOLL_BACKEND", raising=False)


def kernel_answers(monkeypatch: pytest.MonkeyPatch, **answers: int) -> list[bool]:
    """Replaces the kernel's answers; returns the list of questions as they are asked."""
    asked: list[bool] = []

    def ring_facts(everything: bool = False) -> dict:
        asked.append(everything)
        return {**GRANTED, **answers}

    monkeypatch.setattr(probe_module.native, "ring_facts", ring_facts)
    return asked


def machine(root: Path, files: dict[str, str]) -> System:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return System(root)


# ---- the choice -----------------------------------------------------------------------------


def test_auto_is_what_the_probe_says() -> None:
    result = netpoll.probe()
    assert choose_backend("auto") == (result.backend, result.backend_reason)
    assert result.backend == ("uring" if result.uring_available else "epoll")


def test_a_loop_runs_on_what_was_chosen() -> None:
    for backend in ("auto", "epoll"):
        loop = netpoll.new_event_loop(backend=backend)
        try:
            assert loop.backend == choose_backend(backend)[0]
        finally:
            loop.close()


def test_epoll_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = kernel_answers(monkeypatch)
    assert choose_backend("epoll")[0] == "epoll"
    assert asked == []


def test_the_answer_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = kernel_answers(monkeypatch, setup=errno.EPERM)
    for _ in range(3):
        assert choose_backend("auto")[0] == "epoll"
    assert asked == [False]


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EMFILE])
def test_a_passing_refusal_is_not_remembered(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    kernel_answers(monkeypatch, setup=code)
    assert choose_backend("auto")[0] == "epoll"
    kernel_answers(monkeypatch)
    assert choose_backend("auto")[0] == "uring"


@pytest.mark.parametrize("question", ["setup", "enable", "enter", "ext_arg", "buf_ring"])
def test_uring_by_name_raises_why(monkeypatch: pytest.MonkeyPatch, question: str) -> None:
    kernel_answers(monkeypatch, **{question: errno.ENOSYS})
    with pytest.raises(netpoll.BackendUnavailableError) as caught:
        choose_backend("uring")
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.ENOSYS
    assert choose_backend("auto")[1] in str(caught.value)
    assert "epoll" in str(caught.value)


@pytest.mark.parametrize("name", ["", "io_uring", "URING", "kqueue"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ValueError, match="'auto', 'uring', 'epoll'"):
        choose_backend(name)


def test_the_environment_stands_in_for_auto_only(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_answers(monkeypatch)
    monkeypatch.setenv("NETPOLL_BACKEND", "epoll")
    assert choose_backend("auto")[0] == "epoll"
    assert "NETPOLL_BACKEND" in choose_backend("auto")[1]
    assert choose_backend("uring")[0] == "uring"
    monkeypatch.setenv("NETPOLL_BACKEND", "")
    assert choose_backend("auto")[0] == "uring"


def test_a_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETPOLL_BACKEND", "fast")
    with pytest.raises(ValueError, match=r"NETPOLL_BACKEND.*'fast'"):
        choose_backend("auto")
    result = netpoll.probe()
    assert result.backend == "none"
    assert "'fast'" in result.backend_reason


# ---- words ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [*KNOWN_ERRNOS, errno.EIO])
def test_every_refusal_is_one_sentence(tmp_path: Path, code: int) -> None:
    words = why_refused(code, System(tmp_path), "6.18.0")
    assert words
    assert "\n" not in words
    assert not words.endswith(".")


def test_refusals_differ(tmp_path: Path) -> None:
    words = {why_refused(code, System(tmp_path), "6.18.0") for code in KNOWN_ERRNOS}
    # No descriptor left in the process or in the system: the same words.
    assert len(words) == len(KNOWN_ERRNOS) - 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2", "sudo sysctl kernel.io_uring_disabled=0"),
        ("1", "kernel.io_uring_group"),
    ],
)
def test_eperm_by_sysctl(tmp_path: Path, value: str, expected: str) -> None:
    files = {"proc/sys/kernel/io_uring_disabled": value + "\n"}
    files["proc/self/status"] = "Name:\tx\nSeccomp:\t2\n"
    words = why_refused(errno.EPERM, machine(tmp_path, files), "6.18.0")
    assert expected in words
    assert "seccomp" not in words


def test_eperm_by_seccomp(tmp_path: Path) -> None:
    files = {
        "proc/sys/kernel/io_uring_disabled": "0\n",
        "proc/self/status": "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n",
    }
    assert "seccomp" in why_refused(errno.EPERM, machine(tmp_path, files), "6.18.0")


def test_eperm_by_nothing_we_know(tmp_path: Path) -> None:
    files = {"proc/self/status": "Seccomp:\t0\n"}
    assert "SELinux" in why_refused(errno.EPERM, machine(tmp_path, files), "6.18.0")


def test_einval_names_an_old_kernel(tmp_path: Path) -> None:
    system = System(tmp_path)
    assert "5.15.0-91-generic is too old" in why_refused(errno.EINVAL, system, "5.15.0-91-generic")
    assert "too old" not in why_refused(errno.EINVAL, system, "6.18.0")


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-13-amd64", (6, 1)), ("6.18-rc1", (6, 18)), ("5.4", (5, 4)), ("odd", (0, 0))],
)
def test_kernel_version(release: str, version: tuple[int, int]) -> None:
    assert kernel_version(release) == version


def test_hugepages_are_read(tmp_path: Path) -> None:
    directory = "sys/kernel/mm/hugepages/hugepages-2048kB"
    files = {
        f"{directory}/nr_hugepages": "16\n",
        f"{directory}/free_hugepages": "9\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    }
    pages = machine(tmp_path, files).hugepages()
    assert (pages.page_bytes, pages.total_count, pages.free_count) == (2 << 20, 16, 9)
    assert pages.transparent == "madvise"


def test_a_machine_without_proc_and_sys(tmp_path: Path) -> None:
    result = netpoll.probe(root=tmp_path)
    assert result.hugepages.total_count is None
    assert result.hugepages.transparent == "absent"
    assert result.seccomp == "unknown"
    assert result.io_uring_disabled is None


# ---- the whole probe ------------------------------------------------------------------------


def test_the_result_is_frozen_and_plain() -> None:
    result = netpoll.probe()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.backend = "epoll"  # type: ignore[misc]
    again = json.loads(json.dumps(result.to_dict()))
    assert again["features"][0]["name"] == result.features[0].name
    assert again["kernel"] == os.uname().release


def test_every_feature_is_there_once_and_explained() -> None:
    features = netpoll.probe().features
    names = [feature.name for feature in features]
    assert len(names) == len(set(names)) == 15
    for feature in features:
        assert isinstance(feature, Feature)
        assert feature.title
        assert feature.detail
        assert netpoll.probe().supports(feature.name) is feature.available
    with pytest.raises(KeyError):
        netpoll.probe().supports("teleport")


def test_features_of_a_ring_that_works() -> None:
    """Linux 6.1 grants all of these together, so a probe that misses one is wrong."""
    result = netpoll.probe()
    if not result.uring_available:
        pytest.skip(f"no io_uring: {result.uring_reason}")
    for name in ("defer_taskrun", "buf_ring", "accept_multi", "recv_multi", "send_zc"):
        assert result.supports(name), name
    if kernel_version(result.kernel) >= (6, 12):
        assert result.supports("buf_inc")
        assert result.supports("recv_bundle")


def test_without_a_ring_nothing_of_it_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {name: None for name, _, _ in probe_module.URING_FEATURES}
    refused |= {"pwait2": 0, "ext_arg": None, "enter": None, "setup": errno.ENOSYS}
    monkeypatch.setattr(probe_module.native, "ring_facts", lambda everything=False: refused)
    result = netpoll.probe()
    assert not result.uring_available
    assert not any(result.supports(name) for name, _, _ in probe_module.URING_FEATURES)
    assert result.supports("epoll_pwait2")
    assert (result.backend, result.backend_reason) == ("epoll", result.uring_reason)


def test_it_leaves_no_descriptor_behind() -> None:
    netpoll.probe()
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        netpoll.probe()
    assert set(os.listdir("/proc/self/fd")) == before


def test_python_build() -> None:
    result = netpoll.probe()
    assert "CPython" in result.python
    assert result.free_threaded == ("t" in getattr(sys, "abiflags", ""))
    assert result.gil_enabled or result.free_threaded


# ---- the commands ---------------------------------------------------------------------------


def netpoll_command(*args: str, code: str = "") -> subprocess.CompletedProcess:
    start = ["-c", code] if code else ["-m", "netpoll"]
    command = [sys.executable, *start, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_no_arguments_print_help() -> None:
    done = netpoll_command()
    assert done.returncode == 0
    assert "probe" in done.stdout
    assert "bench" in done.stdout


def test_probe_prints_every_feature() -> None:
    done = netpoll_command("probe")
    assert done.returncode == 0, done.stderr
    for feature in netpoll.probe().features:
        assert feature.title in done.stdout


def test_probe_json() -> None:
    done = netpoll_command("probe", "--json")
    assert json.loads(done.stdout)["kernel"] == os.uname().release


def test_probe_without_rich() -> None:
    code = (
        "import sys; sys.modules['rich'] = sys.modules['rich.console'] = None\n"
        "from netpoll.cli import main; sys.exit(main(['probe']))"
    )
    done = netpoll_command(code=code)
    assert done.returncode == 0, done.stderr
    assert "multishot receive" in done.stdout
    assert done.stdout.isascii()


def test_bench_without_its_extra_says_so() -> None:
    code = (
        "import builtins, sys\n"
        "real = builtins.__import__\n"
        "def find(name, *rest):\n"
        "    if name.startswith('netpoll.bench'):\n"
        "        raise ModuleNotFoundError('no rich', name='rich')\n"
        "    return real(name, *rest)\n"
        "from netpoll.cli import main\n"
        "builtins.__import__ = find\n"
        "sys.exit(main(['bench', 'echo']))"
    )
    done = netpoll_command(code=code)
    assert done.returncode == 1
    assert "'rich'" in done.stderr
    assert "netpoll[bench]" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_command_is_refused() -> None:
    done = netpoll_command("nonsense")
    assert done.returncode == 2
    assert "nonsense" in done.stderr
