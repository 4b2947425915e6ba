"""The floor of `bench http` as a program: ``floor_http PORT``. The answers are made here, once."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import BinaryIO

from netpoll.bench import _native, answers
from netpoll.bench.tcp import tune

__all__ = ["routes"]

BACKLOG = 4096

Route = tuple[bytes, bytes | None, BinaryIO | None]


def head(content_type: str, length: int) -> bytes:
    fields = f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n"
    return f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode()


def routes(file: BinaryIO | None) -> list[Route]:
    """What `_native.floor_http` serves; without a file all but that one."""
    message = json.dumps(answers.MESSAGE, separators=(",", ":")).encode()
    whole = {
        answers.HELLO_PATH: (answers.TEXT, answers.HELLO),
        answers.AGAIN_PATH: (answers.TEXT, answers.AGAIN),
        answers.JSON_PATH: (answers.JSON, message),
        answers.DOWNLOAD_PATH: (answers.BINARY, answers.DOWNLOAD),
    }
    found: list[Route] = [
        (path.encode(), head(content_type, len(body)) + body, None)
        for path, (content_type, body) in whole.items()
    ]
    found.append((answers.UPLOAD_PATH.encode(), None, None))
    if file is not None:
        found.append((answers.FILE_PATH.encode(), head(answers.BINARY, answers.FILE_BYTES), file))
    return found


def main(argv: list[str]) -> int:
    with (
        socket.create_server(("127.0.0.1", int(argv[0])), backlog=BACKLOG) as listener,
        Path(answers.file_name()).open("rb") as file,
    ):
        tune(listener)
        listener.setblocking(False)
        never, _ = os.pipe()
        _native.floor_http(listener.fileno(), never, routes(file))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
