"""FastAPI with the two short answers of `bench http`."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from netpoll.bench import answers

__all__ = ["app"]

app = FastAPI(default_response_class=PlainTextResponse)


@app.get(answers.HELLO_PATH)
async def hello() -> str:
    return answers.HELLO.decode()


@app.get(answers.AGAIN_PATH)
async def again() -> str:
    return answers.AGAIN.decode()
