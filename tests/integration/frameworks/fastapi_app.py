import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import BackgroundTasks, FastAPI, Form, Request, UploadFile, WebSocket
from fastapi.responses import StreamingResponse

from . import LACKS, endless, events, shouted

__all__ = ["LACKS", "make"]


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"word": "from the lifespan"}


def make(seen: set[str]) -> Any:
    app = FastAPI(lifespan=lifespan)

    @app.post("/json")
    async def as_json(data: dict[str, Any]) -> dict[str, Any]:
        return {"got": data}

    @app.post("/form")
    async def form(name: Annotated[str, Form()], file: UploadFile) -> dict[str, Any]:
        return {"name": name, "file": file.filename, "size": len(await file.read())}

    @app.post("/stream")
    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(shouted(request.stream()))

    @app.get("/events")
    async def sse() -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/state")
    async def state(request: Request) -> dict[str, str]:
        return {"word": request.state.word}

    @app.get("/fail")
    def fail() -> None:  # in a thread
        raise ZeroDivisionError("asked for")

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> dict[str, str]:
        tasks.add_task(seen.add, "background")
        return {}

    @app.get("/gone")
    async def gone() -> StreamingResponse:
        return StreamingResponse(endless(seen))

    @app.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    return app
