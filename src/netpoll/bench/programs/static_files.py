"""The folder of the run, served by netpoll's StaticFiles: as a handler, and as an ASGI application
that any server can run. By hand: the folder that it is started in."""

from __future__ import annotations

import os

import netpoll.http as http
from netpoll.bench.answers import FOLDER_VARIABLE

__all__ = ["answer", "app"]

app = http.StaticFiles(os.environ.get(FOLDER_VARIABLE, os.curdir))
answer = app.answer
