"""A chat: what one says goes to everybody; one buffer, however many listen.

    python examples/server/chat.py [--port 8000]

The line is one bytes object, which every connection keeps until its peer has it: nothing is copied.
Who does not read is disconnected when pending_max_bytes wait for him.
"""

import argparse

import netpoll

members: set[netpoll.Connection] = set()


def on_connect(conn: netpoll.Connection) -> None:
    members.add(conn)
    conn.write(b"welcome\n")


def on_data(conn: netpoll.Connection) -> None:
    while (line := conn.take_line()) is not None:
        for member in list(members):
            try:
                member.write(line)
            except (BufferError, ConnectionError):
                members.discard(member)


def on_close(conn: netpoll.Connection, error: BaseException | None) -> None:
    members.discard(conn)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    netpoll.serve(
        on_data,
        "127.0.0.1",
        options.port,
        on_connect=on_connect,
        on_close=on_close,
        limits=netpoll.ServerLimits(pending_max_bytes=256 * 1024),
        ready=lambda server: print(f"listening on port {server.port}", flush=True),
    )


if __name__ == "__main__":
    main()
