"""What this machine offers, which backend `auto` takes, and why.

`choose_backend` is what a loop asks at its birth: one io_uring_setup at most, remembered. `probe`
asks everything and is for people: `python -m netpoll probe`. The C side brings facts (errnos), this
file puts them into words, so every refusal ends in a sentence that says what to do.
"""

import errno
import os
import platform
import resource
import socket
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from netpoll._native import probe as native
from netpoll.errors import REFUSED_ERRNOS, BackendUnavailableError

__all__ = ["Feature", "HugePages", "ProbeResult", "choose_again", "choose_backend", "probe"]

BACKENDS = ("auto", "uring", "epoll")
ENV_BACKEND = "NETPOLL_BACKEND"

# A ring of a loop with its default sizes: 512 submissions of 64 B, 4096 completions of 16 B, the
# index array, each rounded up to pages. Since Linux 6.14 it is charged to RLIMIT_MEMLOCK again.
RING_LOCKED_KIB = 160

# Refusals that may be gone at the next attempt: not remembered.
TRANSIENT_ERRNOS = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR})

# name, what it is, the kernel that brought it. The order is the order of the table.
URING_FEATURES = (
    ("defer_taskrun", "SINGLE_ISSUER + DEFER_TASKRUN", "6.1"),
    ("buf_ring", "ring of receive buffers", "5.19"),
    ("accept_multi", "multishot accept", "5.19"),
    ("recv_multi", "multishot receive", "6.0"),
    ("buf_inc", "incremental receive buffers", "6.12"),
    ("recv_bundle", "receive bundles", "6.10"),
    ("no_iowait", "idle rings are not I/O wait", "6.15"),
    ("send_zc", "zero-copy send", "6.0"),
    ("sendmsg_zc", "zero-copy sendmsg", "6.1"),
    ("buffers", "registered buffers", "5.1"),
    ("sqpoll", "submission polling (SQPOLL)", "5.1"),
)


@dataclass(frozen=True)
class Feature:
    """One thing that the kernel grants this process, or does not and why."""

    name: str
    title: str
    available: bool
    detail: str


@dataclass(frozen=True)
class HugePages:
    """Memory on large pages. Counts are None where the kernel has no such pages."""

    page_bytes: int
    total_count: int | None
    free_count: int | None
    transparent: str
    """"always", "madvise", "never", or "absent"."""


@dataclass(frozen=True)
class ProbeResult:
    """Everything `probe()` found. Plain values throughout: `to_dict()` is ready for JSON."""

    kernel: str
    python: str
    free_threaded: bool
    gil_enabled: bool
    liburing: str
    uring_available: bool
    uring_errno: int
    uring_reason: str
    backend: str
    backend_reason: str
    features: tuple[Feature, ...]
    hugepages: HugePages
    memlock_soft_bytes: int | None
    """None: unlimited."""
    memlock_hard_bytes: int | None
    seccomp: str
    """"off", "strict", "filter", or "unknown"."""
    io_uring_disabled: int | None
    """The sysctl kernel.io_uring_disabled; None before Linux 6.6, where it does not exist."""

    def supports(self, name: str) -> bool:
        """Whether the feature `name` is available. KeyError for a name that is not in the table."""
        for feature in self.features:
            if feature.name == name:
                return feature.available
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class System:
    """Where facts that are files come from; tests give another root."""

    def __init__(self, root: str | os.PathLike[str] = "/") -> None:
        self.root = Path(root)

    def text(self, path: str) -> str | None:
        try:
            return (self.root / path).read_text().strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        text = self.text(path)
        try:
            return None if text is None else int(text)
        except ValueError:
            return None

    def io_uring_disabled(self) -> int | None:
        return self.number("proc/sys/kernel/io_uring_disabled")

    def seccomp(self) -> str:
        for line in (self.text("proc/self/status") or "").splitlines():
            if line.startswith("Seccomp:"):
                return {"0": "off", "1": "strict", "2": "filter"}.get(line.split()[1], "unknown")
        return "unknown"

    def hugepages(self) -> HugePages:
        size_kib = 2048
        directory = f"sys/kernel/mm/hugepages/hugepages-{size_kib}kB"
        modes = self.text("sys/kernel/mm/transparent_hugepage/enabled") or "[absent]"
        return HugePages(
            page_bytes=size_kib * 1024,
            total_count=self.number(f"{directory}/nr_hugepages"),
            free_count=self.number(f"{directory}/free_hugepages"),
            transparent=modes[modes.find("[") + 1 : modes.find("]")],
        )


