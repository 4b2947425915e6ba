"""The WSGI application of `bench http`: the answers of `answers.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from netpoll.bench import answers

__all__ = ["app"]

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]

READ_BYTES = 64 << 10


def headers(content_type: str, length: int) -> list[tuple[str, str]]:
    return [("Content-Type", content_type), ("Content-Length", str(length))]


def upload_length(environ: Environ) -> int:
    left = declared = int(environ.get("CONTENT_LENGTH") or 0)
    while left and (part := environ["wsgi.input"].read(min(left, READ_BYTES))):
        left -= len(part)
    return declared - left


def file(environ: Environ) -> Iterable[bytes]:
    """By the server's wrapper where it has one, which may use sendfile(2); else it is read."""
    if wrapper := environ.get("wsgi.file_wrapper"):
        wrapped: Iterable[bytes] = wrapper(Path(answers.file_name()).open("rb"), READ_BYTES)
        return wrapped
    return [Path(answers.file_name()).read_bytes()]


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    content_type = answers.TEXT
    if path == answers.HELLO_PATH:
        body = answers.HELLO
    elif path == answers.AGAIN_PATH:
        body = answers.AGAIN
    elif path == answers.JSON_PATH:
        body, content_type = (
            json.dumps(answers.MESSAGE, separators=(",", ":")).encode(),
            answers.JSON,
        )
    elif path == answers.UPLOAD_PATH:
        body = str(upload_length(environ)).encode()
    elif path == answers.DOWNLOAD_PATH:
        body, content_type = answers.DOWNLOAD, answers.BINARY
    elif path == answers.FILE_PATH:
        start_response("200 OK", headers(answers.BINARY, answers.FILE_BYTES))
        return file(environ)
    else:
        start_response("404 Not Found", headers(answers.TEXT, 0))
        return []
    start_response("200 OK", headers(content_type, len(body)))
    return [body]
