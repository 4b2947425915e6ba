from typing import Any

from quart import Quart, request, websocket

from . import LACKS, endless, events, shouted

__all__ = ["LACKS", "make"]


def make(seen: set[str]) -> Any:
    app = Quart(__name__)
    app.config["RESPONSE_TIMEOUT"] = None

    @app.before_serving
    async def startup() -> None:
        app.config["WORD"] = "from the lifespan"

    @app.post("/json")
    async def as_json() -> dict[str, Any]:
        return {"got": await request.get_json()}

    @app.post("/form")
    async def form() -> dict[str, Any]:
        fields, files = await request.form, await request.files
        file = files["file"]
        return {"name": fields["name"], "file": file.filename, "size": len(file.read())}

    @app.post("/stream")
    async def stream() -> Any:
        return shouted(request.body)

    @app.get("/events")
    async def sse() -> Any:
        return events(), {"Content-Type": "text/event-stream"}

    @app.get("/state")
    async def state() -> dict[str, str]:
        return {"word": app.config["WORD"]}

    @app.get("/fail")
    async def fail() -> None:
        raise ZeroDivisionError("asked for")

    @app.get("/background")
    async def background() -> dict[str, str]:
        app.add_background_task(seen.add, "background")
        return {}

    @app.get("/gone")
    async def gone() -> Any:
        return endless(seen)

    @app.websocket("/ws")
    async def echo() -> None:
        while True:
            await websocket.send(await websocket.receive())

    return app
