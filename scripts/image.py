"""The steps of a Dockerfile in a chroot, where there is no Docker: what it runs, copies and starts.

Its stages share one chroot, so a COPY between them is left out. The network is one of its own, with
nothing but loopback.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

PATIENCE_S = 30
# Starts the program, waits for the health check, stops the program: its status is the answer.
LIFE = """
ip link set lo up
chroot --userspec={user}:{user} {root} env -i {env} sh -c 'cd {folder} && exec "$@"' sh {program} &
until chroot --userspec={user}:{user} {root} env -i {env} {check}; do
    kill -0 $! || exit 1
    sleep 0.2
done
kill -TERM $!
wait $!
"""


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """(RUN, its words), line by line, without comments."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.strip():
            name, _, words = line.partition(" ")
            yield name, words.strip()


def quoted(words: str) -> str:
    """The JSON list of CMD, for a shell."""
    parts: list[str] = json.loads(words)
    return " ".join("'" + part.replace("'", "'\\''") + "'" for part in parts)


def build(dockerfile: Path, root: Path, *settings: str) -> dict[str, str]:
    """Does what an image is built of; what is left is how it is started."""
    left: dict[str, str] = {}
    env = (
        "env",
        "-i",
        "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME=/root",
        *settings,
    )
    for name, words in instructions(dockerfile):
        if name == "RUN":
            command = ["chroot", str(root), *env, "sh", "-ec", words]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, f"RUN {words}:\n{done.stdout}{done.stderr}"
        elif name == "COPY" and not words.startswith("--from="):
            source, target = words.split()
            folder = root / target.lstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(dockerfile.parent / source, folder)
        else:
            left[name] = words
    return left


def live(left: dict[str, str], root: Path) -> None:
    """Starts the image's program as its user, until its health check is content, and stops it."""
    check = left["HEALTHCHECK"].partition("CMD ")[2]
    script = LIFE.format(
        root=root,
        user=left["USER"],
        env=left["ENV"].replace("$PATH", "/usr/local/bin:/usr/bin:/bin"),
        folder=left["WORKDIR"],
        program=quoted(left["CMD"]),
        check=quoted(check),
    )
    done = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, f"the image's program:\n{done.stdout}{done.stderr}"
