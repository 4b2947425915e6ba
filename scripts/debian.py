"""Debian's archive and chroots of it, for the scripts that try netpoll on other systems.

No host is named here: the archive is the one that apt knows, or NETPOLL_DEBIAN_MIRROR.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Of the kernel: (type, where).
FILE_SYSTEMS = (
    ("proc", "proc"),
    ("sysfs", "sys"),
    ("devtmpfs", "dev"),
    ("devpts", "dev/pts"),
    ("tmpfs", "dev/shm"),
)


class NotToBeHad(Exception):
    """Why something is not available here, in a sentence."""


def say(text: str) -> None:
    print(f"netpoll: {text}", flush=True)


def output(*command: str, cwd: Path | None = None) -> str:
    """stdout of a command, empty when it fails or is not there."""
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""


def archive() -> str:
    """The address of Debian's archive. Raises NotToBeHad."""
    if named := os.environ.get("NETPOLL_DEBIAN_MIRROR"):
        return named
    listed = output("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    for address in listed.splitlines():
        if address.rstrip("/").endswith("/debian"):
            return address
    raise NotToBeHad("apt here knows no Debian archive (NETPOLL_DEBIAN_MIRROR names one)")


class Packages:
    """Packages of a suite and an architecture, below `folder`; apt's own state is not touched."""

    def __init__(self, folder: Path, suite: str, arch: str) -> None:
        self.folder = folder
        self.apt = ["apt-get", "-q", f"-oDir::Etc::SourceList={folder}/sources.list"]
        self.apt += ["-oDir::Etc::SourceParts=/nonexistent", f"-oDir::State::Lists={folder}/lists"]
        self.apt += [f"-oDir::Cache={folder}/cache", f"-oDir::State::status={folder}/status"]
        self.apt += [f"-oAPT::Architecture={arch}", f"-oAPT::Architectures={arch}"]
        self.apt += ["-oAPT::Sandbox::User=root", "-oAcquire::Check-Valid-Until=false"]
        self.line = f"deb [signed-by={KEYRING}] {archive()} {suite} main\n"
        self.is_new = False

    def _ask(self, *command: str) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        except OSError as exc:
            raise NotToBeHad(f"{command[0]} is not here: {exc}") from None
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
            raise NotToBeHad(f"{command[0]} failed: {lines[-1][:200]}")
        return done.stdout

    def _update(self) -> None:
        """Once in a process."""
        if self.is_new:
            return
        for part in ("lists/partial", "cache/archives/partial"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "sources.list").write_text(self.line)
        (self.folder / "status").touch()
        self._ask(*self.apt, "update", "-oAPT::Update::Error-Mode=any")
        self.is_new = True

    def names(self) -> str:
        """Of all that there is, one in each line."""
        self._update()
        return self._ask("apt-cache", *self.apt[2:], "pkgnames")

    def unpacked(self, *names: str) -> Path:
        """The files of these, as they are in the archive today. Raises NotToBeHad."""
        self._update()
        listed = self._ask(*self.apt, "download", "--print-uris", *names)
        packages = [self.folder / line.split()[1] for line in listed.splitlines() if ".deb" in line]
        root = self.folder / "-".join(names)
        stamp, contents = root / "packages", "\n".join(path.name for path in packages)
        if not stamp.exists() or stamp.read_text() != contents:
            shutil.rmtree(root, ignore_errors=True)
            self._ask(*self.apt, "download", *names)
            for package in packages:
                self._ask("dpkg-deb", "-x", str(package), str(root))
                package.unlink()
            stamp.write_text(contents)
        return root


def root_on_debian(purpose: str) -> None:
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        raise NotToBeHad(f"{purpose} needs root on Debian or Ubuntu")


def _bootstrapped(root: Path, suite: str, run: Callable[..., None], *options: str) -> Path:
    """What debootstrap makes of a release, beside `root`: it becomes that when it is complete."""
    if shutil.which("debootstrap") is None:
        run("chroot", "apt-get", "install", "-y", "-q", "debootstrap")
    new = root.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    run("chroot", "debootstrap", *options, suite, str(new), archive())
    return new


def chroot(root: Path, suite: str, run: Callable[..., None], *options: str) -> Path:
    """A folder with a release of Debian, made once. `run` takes a log's name and a command."""
    root_on_debian("a chroot")
    if (root / "usr/bin/apt-get").exists():
        return root
    say(f"making a chroot of Debian {suite} in {root}")
    new = _bootstrapped(root, suite, run, *options)
    valid = new / "etc/apt/apt.conf.d/90-archive-that-stands-still"
    valid.write_text('Acquire::Check-Valid-Until "false";\n')
    return new.rename(root)


def unpacked(root: Path, suite: str, arch: str, run: Callable[..., None], *options: str) -> Path:
    """The files of a release of Debian for another architecture, made once. Nothing is set up."""
    root_on_debian("another architecture")
    if root.exists():
        return root
    say(f"unpacking Debian {suite} for {arch} in {root}")
    kind = ("--foreign", f"--arch={arch}", "--variant=minbase")
    new = _bootstrapped(root, suite, run, *kind, *options)
    for package in sorted(new.glob("var/cache/apt/archives/*.deb")):
        run("chroot", "dpkg-deb", "-x", str(package), str(new))
    return new.rename(root)


def copy_system(root: Path, target: Path, run: Callable[..., None]) -> Path:
    """A copy of a chroot, made once. Its devices stay devices: whoever reads /dev/full reads on."""
    if not target.exists():
        new = target.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        run("chroot", "cp", "--archive", "--one-file-system", str(root), str(new))
        new.rename(target)
    return target


@contextlib.contextmanager
def mounted(root: Path, run: Callable[..., None]) -> Iterator[None]:
    """The kernel's file systems, and this machine's names and certificates, in the chroot."""
    for name in ("etc/resolv.conf", "etc/hosts"):
        shutil.copy(Path("/", name), root / name)
    authorities = Path("/usr/local/share/ca-certificates")
    if authorities.is_dir():
        shutil.copytree(authorities, root / authorities.relative_to("/"), dirs_exist_ok=True)
    done: list[Path] = []
    try:
        for kind, name in FILE_SYSTEMS:
            target = root / name
            target.mkdir(exist_ok=True)
            run("chroot", "mount", "-t", kind, kind, str(target))
            done.append(target)
        yield
    finally:
        for target in reversed(done):
            subprocess.run(["umount", "-l", str(target)], check=False)
