from typing import Any

from litestar import Litestar, Request, Response, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import State, UploadFile
from litestar.exceptions import WebSocketDisconnect
from litestar.response import ServerSentEvent, Stream

from . import LACKS, endless, shouted

__all__ = ["LACKS", "make"]


@post("/json")
async def as_json(data: dict[str, Any]) -> dict[str, Any]:
    return {"got": data}


@post("/form")
async def form(request: Request[Any, Any, Any]) -> dict[str, Any]:
    fields = await request.form()
    file: UploadFile = fields["file"]
    return {"name": fields["name"], "file": file.filename, "size": len(await file.read())}


@post("/stream")
async def stream(request: Request[Any, Any, Any]) -> Stream:
    # Read before the answer begins: Litestar listens for a disconnect meanwhile, and takes parts.
    parts = [part async for part in shouted(request.stream())]
    return Stream(iter(parts))


@get("/events")
async def sse() -> ServerSentEvent:
    return ServerSentEvent(f"event {number}" for number in range(3))


@get("/state")
async def state_of(state: State) -> dict[str, str]:
    return {"word": state.word}


@get("/fail")
async def fail() -> None:
    raise ZeroDivisionError("asked for")


@websocket("/ws")
async def echo(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


def make(seen: set[str]) -> Any:
    async def startup(app: Litestar) -> None:
        app.state.word = "from the lifespan"

    @get("/background")
    async def background() -> Response[dict[str, str]]:
        return Response({}, background=BackgroundTask(seen.add, "background"))

    @get("/gone")
    async def gone() -> Stream:
        return Stream(endless(seen))

    handlers = [as_json, form, stream, sse, state_of, fail, echo, background, gone]
    # Its own logging starts a thread that does not end.
    return Litestar(handlers, on_startup=[startup], openapi_config=None, logging_config=None)
