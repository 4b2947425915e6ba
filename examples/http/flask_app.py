"""A Flask application under netpoll.http: WSGI, in a pool of threads.

Usage:

    pip install flask
    python examples/http/flask_app.py [--port 8000] [--threads 8]
    curl http://127.0.0.1:8000/hello/you
    curl --data-binary @large.file http://127.0.0.1:8000/digest
    curl http://127.0.0.1:8000/numbers/1000
    curl http://127.0.0.1:8000/source
"""

import argparse
import hashlib
import signal
from collections.abc import Iterator

from flask import Flask, Response, jsonify, request, send_file

from netpoll import http

app = Flask(__name__)


@app.get("/hello/<name>")
def hello(name: str) -> Response:
    return jsonify(hello=name)


@app.post("/digest")
def digest() -> str:
    """Of a body that is read while it comes, and is nowhere as a whole."""
    state = hashlib.sha256()
    while data := request.stream.read(65536):
        state.update(data)
    return state.hexdigest()


@app.get("/numbers/<int:count>")
def numbers(count: int) -> Response:
    """An answer that is made while it is sent; a client that does not read stops it."""

    def lines() -> Iterator[str]:
        for number in range(count):
            yield f"{number}\n"

    return Response(lines(), mimetype="text/plain")


@app.get("/source")
def source() -> Response:
    """A file: it leaves by sendfile(2)."""
    return send_file(__file__, mimetype="text/x-python")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in the threads of the server, too
    # The class has __call__(environ, start_response), so it is known for WSGI.
    with http.Server(app, "127.0.0.1", options.port, threads=options.threads) as server:
        print(f"listening on port {server.port}", flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
