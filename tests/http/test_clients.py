"""Real clients of netpoll.http.Server: curl, Node, httpx, aiohttp, requests; and tools that
measure or torment servers. Each one that is not installed is skipped with its tests.
"""

import asyncio
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest

from netpoll import http
from tests.http.conftest import HttpServing
from tests.server.conftest import wait_for
from tests.support import SLOWNESS

BODY = bytes(range(256)) * 4000  # 1 MB


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Digests what is sent; /parts and /large send much, /refuse does not look at the body."""
    path, digest, size = scope["path"], hashlib.sha256(), 0
    more = path != "/refuse"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        digest.update(message["body"])
        size += len(message["body"])
        more = message["more_body"]
    headers = [(b"content-type", b"application/json"), (b"x-client", str(scope["client"]).encode())]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    if path == "/refuse":
        await send({**start, "status": 403})
        await send({"type": "http.response.body", "body": b"not wanted"})
        return
    await send(start)
    if path == "/parts":
        for at in range(0, len(BODY), 100_000):
            part = BODY[at : at + 100_000]
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})
        return
    if path == "/large":
        await send({"type": "http.response.body", "body": BODY})
        return
    seen = {"method": scope["method"], "size": size, "sha256": digest.hexdigest()}
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


PATHS = ("/", "/parts", "/large", "/refuse")
WHOLE = {"method": "POST", "size": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest()}


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def output_of(*command: str, timeout_s: float = 60, **options: Any) -> bytes:
    done = subprocess.run(
        command, capture_output=True, timeout=timeout_s * SLOWNESS, check=False, **options
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:].decode(errors="replace")
    return done.stdout


@pytest.fixture
def url(http_serving: HttpServing) -> str:
    return f"http://127.0.0.1:{http_serving(app, lifespan='off').port}"


# ---- curl ---------------------------------------------------------------------------------------


class Curl:
    def __init__(self, url: str) -> None:
        self.path, self.url = program("curl"), url

    def __call__(self, *arguments: str, **options: Any) -> bytes:
        words = [self.url + word if word in PATHS else word for word in arguments]
        return output_of(self.path, "-sS", "--max-time", "30", *words, **options)


@pytest.fixture
def curl(url: str) -> Curl:
    return Curl(url)


def test_curl_asks_before_it_sends(curl: Curl, tmp_path: pathlib.Path) -> None:
    """Expect: 100-continue: the body is sent when it is wanted, and is not when it is not."""
    trace = tmp_path / "trace"
    sent = ("--data-binary", "@-", "-H", "Expect: 100-continue", "--trace-ascii", str(trace))
    assert json.loads(curl("/", *sent, input=BODY)) == WHOLE
    assert "HTTP/1.1 100 Continue" in trace.read_text()
    assert curl("/refuse", *sent, input=BODY) == b"not wanted"
    assert "HTTP/1.1 100 Continue" not in trace.read_text()


def test_curl_uploads_in_chunks(curl: Curl) -> None:
    sent = ("-X", "POST", "-T", "-", "-H", "Transfer-Encoding: chunked", "-H", "Expect:")
    assert json.loads(curl("/", *sent, input=BODY)) == WHOLE


def test_curl_keeps_a_connection(curl: Curl) -> None:
    """Fifty requests of all kinds on one connection: the peer's address does not change."""
    heads = curl(*["/", "/parts", "/large", "/"] * 12, "-D", "-", *["-o", os.devnull] * 48)
    found = re.findall(rb"x-client: (.*)\r\n", heads)
    assert len(found) == 48
    assert len(set(found)) == 1


@pytest.mark.parametrize("path", ["/parts", "/large"])
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_gets_all_of_an_answer(curl: Curl, path: str, version: str) -> None:
    assert curl(path, version) == BODY
    head = curl(path, "--head", version)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\n\r\n")  # and no body


