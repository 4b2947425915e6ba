"""The source distribution of a tree, the same bytes from the same files and the same date.

python scripts/sdist.py DIR     of this tree, with the date of its commit
"""

import gzip
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from debian import output


def build(tree: Path, out: Path, date_s: int, python: str = sys.executable) -> Path:
    """NAME-VERSION.tar.gz in `out`, by an interpreter that has setuptools and Cython."""
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [python, "setup.py", "-q", "sdist", "--dist-dir", scratch],
            cwd=tree,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"setup.py sdist failed:\n{done.stdout}{done.stderr}"
        (made,) = Path(scratch).glob("*.tar.gz")
        out.mkdir(parents=True, exist_ok=True)
        target = out / made.name
        target.write_bytes(in_order(made.read_bytes(), date_s))
    return target


def in_order(archive: bytes, date_s: int) -> bytes:
    """An archive without what the machine has brought: dates, owners, the order of files."""
    plain = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as old,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime = date_s
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isreg() else None)
    return gzip.compress(plain.getvalue(), mtime=date_s)


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    print(build(root, Path(sys.argv[1]), int(output("git", "log", "-1", "--format=%ct", cwd=root))))
