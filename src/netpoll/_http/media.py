"""Media types by the endings of names. The system's own tables are not read: a server says the same
wherever it runs."""

from __future__ import annotations

import mimetypes

__all__ = ["media_type"]

OCTETS = "application/octet-stream"
# What the tables of Python 3.11 do not have, or have otherwise.
MORE = {
    ".avif": "image/avif",
    ".gz": "application/gzip",
    ".br": OCTETS,
    ".zst": "application/zstd",
    ".bz2": "application/x-bzip2",
    ".xz": "application/x-xz",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".jsonld": "application/ld+json",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}

_TABLE = mimetypes.MimeTypes(filenames=()).types_map[1]


def media_type(name: str, more: dict[str, str]) -> str:
    """By the last ending alone: "site.tar.gz" is a gzip file. Text is said to be UTF-8."""
    dot = name.rfind(".")
    ending = name[dot:].lower() if dot > 0 else ""
    if ending in more:
        return more[ending]
    found = MORE.get(ending) or _TABLE.get(ending, OCTETS)
    return f"{found}; charset=utf-8" if found.startswith("text/") else found