def kernel_version(release: str) -> tuple[int, int]:
    """(6, 1) of "6.1.0-13-amd64"; (0, 0) of what does not look like a release."""
    parts = release.split("-", maxsplit=1)[0].split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        return 0, 0


def _memlock_words() -> str:
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return "unlimited" if soft == resource.RLIM_INFINITY else f"{soft // 1024} KiB"


def _why_eperm(system: System) -> str:
    disabled = system.io_uring_disabled()
    if disabled == 2:
        return (
            "io_uring is switched off on this machine (kernel.io_uring_disabled = 2); "
            "'sudo sysctl kernel.io_uring_disabled=0' allows it"
        )
    if disabled == 1:
        return (
            "io_uring is reserved for privileged processes here (kernel.io_uring_disabled = 1); "
            "put the user into the group of kernel.io_uring_group, or allow it for all with "
            "'sudo sysctl kernel.io_uring_disabled=0'"
        )
    if system.seccomp() == "filter":
        return (
            "a seccomp filter refuses io_uring_setup, as the default profiles of Docker and "
            "containerd do; run the container with a profile that allows io_uring_setup, "
            "io_uring_enter and io_uring_register"
        )
    return (
        "permission for io_uring_setup was denied, though neither seccomp nor "
        "kernel.io_uring_disabled forbids it; look at the security modules (SELinux, AppArmor)"
    )


def _why_enosys(system: System, release: str) -> str:
    if system.seccomp() == "filter":
        return (
            "io_uring_setup does not exist here: a seccomp filter hides it, or the kernel was "
            "built without CONFIG_IO_URING; allow io_uring_setup, io_uring_enter and "
            "io_uring_register in the filter"
        )
    return (
        f"this kernel ({release}) has no io_uring: it is older than 5.1, was built without "
        "CONFIG_IO_URING, or is a sandbox such as gVisor; run on Linux 6.1 or newer"
    )


def why_refused(code: int, system: System, release: str) -> str:
    """One sentence (no full stop): why io_uring_setup ended with errno `code`, and the remedy."""
    if code == errno.EPERM:
        return _why_eperm(system)
    if code == errno.ENOSYS:
        return _why_enosys(system, release)
    if code == errno.ENOMEM:
        return (
            f"there is not enough lockable memory for a ring ({RING_LOCKED_KIB} KiB each; "
            f"RLIMIT_MEMLOCK is {_memlock_words()} for all of this user's rings together); raise "
            "it with 'ulimit -l', LimitMEMLOCK= in a systemd unit, or "
            "'docker run --ulimit memlock=-1'"
        )
    if code == errno.EINVAL:
        if (0, 0) < kernel_version(release) < (6, 1):
            return f"Linux {release} is too old: DEFER_TASKRUN came with 6.1; run on a newer kernel"
        return (
            "the kernel, or a filter in front of it, does not know the set-up flags "
            "SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1); run on a newer kernel or allow "
            "io_uring_setup in the sandbox"
        )
    if code in (errno.EMFILE, errno.ENFILE):
        return "no file descriptor is left for a ring; close some or raise 'ulimit -n'"
    if code == errno.EACCES:
        return "a security module (SELinux, AppArmor) refuses io_uring_setup; allow it there"
    name = errno.errorcode.get(code, str(code))
    return (
        f"io_uring_setup failed with {name} ({os.strerror(code)}); if a seccomp filter or sandbox "
        "refuses it, allow io_uring_setup, io_uring_enter and io_uring_register there"
    )


