"""Finds the kinds: every file of the folder `kinds` is one.

A walk through the folder, and not a decorator: a decorator registers only what somebody imports, so
there would have to be a list of imports, which is the table that a new kind must not have to edit.
The harness therefore names no kind, and the imports go one way, from the kinds to the harness.
"""

from __future__ import annotations

import importlib
import pkgutil

from netpoll.bench.kind import SCHEMA_PREFIX, Kind

__all__ = ["all_kinds", "kind_of"]

FOLDER = "netpoll.bench.kinds"


def all_kinds() -> dict[str, Kind]:
    """Every kind by its name, in alphabetical order."""
    folder = importlib.import_module(FOLDER)
    found = [
        importlib.import_module(f"{FOLDER}.{module.name}").KIND
        for module in pkgutil.iter_modules(folder.__path__)
    ]
    return {kind.name: kind for kind in sorted(found, key=lambda kind: kind.name)}


def kind_of(document: object) -> Kind:
    """The kind that wrote a document. Raises ValueError for anything else."""
    if isinstance(document, dict) and str(document.get("schema", "")).startswith(SCHEMA_PREFIX):
        for kind in all_kinds().values():
            if kind.owns(document):
                return kind
    raise ValueError("it is not a result of this version of netpoll bench")
