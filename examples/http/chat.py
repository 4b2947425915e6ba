"""A chat in the browser over WebSocket: what one says, all in the room hear.

Usage:

    python examples/http/chat.py [--port 8000]
    open http://127.0.0.1:8000/ in two windows

What a member is sent is not awaited: nobody waits for the slowest. Who does not read at all is
closed when too much is unsent, or when a ping is not answered.
"""

import argparse
import signal

from netpoll import http

PAGE = """<!doctype html>
<title>chat</title>
<form id="form"><input id="line" autofocus autocomplete="off"></form>
<pre id="said"></pre>
<script>
  const socket = new WebSocket(`ws://${location.host}/room`);
  socket.onmessage = (event) => { said.textContent += event.data + "\\n"; };
  form.onsubmit = (event) => {
    event.preventDefault();
    socket.send(line.value);
    line.value = "";
  };
</script>
"""
TRY_AGAIN = 1013  # a close code: the server has too much to do

members: dict[http.WebSocket, str] = {}


def tell_all(line: str) -> None:
    for member in list(members):
        try:
            member.send(line)
        except BufferError:
            member.close(TRY_AGAIN, "too slow")
        except ConnectionError:
            pass  # it has closed, and its handler is about to hear of it


async def handler(request: http.Request) -> http.Response | None:
    if request.path == "/":
        return http.Response(PAGE, content_type="text/html; charset=utf-8")
    if request.path != "/room" or not request.is_websocket:
        return http.Response("not here\n", status=404)
    socket = request.websocket()
    members[socket] = name = f"member {len(members) + 1}"
    tell_all(f"{name} has come")
    try:
        async for line in socket:
            tell_all(f"{name}: {line if isinstance(line, str) else line.hex()}")
    finally:
        del members[socket]
    tell_all(f"{name} has left")
    return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in the threads of the server, too
    limits = http.HttpLimits(websocket_max_bytes=4096)
    with http.Server(handler, "127.0.0.1", options.port, limits=limits) as server:
        print(f"listening on port {server.port}", flush=True)
        signal.sigwait(ends)
        server.close(2)


if __name__ == "__main__":
    main()
