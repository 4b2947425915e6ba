from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request

LACKS = frozenset({"state", "background", "websocket"})


def make(seen: set[str]) -> Any:
    app = Flask(__name__)

    @app.post("/json")
    def as_json() -> dict[str, Any]:
        return {"got": request.get_json()}

    @app.post("/form")
    def form() -> dict[str, Any]:
        file = request.files["file"]
        return {"name": request.form["name"], "file": file.filename, "size": len(file.read())}

    @app.post("/stream")
    def stream() -> Response:
        body = request.stream

        def parts() -> Iterator[bytes]:
            while part := body.read(10_000):
                yield part.upper()

        return Response(parts())

    @app.get("/events")
    def sse() -> Response:
        parts = (f"data: event {number}\n\n" for number in range(3))
        return Response(parts, content_type="text/event-stream")

    @app.get("/fail")
    def fail() -> None:
        raise ZeroDivisionError("asked for")

    @app.get("/gone")
    def gone() -> Response:
        def parts() -> Iterator[bytes]:
            try:
                while True:
                    yield b"x" * 1000
            finally:
                seen.add("gone")

        return Response(parts())

    return app
