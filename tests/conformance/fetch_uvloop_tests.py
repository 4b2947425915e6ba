"""`python -m tests.conformance.fetch_uvloop_tests`: uvloop's own tests, out of its sdist.

pip fetches the source distribution of the uvloop that is installed; only its tests and the module
that they share are kept, in build/uvloop-tests. Does nothing when they are there. Exit code 1 with
a sentence when they are not available.
"""

import importlib.metadata
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from . import lane


def main() -> int:
    if lane.missing_reason("uvloop") is None:
        return 0
    try:
        target = lane.uvloop_tests()
    except importlib.metadata.PackageNotFoundError:
        print(lane.missing_reason("uvloop"))
        return 1
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
        command += ["--no-build-isolation", "--dest", folder, f"uvloop=={target.name}"]
        done = subprocess.run(command, capture_output=True, text=True)
        archives = list(Path(folder).glob("uvloop-*.tar.gz"))
        if done.returncode or not archives:
            print(f"the source distribution of uvloop {target.name} is not available:")
            print(done.stderr.strip()[-500:])
            return 1
        with tarfile.open(archives[0]) as archive:
            archive.extractall(folder, filter="data")
        source = Path(folder, f"uvloop-{target.name}")
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        unpacked = Path(folder, "unpacked")
        unpacked.mkdir()
        shutil.copytree(source / "tests", unpacked / "tests")
        (unpacked / "testbase").mkdir()
        shutil.copy(source / "uvloop" / "_testbase.py", unpacked / "testbase")
        shutil.move(unpacked, target)  # whole or not at all
    print(f"uvloop {target.name}: its tests are in {target.relative_to(lane.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