def _verdict(facts: dict[str, int | None], system: System, release: str) -> tuple[int, str]:
    """(0, why io_uring is taken) or (errno, why it cannot be)."""

    def named(code: int) -> str:
        return f"{errno.errorcode.get(code, code)}, {os.strerror(code)}"

    if facts["setup"]:
        return facts["setup"], why_refused(facts["setup"], system, release)
    if facts["ext_arg"]:
        return errno.ENOSYS, "this io_uring cannot wait with a time-out; run on Linux 6.1 or newer"
    if facts["enable"]:
        return facts["enable"], (
            f"a ring can be made, but not enabled ({named(facts['enable'])}); allow "
            "io_uring_register in the seccomp profile or sandbox"
        )
    if facts["enter"]:
        return facts["enter"], (
            f"a ring can be made, but io_uring_enter is refused ({named(facts['enter'])}); "
            "allow io_uring_enter in the seccomp profile or sandbox"
        )
    if facts["buf_ring"]:
        return facts["buf_ring"], (
            f"a ring of receive buffers is refused ({named(facts['buf_ring'])}); allow "
            "io_uring_register in the seccomp profile or sandbox, or run on Linux 6.1 or newer"
        )
    # Multishot accept and receive are older than DEFER_TASKRUN, which set-up has just granted.
    return 0, "io_uring works here"


_remembered: tuple[int, str] | None = None


def _uring_verdict() -> tuple[int, str]:
    """As `_verdict`, with one io_uring_setup at most; remembered unless it may pass."""
    global _remembered
    verdict = _remembered
    if verdict is None:
        verdict = _verdict(native.ring_facts(), System(), platform.release())
        if verdict[0] not in TRANSIENT_ERRNOS:
            _remembered = verdict
    return verdict


def _requested(backend: str) -> tuple[str, str]:
    """The backend that counts ("auto" gives way to the environment), and who asked for it."""
    who = "backend"
    if backend == "auto" and os.environ.get(ENV_BACKEND):
        backend, who = os.environ[ENV_BACKEND], ENV_BACKEND
    if backend not in BACKENDS:
        raise ValueError(
            f"{who} is {backend!r}; it must be one of {', '.join(map(repr, BACKENDS))}"
        )
    return backend, who


def _decide(requested: str, who: str, refusal: int, reason: str) -> tuple[str, str]:
    if requested == "epoll":
        return "epoll", f"asked for by {who}={requested!r}"
    if requested == "auto":
        return ("epoll", reason) if refusal else ("uring", reason)
    if refusal:
        raise BackendUnavailableError(
            refusal, f"{who}='uring' is not available: {reason}. 'auto' and 'epoll' work here"
        )
    return "uring", f"asked for by {who}={requested!r}"


def choose_backend(requested: str = "auto") -> tuple[str, str]:
    """The backend to use and why: `("uring" | "epoll", reason)`.

    "auto" first looks at the environment variable NETPOLL_BACKEND, then takes io_uring where it
    works and epoll elsewhere. Cheap: at most one io_uring_setup, and its answer is remembered
    unless it may change (out of memory or descriptors). Any thread.

    Raises BackendUnavailableError (with errno and a remedy) when "uring" is asked for by name and
    is refused, ValueError for a name that is none of "auto", "uring" and "epoll".
    """
    requested, who = _requested(requested)
    refusal, reason = (0, "") if requested == "epoll" else _uring_verdict()
    return _decide(requested, who, refusal, reason)


def choose_again(requested: str, refusal: OSError) -> tuple[str, str]:
    """What to do when the ring that `choose_backend` promised is refused after all.

    Other loops may have used up the lockable memory since, or the process has put itself behind a
    filter. "auto" falls back to epoll, as `choose_backend` does; anything else that failed is
    raised as it is, and "uring" by name as BackendUnavailableError.
    """
    global _remembered
    requested, who = _requested(requested)
    if requested == "epoll" or refusal.errno not in TRANSIENT_ERRNOS | REFUSED_ERRNOS:
        raise refusal
    reason = why_refused(refusal.errno, System(), platform.release())
    if refusal.errno not in TRANSIENT_ERRNOS:
        _remembered = refusal.errno, reason
    return _decide(requested, who, refusal.errno, reason)


