"""The ASGI application of `bench http`: the answers of `answers.py`, and an echo by WebSocket."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from netpoll.bench import answers

__all__ = ["app"]

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def start(content_type: str, length: int, status: int = 200) -> Message:
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(length).encode()),
    ]
    return {"type": "http.response.start", "status": status, "headers": headers}


async def send_whole(send: Send, body: bytes, content_type: str = answers.TEXT) -> None:
    await send(start(content_type, len(body)))
    await send({"type": "http.response.body", "body": body})


async def hello(scope: Message, receive: Receive, send: Send) -> None:
    await send_whole(send, answers.HELLO)


async def again(scope: Message, receive: Receive, send: Send) -> None:
    await send_whole(send, answers.AGAIN)


async def message(scope: Message, receive: Receive, send: Send) -> None:
    await send_whole(
        send, json.dumps(answers.MESSAGE, separators=(",", ":")).encode(), answers.JSON
    )


async def upload(scope: Message, receive: Receive, send: Send) -> None:
    length, more = 0, True
    while more:
        part = await receive()
        length += len(part.get("body", b""))
        more = part.get("more_body", False)
    await send_whole(send, str(length).encode())


async def download(scope: Message, receive: Receive, send: Send) -> None:
    await send_whole(send, answers.DOWNLOAD, answers.BINARY)


async def file(scope: Message, receive: Receive, send: Send) -> None:
    """By its path where the server can send it so; else it is read, as a framework would."""
    if "http.response.pathsend" in (scope.get("extensions") or {}):
        await send(start(answers.BINARY, answers.FILE_BYTES))
        await send({"type": "http.response.pathsend", "path": answers.file_name()})
    else:
        await send_whole(send, Path(answers.file_name()).read_bytes(), answers.BINARY)


async def not_found(scope: Message, receive: Receive, send: Send) -> None:
    await send(start(answers.TEXT, 0, 404))
    await send({"type": "http.response.body"})


ANSWERS = {
    answers.HELLO_PATH: hello,
    answers.AGAIN_PATH: again,
    answers.JSON_PATH: message,
    answers.UPLOAD_PATH: upload,
    answers.DOWNLOAD_PATH: download,
    answers.FILE_PATH: file,
}


async def echo(receive: Receive, send: Send) -> None:
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": event["bytes"]})


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await ANSWERS.get(scope["path"], not_found)(scope, receive, send)
    elif scope["type"] == "websocket":
        await echo(receive, send)
    else:
        await lifespan(receive, send)
