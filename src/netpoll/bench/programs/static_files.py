"""The folder of the run, served by netpoll's StaticFiles: as a handler, and as an ASGI application
that any server can run."""

from __future__ import annotations

import os

import netpoll.http as http
from netpoll.bench.answers import FOLDER_VARIABLE

__all__ = ["answer", "app"]

app = http.StaticFiles(os.environ[FOLDER_VARIABLE])
answer = app.answer
