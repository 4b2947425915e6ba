"""An application to be deployed, with what a deployment asks for.

    netpoll serve shop:app                  workers, reloads and systemd: docs/serve.md
    python shop.py [--port 8000] [--pages-port 9100] [--grace-s 25]

The second form is for containers: one process, whose health and metrics have a port of their own.
"""

import argparse
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from netpoll import http

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise RuntimeError(f"{scope['type']} is not spoken here")
    known = scope["path"] == "/"
    body = f"the shop, process {os.getpid()}\n" if known else "not found\n"
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    status = 200 if known else 404
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body.encode()})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--pages-port", type=int, default=9100)
    parser.add_argument("--grace-s", type=float, default=25)
    options = parser.parse_args()
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in the threads of the servers, too
    paths = {"health_path": "/healthz", "metrics_path": "/metrics"}
    server = http.Server(app, options.host, options.port, **paths).start()
    pages = http.Server(server.own_page, options.host, options.pages_port).start()
    print(f"listening on ports {server.port} and {pages.port}", flush=True)
    signal.sigwait(ends)
    # First its health goes, so that nobody is sent here any more.
    pages.close()
    server.close(options.grace_s)


if __name__ == "__main__":
    main()
