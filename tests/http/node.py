"""Node's own server of HTTP as an oracle: what it hands to a program.

One Node reads batches of streams, each batch a line of JSON, and writes what it has seen.
"""

import base64
import contextlib
import json
import subprocess
from collections.abc import Iterator

from .oracles import Seen, Verdict

# Each stream is a connection without a socket. It is over when nothing happens any more.
PROGRAM = """
const http = require('http');
const {Duplex} = require('stream');
const ROUNDS = 12;

const server = http.createServer(take);
// Other expectations than 100-continue Node answers with 417, as RFC 9110 10.1.1 lets it.
server.on('checkExpectation', take);

function take(request, response) {
  const parts = [];
  const message = {
    method: request.method, target: request.url, minor: request.httpVersionMinor,
    fields: request.rawHeaders, body: '', is_whole: false, goes_on: response.shouldKeepAlive,
  };
  request.socket.seen.messages.push(message);
  request.on('error', () => {});
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    message.body = Buffer.concat(parts).toString('latin1');
    message.is_whole = request.complete;
    response.end();
  });
}

// The requests before the faulty one are still on their way, so the socket stays.
server.on('clientError', (error, socket) => {
  socket.seen.error ||= String(error.reason || error.code);
});

function open(data) {
  const socket = new Duplex({read() {}, write(chunk, encoding, written) { written(); }});
  socket.seen = {messages: [], error: null};
  socket.on('error', () => {});
  socket.setTimeout = socket.setKeepAlive = socket.setNoDelay = () => socket;
  server.emit('connection', socket);
  socket.push(Buffer.from(data, 'base64'));
  return socket;
}

function judge(line) {
  const sockets = JSON.parse(line).map(open);
  let rounds = 0;
  const wait = () => {
    if (++rounds < ROUNDS) return setImmediate(wait);
    sockets.forEach((socket) => socket.destroy());
    process.stdout.write(JSON.stringify(sockets.map((socket) => socket.seen)) + '\\n');
  };
  setImmediate(wait);
}

require('readline').createInterface({input: process.stdin}).on('line', judge);
"""


def _seen(message: dict[str, object]) -> Seen:
    raw = [str(text).encode("latin-1") for text in message["fields"]]  # type: ignore[attr-defined]
    return Seen(
        method=str(message["method"]).encode("latin-1"),
        target=str(message["target"]).encode("latin-1"),
        minor=int(str(message["minor"])),
        fields=list(zip(raw[::2], raw[1::2], strict=True)),
        body=str(message["body"]).encode("latin-1"),
        is_whole=bool(message["is_whole"]),
        goes_on=bool(message["goes_on"]),
    )


class Node:
    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self.child = child

    def read(self, streams: list[bytes]) -> list[Verdict]:
        """What Node makes of each stream."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        asked = json.dumps([base64.b64encode(data).decode() for data in streams])
        self.child.stdin.write(asked.encode() + b"\n")
        self.child.stdin.flush()
        found = json.loads(self.child.stdout.readline())
        return [Verdict([_seen(m) for m in one["messages"]], one["error"]) for one in found]


@contextlib.contextmanager
def started(path: str) -> Iterator[Node]:
    """path: of the program node."""
    with subprocess.Popen(
        [path, "-e", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            yield Node(child)
        finally:
            child.kill()
