import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from . import LACKS, endless, events, shouted

__all__ = ["LACKS", "make"]


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
    yield {"word": "from the lifespan"}


async def as_json(request: Request) -> Response:
    return JSONResponse({"got": await request.json()})


async def form(request: Request) -> Response:
    async with request.form() as fields:
        file: Any = fields["file"]
        size = len(await file.read())
        return JSONResponse({"name": fields["name"], "file": file.filename, "size": size})


async def stream(request: Request) -> Response:
    return StreamingResponse(shouted(request.stream()))


async def sse(request: Request) -> Response:
    return StreamingResponse(events(), media_type="text/event-stream")


async def state(request: Request) -> Response:
    return JSONResponse({"word": request.state.word})


async def fail(request: Request) -> Response:
    raise ZeroDivisionError("asked for")


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


def make(seen: set[str]) -> Any:
    async def background(request: Request) -> Response:
        return JSONResponse({}, background=BackgroundTask(seen.add, "background"))

    async def gone(request: Request) -> Response:
        return StreamingResponse(endless(seen))

    posts = [("/json", as_json), ("/form", form), ("/stream", stream)]
    gets = [("/events", sse), ("/state", state), ("/fail", fail)]
    gets += [("/background", background), ("/gone", gone)]
    routes: list[Any] = [Route(path, call, methods=["POST"]) for path, call in posts]
    routes += [Route(path, call) for path, call in gets]
    return Starlette(routes=[*routes, WebSocketRoute("/ws", echo)], lifespan=lifespan)
