"""netpoll's own HTTP server as a program: ``netpoll_http PORT INTERFACE APP``.

INTERFACE is that of netpoll.http.Server, or "wsgi-inline": WSGI without a pool of threads. APP is
MODULE:NAME; "-" stands for the functions of this module, which the raw interface calls. The backend
is chosen by NETPOLL_BACKEND.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

import netpoll.http as http
from netpoll.bench import answers


def answer(request: http.Request) -> http.Response:
    path = request.path
    if path == answers.HELLO_PATH:
        return http.Response(answers.HELLO, content_type=answers.TEXT)
    if path == answers.AGAIN_PATH:
        return http.Response(answers.AGAIN, content_type=answers.TEXT)
    if path == answers.JSON_PATH:
        body = json.dumps(answers.MESSAGE, separators=(",", ":")).encode()
        return http.Response(body, content_type=answers.JSON)
    if path == answers.UPLOAD_PATH:
        return http.Response(str(len(request.body)).encode(), content_type=answers.TEXT)
    if path == answers.DOWNLOAD_PATH:
        return http.Response(answers.DOWNLOAD, content_type=answers.BINARY)
    if path == answers.FILE_PATH:
        return http.Response(Path(answers.file_name()), content_type=answers.BINARY)
    return http.Response(b"", 404)


async def echo(request: http.Request) -> None:
    websocket = request.websocket()
    async for message in websocket:
        await websocket.send(message)


def application(name: str) -> Any:
    if name == "-":
        return answer
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m netpoll.bench.programs.netpoll_http")
    parser.add_argument("port", type=int)
    parser.add_argument("interface", choices=("raw", "asgi", "wsgi", "wsgi-inline"))
    parser.add_argument("app")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    options = parser.parse_args(argv)
    more: dict[str, Any] = {}
    if options.certificate:
        more["ssl"] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        more["ssl"].load_cert_chain(options.certificate, options.key)
    interface, _, is_inline = options.interface.partition("-")
    if is_inline:
        more["threads"] = 0
    server = http.Server(
        application(options.app),
        "127.0.0.1",
        options.port,
        interface=interface,
        backend=os.environ["NETPOLL_BACKEND"],
        **more,
    )
    with server:
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
