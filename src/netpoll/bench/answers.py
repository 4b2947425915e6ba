"""What the servers of `bench http` answer: paths and bodies. The load expects exactly these."""

from __future__ import annotations

import os
import random
from pathlib import Path

__all__ = [
    "AGAIN",
    "AGAIN_PATH",
    "BINARY",
    "DOWNLOAD",
    "DOWNLOAD_PATH",
    "FILE_BYTES",
    "FILE_PATH",
    "FOLDER_VARIABLE",
    "HELLO",
    "HELLO_PATH",
    "JSON",
    "JSON_PATH",
    "MESSAGE",
    "TEXT",
    "UPLOAD_PATH",
    "WEBSOCKET_PATH",
    "file_name",
    "write_files",
]

HELLO_PATH, AGAIN_PATH = "/hello", "/again"
JSON_PATH = "/json"
UPLOAD_PATH = "/upload"  # answers how many bytes the body of the request has
DOWNLOAD_PATH = "/download"
FILE_PATH = "/file"
WEBSOCKET_PATH = "/echo"

TEXT, JSON, BINARY = "text/plain", "application/json", "application/octet-stream"

# Two answers of one length, asked for in turn: mixed up, they are found out.
HELLO, AGAIN = b"Hello, world!", b"Hello, again!"
MESSAGE = {"message": "Hello, world!"}
DOWNLOAD = random.Random(1).randbytes(1 << 20)
FILE_BYTES = 50 << 10

FOLDER_VARIABLE = "NETPOLL_BENCH_FOLDER"  # where write_files has put what servers read


def file_name() -> str:
    """The file that is served at FILE_PATH."""
    return os.path.join(os.environ[FOLDER_VARIABLE], "file")


def write_files(folder: Path) -> bytes:
    """Makes the file that is served, and the download for a server that is not Python. Returns
    what is in the file."""
    content = random.Random(2).randbytes(FILE_BYTES)
    (folder / "file").write_bytes(content)
    (folder / "download").write_bytes(DOWNLOAD)
    return content
