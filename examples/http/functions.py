"""A small service of plain functions: JSON, a body that is read as it comes, one that is sent so.

Usage:

    python examples/http/functions.py [--port 8000]
    curl http://127.0.0.1:8000/sum?1+2+3
    curl --data-binary @FILE http://127.0.0.1:8000/length
    curl http://127.0.0.1:8000/squares
"""

import argparse
import json
import signal
from collections.abc import AsyncIterator

from netpoll import http


async def squares() -> AsyncIterator[bytes]:
    for i in range(1000):
        yield f"{i * i}\n".encode()


async def handler(request: http.Request) -> http.Response:
    if request.path == "/sum":
        try:
            total = sum(int(word) for word in request.query.split("+"))
        except ValueError:
            return http.Response("a sum is of numbers: /sum?1+2\n", 400)
        return http.Response(json.dumps({"sum": total}), content_type="application/json")
    if request.path == "/length":
        length = 0
        async for part in request:
            length += len(part)
        return http.Response(f"{length}\n")
    if request.path == "/squares":
        return http.Response(squares(), content_type="text/plain")
    return http.Response("not found\n", 404)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in the threads of the server, too
    with http.Server(handler, "127.0.0.1", options.port) as server:
        print(f"listening on port {server.port}", flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