def _feature_detail(code: int | None, since: str) -> str:
    if code == 0:
        return f"since Linux {since}"
    if code is None:
        return f"not tested, because there is no ring; it came with Linux {since}"
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return f"this kernel does not have it; it came with Linux {since}"
    if code == errno.ENOMEM:
        return f"not enough lockable memory (RLIMIT_MEMLOCK is {_memlock_words()})"
    name = errno.errorcode.get(code, str(code))
    return f"refused with {name} ({os.strerror(code)}); it came with Linux {since}"


def _features(facts: dict[str, int | None]) -> tuple[Feature, ...]:
    answers = dict(facts, defer_taskrun=facts["setup"])
    features = [
        Feature(name, title, answers[name] == 0, _feature_detail(answers[name], since))
        for name, title, since in URING_FEATURES
    ]
    code = facts["pwait2"]
    features.append(
        Feature(
            "epoll_pwait2",
            "epoll with nanosecond time-outs",
            code == 0,
            _feature_detail(code, "5.11"),
        )
    )
    features += _socket_features()
    return tuple(features)


def _socket_features() -> list[Feature]:
    def refusal(kind: int, level: int, option: int, value: int | bytes, works: int = 0) -> int:
        """errno of setsockopt on a fresh socket; `works` is an errno that means "it is there"."""
        try:
            with socket.socket(socket.AF_INET, kind) as sock:
                sock.setsockopt(level, option, value)
        except OSError as exc:
            return 0 if exc.errno == works else exc.errno or errno.EIO
        return 0

    tcp_ulp, udp_segment, udp_gro = 31, 103, 104  # linux/tcp.h, linux/udp.h
    # TCP_ULP looks for the module first and then says that the socket is not connected.
    tls = refusal(socket.SOCK_STREAM, socket.IPPROTO_TCP, tcp_ulp, b"tls", errno.ENOTCONN)
    gso = refusal(socket.SOCK_DGRAM, socket.IPPROTO_UDP, udp_segment, 1400)
    gro = refusal(socket.SOCK_DGRAM, socket.IPPROTO_UDP, udp_gro, 1)

    def words(code: int, remedy: str) -> str:
        return remedy if code else "works"

    return [
        Feature("ktls", "kernel TLS", tls == 0, words(tls, "no module 'tls': sudo modprobe tls")),
        Feature("udp_gso", "UDP segmentation (GSO)", gso == 0, words(gso, "came with Linux 4.18")),
        Feature("udp_gro", "UDP coalescing (GRO)", gro == 0, words(gro, "came with Linux 5.0")),
    ]


def _limit_bytes(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def _python_words(free_threaded: bool, gil_enabled: bool) -> str:
    build = "with the GIL"
    if free_threaded:
        build = "free-threaded, GIL on" if gil_enabled else "free-threaded"
    return f"{platform.python_implementation()} {platform.python_version()} ({build})"


def probe(*, root: str | os.PathLike[str] = "/") -> ProbeResult:
    """Asks the kernel for everything netpoll can use, by trying it. Takes some milliseconds.

    `root` is where /proc and /sys are read from. What is missing raises nothing: if the backend
    that NETPOLL_BACKEND names is not available, `backend_reason` says why. Any thread may call it.
    """
    system = System(root)
    release = platform.release()
    facts = native.ring_facts(True)
    refusal, reason = _verdict(facts, system, release)
    try:
        backend, backend_reason = _decide(*_requested("auto"), refusal, reason)
    except (BackendUnavailableError, ValueError) as exc:
        backend, backend_reason = "none", str(exc)
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    gil_enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return ProbeResult(
        kernel=release,
        python=_python_words(free_threaded, gil_enabled),
        free_threaded=free_threaded,
        gil_enabled=gil_enabled,
        liburing=native.liburing_version(),
        uring_available=not refusal,
        uring_errno=refusal,
        uring_reason=reason,
        backend=backend,
        backend_reason=backend_reason,
        features=_features(facts),
        hugepages=system.hugepages(),
        memlock_soft_bytes=_limit_bytes(soft),
        memlock_hard_bytes=_limit_bytes(hard),
        seccomp=system.seccomp(),
        io_uring_disabled=system.io_uring_disabled(),
    )
