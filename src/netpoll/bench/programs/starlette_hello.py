"""Starlette with the two short answers of `bench http`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from netpoll.bench import answers

__all__ = ["app"]


async def hello(request: Request) -> Response:
    return Response(answers.HELLO, media_type=answers.TEXT)


async def again(request: Request) -> Response:
    return Response(answers.AGAIN, media_type=answers.TEXT)


app = Starlette(routes=[Route(answers.HELLO_PATH, hello), Route(answers.AGAIN_PATH, again)])
