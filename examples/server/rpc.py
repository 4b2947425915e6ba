"""RPC: four bytes of length, then JSON {"method": ..., "params": [...]}; answers likewise.

    python examples/server/rpc.py [--port 8000]

The handler is a plain function: it takes whole messages out of what has arrived and leaves the
beginning of the next one where it is.
"""

import argparse
import json
import struct

import netpoll

HEAD = struct.Struct(">I")
MESSAGE_MAX_BYTES = 256 * 1024

METHODS = {"add": lambda a, b: a + b, "upper": str.upper, "join": lambda *words: " ".join(words)}


def answer(request: dict) -> dict:
    try:
        return {"result": METHODS[request["method"]](*request["params"])}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def on_data(conn: netpoll.Connection) -> None:
    while conn.available >= HEAD.size:
        with conn.peek_lease(HEAD.size) as head:
            (size,) = HEAD.unpack(head)
        if size > MESSAGE_MAX_BYTES:
            conn.abort(ValueError(f"a message of {size} bytes"))
            return
        if conn.available < HEAD.size + size:
            return  # the rest is still on its way
        conn.skip(HEAD.size)
        reply = json.dumps(answer(json.loads(conn.take(size)))).encode()
        conn.writev([HEAD.pack(len(reply)), reply])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    netpoll.serve(
        on_data,
        "127.0.0.1",
        options.port,
        ready=lambda server: print(f"listening on port {server.port}", flush=True),
    )


if __name__ == "__main__":
    main()
