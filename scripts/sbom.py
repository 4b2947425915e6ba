"""What is in netpoll's wheels: bills of materials in CycloneDX 1.6, of a wheel and of a release.

A wheel depends on no other package, so an installer's list does not show what is linked into its
extensions. The bill of a wheel does, and lies where PEP 770 puts it (NAME.dist-info/sboms). It has
no random number and no clock in it: two builds have the same bytes. The bill of a release is made
of those of its wheels.

    python scripts/sbom.py WHEEL PREFIX     puts a bill into a wheel that was built with the
                                            liburing in PREFIX (scripts/build-wheels does it itself)
"""

import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Bill = dict[str, Any]

NAME = "netpoll.cdx.json"
LIBURING_LICENCE = "MIT OR LGPL-2.1-or-later"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hashes(digest: str) -> list[Bill]:
    return [{"alg": "SHA-256", "content": digest}]


def netpoll(version: str) -> Bill:
    purl = f"pkg:pypi/netpoll@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": "netpoll",
        "version": version,
        "purl": purl,
        "licenses": [{"license": {"id": "MIT"}}],
    }


def liburing(folder: Path) -> Bill:
    """The static library in a folder with lib/liburing.a and lib/pkgconfig/liburing.pc."""
    described = (folder / "lib" / "pkgconfig" / "liburing.pc").read_text()
    found = re.search(r"^Version: *(\S+)$", described, re.MULTILINE)
    assert found, f"{folder} does not say which liburing it has"
    digest = sha256(folder / "lib" / "liburing.a")
    return {
        "type": "library",
        "bom-ref": f"liburing-{digest[:16]}",
        "name": "liburing",
        "version": found[1],
        "description": "linked statically into each extension; the hash is that of liburing.a",
        "scope": "required",
        "purl": f"pkg:generic/liburing@{found[1]}",
        "licenses": [{"expression": LIBURING_LICENCE}],
        "hashes": hashes(digest),
    }


def tools(pins: Iterable[str]) -> list[Bill]:
    """What built it, out of requirements such as `ziglang==0.17.1`."""
    pairs = [pin.split("==") for pin in pins]
    return [
        {
            "type": "application",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower()}@{version}",
        }
        for name, version in pairs
    ]


def bill(version: str, date_s: int, components: list[Bill], made_with: list[Bill]) -> Bill:
    subject = netpoll(version)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(date_s, UTC).isoformat(),
            "tools": {"components": made_with},
            "component": subject,
        },
        "components": components,
        "dependencies": [
            {"ref": subject["bom-ref"], "dependsOn": [part["bom-ref"] for part in components]},
        ],
    }


def dump(content: Bill) -> str:
    return json.dumps(content, indent=2) + "\n"


def put_into(wheel: Path, content: Bill) -> None:
    """Adds the bill to a wheel; whoever repairs the wheel adds it to RECORD."""
    with zipfile.ZipFile(wheel, "a") as files:
        (folder,) = {name.split("/")[0] for name in files.namelist() if ".dist-info/" in name}
        date = files.getinfo(f"{folder}/METADATA").date_time
        entry = zipfile.ZipInfo(f"{folder}/sboms/{NAME}", date)
        entry.external_attr = 0o100644 << 16
        files.writestr(entry, dump(content), zipfile.ZIP_DEFLATED)


def of_wheel(wheel: Path) -> Bill:
    """The bill that a wheel carries."""
    with zipfile.ZipFile(wheel) as files:
        (name,) = [name for name in files.namelist() if name.endswith(f".dist-info/sboms/{NAME}")]
        content: Bill = json.loads(files.read(name))
        return content


def of_release(version: str, date_s: int, distributions: Iterable[Path]) -> Bill:
    """The files of a release with their hashes, and below each wheel what is linked into it."""
    parts: dict[str, Bill] = {}
    made_with: dict[str, Bill] = {}
    contents = []
    files = []
    for path in sorted(distributions):
        files.append(
            {
                "type": "file",
                "bom-ref": path.name,
                "name": path.name,
                "hashes": hashes(sha256(path)),
            }
        )
        if path.suffix != ".whl":
            continue
        own = of_wheel(path)
        parts |= {part["bom-ref"]: part for part in own["components"]}
        made_with |= {tool["name"]: tool for tool in own["metadata"]["tools"]["components"]}
        refs = [part["bom-ref"] for part in own["components"]]
        contents.append({"ref": path.name, "dependsOn": refs})
    whole = bill(version, date_s, files, list(made_with.values()))
    whole["components"] += parts.values()
    whole["dependencies"] += contents
    return whole


def main() -> None:
    wheel, prefix = map(Path, sys.argv[1:])
    with zipfile.ZipFile(wheel) as files:
        first = datetime(*files.infolist()[0].date_time, tzinfo=UTC)
    version = wheel.name.split("-")[1]
    put_into(wheel, bill(version, int(first.timestamp()), [liburing(prefix)], []))


if __name__ == "__main__":
    main()
