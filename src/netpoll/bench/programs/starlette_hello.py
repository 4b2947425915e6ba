"""Starlette with the two short answers of `bench http`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from netpoll.bench.answers import AGAIN, AGAIN_PATH, HELLO, HELLO_PATH, TEXT

__all__ = ["app"]


async def hello(request: Request) -> Response:
    return Response(HELLO, media_type=TEXT)


async def again(request: Request) -> Response:
    return Response(AGAIN, media_type=TEXT)


app = Starlette(routes=[Route(HELLO_PATH, hello), Route(AGAIN_PATH, again)])
