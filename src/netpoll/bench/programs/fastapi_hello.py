"""FastAPI with the two short answers of `bench http`."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from netpoll.bench.answers import AGAIN, AGAIN_PATH, HELLO, HELLO_PATH

__all__ = ["app"]

app = FastAPI(default_response_class=PlainTextResponse)


@app.get(HELLO_PATH)
async def hello() -> str:
    return HELLO.decode()


@app.get(AGAIN_PATH)
async def again() -> str:
    return AGAIN.decode()
