"""The result as one JSON-able document; docs/benchmarks.md describes every field.

The tables and the page are made from this document alone, so that a saved file can be shown again
(``python -m netpoll bench show FILE``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from netpoll.bench import control
from netpoll.bench.arms import Arm
from netpoll.bench.control import control_facts
from netpoll.bench.kind import Kind
from netpoll.bench.process import malloc_settings
from netpoll.bench.records import Document, Facts
from netpoll.bench.registry import kind_of
from netpoll.bench.rounds import Run

__all__ = ["document_of", "malloc_note", "problems", "read_json", "write_whole"]

NO_CONTROL: Facts = {"pairs": []}  # of a document that was written before there was one


def arm_facts(arms: Mapping[str, Arm], checked: dict[str, Facts], malloc: str) -> Facts:
    """Per arm: what it is, its version, the reason when it was skipped, its malloc settings."""
    return {
        name: {
            "kind": arms[name].kind,
            "summary": arms[name].summary,
            "version": facts.get("version"),
            "loop": facts.get("loop"),
            "skipped": facts.get("unavailable"),
            "malloc": malloc_settings(arms[name], malloc),
        }
        for name, facts in checked.items()
    }


def document_of(
    kind: Kind, run: Run, checked: dict[str, Facts], environment: Facts, command: list[str]
) -> Document:
    """The document of a run. `checked` is what `kind.check` found, of every arm that was asked
    for; `command` the arguments."""
    rows = kind.rows(run)
    return {
        "schema": kind.full_schema,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(run.started_at)),
        "command": command,
        "environment": environment,
        "elapsed_s": run.elapsed_s,
        "stopped": run.stopped,
        "settings": kind.settings(run.plan),
        "arms": arm_facts(kind.arms, checked, run.plan.malloc),
        "control": control_facts(kind.controls, rows),
        "rows": rows,
    } | kind.more(run)


def write_whole(path: Path, text: str) -> None:
    """Writes a file; it is there wholly or not at all."""
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text)
    scratch.replace(path)


def read_json(path: Path) -> Document:
    """A document that was written before. Raises ValueError when it is something else, OSError
    when it cannot be read."""
    try:
        document: Document = json.loads(path.read_text())
        kind_of(document)
    except ValueError as error:
        raise ValueError(f"cannot show {path}: {error}") from None
    return document


def problems(document: Document) -> list[str]:
    """What was skipped, what failed, and why the run is not complete or not to be trusted; one
    sentence each."""
    lines = [
        f"skipped: {name}: {facts['skipped']}."
        for name, facts in document["arms"].items()
        if facts["skipped"]
    ]
    for row in document["rows"]:
        if row["fault"]:
            what = row["arm"] if row["mode"] == "-" else f"{row['arm']} {row['mode']}"
            where = f" at {row['cell']}" if "cell" in row else ""
            lines.append(f"failed: {what}{where}: {row['fault']}.")
    lines = list(dict.fromkeys(lines)) + control.sentences(document.get("control") or NO_CONTROL)
    lines += kind_of(document).wrong(document)
    if document.get("stopped"):
        lines.append(f"not complete: {document['stopped']}; what was measured is above.")
    return lines


def malloc_note(document: Document) -> str:
    """Which servers ran with which glibc settings; empty when none did."""
    ran = {name: facts for name, facts in document["arms"].items() if not facts["skipped"]}
    tuned = [name for name, facts in ran.items() if facts["malloc"]]
    if not tuned:
        return ""
    who = "Every server" if len(tuned) == len(ran) else ", ".join(tuned)
    settings = " ".join(f"{k}={v}" for k, v in ran[tuned[0]]["malloc"].items())
    return (
        f"{who} ran with {settings}: with glibc's defaults 256 KiB reads, such as asyncio's, go to "
        "mmap and back, and asyncio would look up to four times slower."
    )
