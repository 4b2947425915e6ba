"""The kinds, by name."""

from __future__ import annotations

import importlib

from netpoll.bench.kind import SCHEMA_PREFIX, Kind

__all__ = ["all_kinds", "kind_of"]

FILES = (
    *("accept", "broadcast", "bursts", "echo", "files", "idle", "micro", "proxy", "sched"),
    "zerocopy",
)


def all_kinds() -> dict[str, Kind]:
    """Every kind by its name."""
    found = [importlib.import_module(f"netpoll.bench.{name}").KIND for name in FILES]
    return {kind.name: kind for kind in found}


def kind_of(document: object) -> Kind:
    """The kind that wrote a document. Raises ValueError for anything else."""
    if isinstance(document, dict) and str(document.get("schema", "")).startswith(SCHEMA_PREFIX):
        for kind in all_kinds().values():
            if kind.owns(document):
                return kind
    raise ValueError("it is not a result of this version of netpoll bench")
