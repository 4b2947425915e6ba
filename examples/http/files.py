"""A file server: ranges, conditional requests, and twins that are encoded already.

Usage:

    python examples/http/files.py DIRECTORY [--port 8000]
    curl --range 0-99 http://127.0.0.1:8000/movie.mp4
"""

import argparse
import signal

from netpoll import http


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    files = http.StaticFiles(options.directory, cache_control="max-age=60")
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in the threads of the server, too
    with http.Server(files.answer, "127.0.0.1", options.port) as server:
        print(f"listening on port {server.port}", flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
