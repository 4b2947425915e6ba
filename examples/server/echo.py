"""An echo server: what has arrived goes straight back, without a copy.

Usage:

    python examples/server/echo.py [--port 8000] [--workers 2]
"""

import argparse

import netpoll


def on_data(conn: netpoll.Connection) -> None:
    conn.forward()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    netpoll.serve(
        on_data,
        "127.0.0.1",
        options.port,
        workers=options.workers,
        ready=lambda server: print(f"listening on port {server.port}", flush=True),
    )


if __name__ == "__main__":
    main()
