"""A Starlette application under netpoll.http, with its files served by netpoll.

Usage:

    pip install starlette
    python examples/http/starlette_app.py [--port 8000]
    curl http://127.0.0.1:8000/hello/you
    curl http://127.0.0.1:8000/source/starlette_app.py
"""

import argparse
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypedDict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from netpoll import http


class State(TypedDict):
    greeting: str


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    """What is opened here is each request's: here go the connections to databases."""
    yield {"greeting": "hello"}


async def hello(request: Request) -> Response:
    return JSONResponse({request.state.greeting: request.path_params["name"]})


app = Starlette(
    routes=[
        Route("/hello/{name}", hello),
        Mount("/source", app=http.StaticFiles(Path(__file__).parent)),
    ],
    lifespan=lifespan,
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in the threads of the server, too
    with http.Server(app, "127.0.0.1", options.port) as server:
        print(f"listening on port {server.port}", flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
