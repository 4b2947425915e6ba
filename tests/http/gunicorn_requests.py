"""gunicorn's own request files, valid and invalid. Fetched, never committed.

pip fetches the source distribution once, into build/http-suites.
"""

import errno
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VERSION = "27.0.1"
ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "build" / "http-suites" / f"gunicorn-{VERSION}"
FETCH_TIMEOUT_S = 120


def fetch() -> str | None:
    """Makes HOME; why not, when it cannot be had."""
    if HOME.is_dir():
        return None
    HOME.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
        command += ["--retries", "1", "--dest", folder, f"gunicorn=={VERSION}"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"gunicorn {VERSION} could not be fetched in {FETCH_TIMEOUT_S} s"
        archives = list(Path(folder).glob("gunicorn-*.tar.gz"))
        if not archives:
            return f"gunicorn {VERSION} could not be fetched: {done.stderr.strip()[-200:]}"
        with tarfile.open(archives[0]) as archive:
            archive.extractall(folder, filter="data")
        try:
            Path(folder, f"gunicorn-{VERSION}", "tests", "requests").rename(HOME)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process was faster
                raise
    return None


def decode(text: bytes) -> bytes:
    """The bytes that a file stands for: line ends and escapes are spelled out in it."""
    for spelled, meant in (b"\n", b""), (rb"\r\n", b"\r\n"), (rb"\0", b"\0"), (rb"\n", b"\n"):
        text = text.replace(spelled, meant)
    text = text.replace(rb"\t", b"\t")
    return re.sub(rb"\\x([0-9a-fA-F]{2})", lambda match: bytes([int(match[1], 16)]), text)


class Names(dict[str, Any]):
    """The names of a file of expectations; those of gunicorn's own modules are not wanted."""

    def __missing__(self, name: str) -> Any:
        return Anything()


class Anything:
    """Takes every call, of Config and of the exceptions."""

    def __call__(self, *_args: object, **_kwargs: object) -> "Anything":
        return self

    def __getattr__(self, _name: str) -> "Anything":
        return self


def expectations(path: Path) -> list[Mapping[str, Any]]:
    """What gunicorn reads out of a valid file."""
    source = re.sub(r"(?m)^(from|import) .*$", "", path.read_text())
    names = Names(uri=lambda target: target)
    exec(compile(source, str(path), "exec"), {}, names)
    wanted = names["request"]
    return wanted if isinstance(wanted, list) else [wanted]


def files(kind: str) -> list[Path]:
    return sorted((HOME / kind).glob("*.http"))