def test_curl_goes_on_with_a_file(http_serving: HttpServing, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(BODY)
    static: Any = pytest.importorskip("starlette.responses", reason="for an answer with ranges")
    server = http_serving(static.FileResponse(path), lifespan="off")
    curl = Curl(f"http://127.0.0.1:{server.port}")
    assert curl("/", "-r", "100-199") == BODY[100:200]
    assert curl("/", "-r", "-10") == BODY[-10:]
    part = tmp_path / "part"
    part.write_bytes(BODY[:1000])
    curl("/", "-C", "-", "-o", str(part))
    assert part.read_bytes() == BODY


def test_curl_asks_for_many_at_a_time(curl: Curl, tmp_path: pathlib.Path) -> None:
    wanted = [word for at in range(40) for word in ("/parts", "-o", str(tmp_path / str(at)))]
    curl("--parallel", "--parallel-max", "20", *wanted)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {BODY}


# ---- Node ---------------------------------------------------------------------------------------

NODE_PROGRAM = """
const http = require('http'), crypto = require('crypto');
const url = process.argv[1], body = Buffer.alloc(1000000, 'netpoll ');
const agent = new http.Agent({keepAlive: true, maxSockets: 4});
const sockets = new Set();

const ask = (path, method, data) => new Promise((done, failed) => {
  const request = http.request(url + path, {agent, method}, (answer) => {
    sockets.add(answer.headers['x-client']);
    const parts = [];
    answer.on('data', (part) => parts.push(part));
    answer.on('end', () => done([answer.statusCode, Buffer.concat(parts)]));
  });
  request.on('error', failed);
  if (data) { request.write(data.subarray(0, 10)); request.write(data.subarray(10)); }
  request.end();
});

(async () => {
  const found = await Promise.all(Array.from({length: 40}, () => ask('/', 'POST', body)));
  const sha = crypto.createHash('sha256').update(body).digest('hex');
  const all = found.every(([status, text]) => status === 200 && JSON.parse(text).sha256 === sha);
  const [, parts] = await ask('/parts', 'GET');
  let fetched = 0;
  for (let i = 0; i < 20; i++) {
    const answer = await fetch(url + '/', {method: 'POST', body});
    fetched += (await answer.json()).size === body.length;
  }
  const stream = await fetch(url + '/parts');
  let streamed = 0;
  for await (const part of stream.body) streamed += part.length;
  agent.destroy();
  console.log(JSON.stringify({all, parts: parts.length, sockets: sockets.size, fetched, streamed}));
  process.exit(0);
})();
"""


def test_node_with_keep_alive(url: str) -> None:
    found = json.loads(output_of(program("node"), "-e", NODE_PROGRAM, url))
    assert found.pop("sockets") <= 4
    assert found == {"all": True, "parts": len(BODY), "fetched": 20, "streamed": len(BODY)}


# ---- Python -------------------------------------------------------------------------------------


def test_httpx(url: str) -> None:
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=url) as client:
        for _ in range(5):
            answers = [
                client.post("/", content=BODY),
                client.post("/", content=iter([BODY[:5], BODY[5:]])),
            ]
            assert [answer.json() for answer in answers] == [WHOLE] * 2
            assert client.get("/parts").content == BODY
            assert client.head("/large").content == b""
            assert client.post("/refuse", content=BODY).status_code == 403


def test_aiohttp(url: str) -> None:
    aiohttp = pytest.importorskip("aiohttp")

    async def upload() -> Any:
        for at in range(0, len(BODY), 50_000):
            yield BODY[at : at + 50_000]

    async def main() -> None:
        async with aiohttp.ClientSession(url) as session:
            for data in (BODY, upload()):
                async with session.post("/", data=data, expect100=True) as answer:
                    assert await answer.json() == WHOLE
            got = await asyncio.gather(*[session.get("/parts") for _ in range(10)])
            assert {await answer.read() for answer in got} == {BODY}

    asyncio.run(main())


def test_requests(url: str) -> None:
    requests = pytest.importorskip("requests")
    with requests.Session() as session:
        for _ in range(3):
            assert session.post(url, data=BODY).json() == WHOLE
            assert session.post(url, data=iter([BODY[:9], BODY[9:]])).json() == WHOLE
            assert session.get(f"{url}/parts").content == BODY
            assert session.head(f"{url}/large").headers["content-type"] == "application/json"


# ---- load, and torment --------------------------------------------------------------------------


def test_wrk(url: str) -> None:
    text = output_of(program("wrk"), "-t1", "-c16", "-d2s", url).decode()
    found = re.search(r"(\d+) requests in", text)
    assert found and int(found[1]) > 100, text
    assert "Non-2xx" not in text
    assert "Socket errors" not in text


def test_h2load(url: str) -> None:
    text = output_of(program("h2load"), "--h1", "-n2000", "-c10", "-m4", f"{url}/").decode()
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in text
    assert "status codes: 2000 2xx" in text


@pytest.mark.parametrize("kind", ["-H", "-B", "-X"])
@pytest.mark.timeout(120)
def test_slowhttptest(http_serving: HttpServing, kind: str, tmp_path: pathlib.Path) -> None:
    """A hundred peers that send heads or bodies byte by byte, or read answers so. The others are
    served meanwhile, and the time-outs end the slow ones."""
    path = program("slowhttptest")
    limits = http.HttpLimits(head_timeout_s=1, stall_timeout_s=1)
    server = http_serving(app, lifespan="off", limits=limits)
    url = f"http://127.0.0.1:{server.port}/large"
    slow = {
        "-H": ["-i", "3"],
        "-B": ["-i", "3"],
        "-X": ["-n", "3", "-z", "1", "-w", "1", "-y", "2"],
    }
    command = [path, kind, "-c", "100", "-r", "100", "-l", "8", "-u", url, *slow[kind]]
    good = http_serving.client()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tmp_path) as child:
        try:
            wait_for(lambda: server.stats()["accepted"] > 50, 20)
            for _ in range(20):
                assert good.ask("/large").body == BODY
            wait_for(lambda: server.stats()["connections"] <= 1, 30)
            assert good.ask().status == 200
        finally:
            child.kill()
