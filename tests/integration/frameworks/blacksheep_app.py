from collections.abc import AsyncIterator
from typing import Any

from blacksheep import (
    Application,
    Request,
    Response,
    Router,
    StreamedContent,
    WebSocket,
    WebSocketDisconnectError,
    json,
)

from . import endless, events, shouted

LACKS = frozenset({"background"})  # it has no such thing; asyncio's tasks are there


def streamed(parts: AsyncIterator[bytes], content_type: bytes = b"text/plain") -> Response:
    async def given() -> AsyncIterator[bytes]:  # it insists on such a function
        async for part in parts:
            yield part

    return Response(200, content=StreamedContent(content_type, given))


def make(seen: set[str]) -> Any:
    app = Application(router=Router())  # it has one for all applications otherwise
    word: list[str] = []

    @app.on_start
    async def startup(app: Application) -> None:
        word.append("from the lifespan")

    @app.router.post("/json")
    async def as_json(request: Request) -> Response:
        return json({"got": await request.json()})

    @app.router.post("/form")
    async def form(request: Request) -> Response:
        fields = await request.form()
        (file,) = await request.files()
        return json(
            {
                "name": fields["name"],
                "file": file.file_name.decode(),
                "size": len(file.data),
            }
        )

    @app.router.post("/stream")
    async def stream(request: Request) -> Response:
        return streamed(shouted(request.stream()))

    @app.router.get("/events")
    async def sse() -> Response:
        return streamed(events(), b"text/event-stream")

    @app.router.get("/state")
    async def state() -> Response:
        return json({"word": word[0]})

    @app.router.get("/fail")
    async def fail() -> Response:
        raise ZeroDivisionError("asked for")

    @app.router.get("/gone")
    async def gone() -> Response:
        return streamed(endless(seen))

    @app.router.ws("/ws")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnectError:
            pass

    return app
