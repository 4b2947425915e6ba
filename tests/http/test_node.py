"""Node's own server of HTTP as a third oracle: what it hands to a program."""

import base64
import json
import shutil
import subprocess

import pytest

from . import oracles
from .generator import stream
from .requests import read
from .test_parser_oracles import Disagreement, compare

STREAMS_COUNT = 2000

# Each stream is a connection without a socket. It is over when nothing happens any more.
PROGRAM = """
const http = require('http');
const {Duplex} = require('stream');
const ROUNDS = 12;

function judge(data, done) {
  const seen = {messages: [], error: null};
  const server = http.createServer((request, response) => {
    const parts = [];
    const message = {
      method: request.method, target: request.url, minor: request.httpVersionMinor,
      fields: request.rawHeaders, body: '', is_whole: false, goes_on: response.shouldKeepAlive,
    };
    seen.messages.push(message);
    request.on('error', () => {});
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      message.body = Buffer.concat(parts).toString('latin1');
      message.is_whole = request.complete;
      response.end();
    });
  });
  // The requests before the faulty one are still on their way, so the socket stays.
  server.on('clientError', (error) => { seen.error ||= String(error.reason || error.code); });
  const socket = new Duplex({read() {}, write(chunk, encoding, written) { written(); }});
  socket.on('error', () => {});
  socket.setTimeout = socket.setKeepAlive = socket.setNoDelay = () => socket;
  server.emit('connection', socket);
  socket.push(data);
  let rounds = 0;
  const wait = () => {
    if (++rounds < ROUNDS) return setImmediate(wait);
    socket.destroy();
    done(seen);
  };
  setImmediate(wait);
}

const streams = JSON.parse(require('fs').readFileSync(0));
const verdicts = [];
function next() {
  if (verdicts.length === streams.length) {
    process.stdout.write(JSON.stringify(verdicts), () => process.exit(0));
    return;
  }
  const data = Buffer.from(streams[verdicts.length], 'base64');
  judge(data, (seen) => { verdicts.push(seen); next(); });
}
next();
"""


def seen_by_node(message: dict[str, object]) -> oracles.Seen:
    raw = [str(text).encode("latin-1") for text in message["fields"]]  # type: ignore[attr-defined]
    return oracles.Seen(
        method=str(message["method"]).encode("latin-1"),
        target=str(message["target"]).encode("latin-1"),
        minor=int(str(message["minor"])),
        fields=list(zip(raw[::2], raw[1::2], strict=True)),
        body=str(message["body"]).encode("latin-1"),
        is_whole=bool(message["is_whole"]),
        goes_on=bool(message["goes_on"]),
    )


@pytest.fixture(scope="module")
def node() -> str:
    path = shutil.which("node")
    if path is None:
        pytest.skip("node is not installed")
    return path


def test_node_hands_over_the_same_requests(node: str) -> None:
    streams = [stream(seed) for seed in range(STREAMS_COUNT)]
    asked = json.dumps([base64.b64encode(data).decode() for data in streams])
    done = subprocess.run(
        [node, "-e", PROGRAM], input=asked, capture_output=True, text=True, timeout=120, check=True
    )
    verdicts = json.loads(done.stdout)
    assert len(verdicts) == STREAMS_COUNT
    assert sum(len(verdict["messages"]) for verdict in verdicts) > STREAMS_COUNT / 2
    wrong = []
    for data, verdict in zip(streams, verdicts, strict=True):
        theirs = oracles.Verdict([seen_by_node(m) for m in verdict["messages"]], verdict["error"])
        try:
            compare("node", read(data), theirs)
        except Disagreement as difference:
            wrong.append(f"{data!r}\n{difference}")
    assert not wrong, "\n\n".join(wrong)
