"""Where the files of a release come from: an in-toto statement with SLSA's provenance 1.0.

It is not signed, and proves nothing by itself. Who makes a release by hand can sign it
(`cosign attest-blob`); the workflow of the forge makes and signs statements of its own.
"""

import json
import platform
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from sbom import sha256

BUILD_TYPE = "urn:netpoll:scripts/release:1"
UNPUBLISHED = "urn:netpoll:source:unpublished"
BUILDER = "urn:netpoll:builder:by-hand"


def address(origin: str) -> str:
    """A remote of git as an URI, without a password; a name where it is nothing public."""
    found = re.fullmatch(r"(https?|ssh|git)://(?:[^@/]*@)?(.+)", origin)
    return f"git+{found[1]}://{found[2]}" if found else UNPUBLISHED


def statement(
    version: str, origin: str, commit: str, files: Iterable[Path], began: datetime
) -> str:
    """JSON: these files were built of that commit of `origin`, since `began`."""
    git = address(origin)
    content = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": path.name, "digest": {"sha256": sha256(path)}} for path in sorted(files)
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"version": version, "source": git},
                "internalParameters": {"platform": platform.platform()},
                "resolvedDependencies": [{"uri": git, "digest": {"gitCommit": commit}}],
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "metadata": {
                    "startedOn": began.isoformat(timespec="seconds"),
                    "finishedOn": datetime.now(UTC).isoformat(timespec="seconds"),
                },
            },
        },
    }
    return json.dumps(content, indent=2) + "\n"
