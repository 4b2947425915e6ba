"""`bench http`: its load finds out servers that answer wrongly; its floor, its applications and the
command itself."""

import argparse
import asyncio
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

pytest.importorskip("rich")
pytest.importorskip("plotly")
pytest.importorskip("psutil")

from netpoll.bench import _native, answers, cli
from netpoll.bench.cores import choose_pinning
from netpoll.bench.errors import ArmUnavailable
from netpoll.bench.httparms import HTTP_ARMS
from netpoll.bench.httpworks import ACCEPTED, UPGRADE, WORKS, frames, get, post
from netpoll.bench.kind import Terms
from netpoll.bench.loaded import USUAL_WINDOW_S
from netpoll.bench.programs import asgi, floor_http, wsgi
from netpoll.bench.registry import all_kinds

from ..support import SLOWNESS
from .conftest import Handler, exactly, floor, scripted

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
QUESTION = get("/hello")
TOLD = [(QUESTION, b"hello")]


def answering(answer: bytes, question_bytes: int = len(QUESTION)) -> Handler:
    """A server whose every answer is the same."""

    def serve(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while len(exactly(client, question_bytes)) == question_bytes:
            client.sendall(answer)

    return serve


# ---- the load ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"hello",
        b"HTTP/1.1 200 \r\ncontent-length:5 \r\nx: y\r\n\r\nhello",
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"1;x=y\r\nh\r\n04\r\nello\r\n0\r\na: b\r\nc: d\r\n\r\n",
    ],
)
def test_a_right_answer_counts(answer: bytes) -> None:
    with scripted(answering(answer), 3) as address:
        with _native.HttpLoad(address, 3, TOLD) as load:
            result = load.run(0.05)
    assert result["requests_all"] >= 3
    assert result["checked_bytes"] == 5 * result["requests_all"]
    assert sum(count for _, count in result["histogram"]) == result["requests_all"]


def test_an_answer_may_come_byte_by_byte() -> None:
    answer = CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\nx: y\r\n\r\n"

    def trickle(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while len(exactly(client, len(QUESTION))) == len(QUESTION):
            for byte in answer:
                client.sendall(bytes([byte]))
                time.sleep(0.0005)

    with scripted(trickle) as address, _native.HttpLoad(address, 1, TOLD) as load:
        assert load.run(0)["requests_all"] == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello", "another status than 200"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", "not HTTP/1.1"),
        (HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n", "not HTTP/1.1"),
        (HEAD[:-2] + b"x: " + b"x" * 9000, "not HTTP/1.1"),  # where does it end?
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell", "wrong length"),
        (CHUNKED + b"4\r\nhell\r\n0\r\n\r\n", "wrong length"),
        (CHUNKED + b"6\r\nhello!\r\n0\r\n\r\n", "wrong length"),
        (CHUNKED + b"g\r\nhello\r\n0\r\n\r\n", "not HTTP/1.1"),
        (CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n", "not HTTP/1.1"),
        (HEAD + b"hallo", "wrong bytes"),
        (HEAD + b"hello!", "more than it was asked for"),
        (HEAD + b"hello" + HEAD + b"hello", "more than it was asked for"),
    ],
)
def test_a_wrong_answer_is_a_fault(answer: bytes, words: str) -> None:
    with scripted(answering(answer)) as address, _native.HttpLoad(address, 1, TOLD) as load:
        with pytest.raises(_native.LoadError, match=words):
            load.run(0.05)
        with pytest.raises(_native.LoadError, match=words):  # nothing more can be had from it
            load.run(0.05)


def test_a_short_answer_is_a_fault() -> None:
    def half(client: socket.socket) -> None:
        exactly(client, len(QUESTION))
        client.sendall(HEAD + b"he")

    with scripted(half) as address, _native.HttpLoad(address, 1, TOLD) as load:
        with pytest.raises(_native.LoadError, match="closed a connection"):
            load.run(0.05)


def test_a_silent_server_is_a_fault() -> None:
    with scripted(answering(HEAD)) as address:
        with _native.HttpLoad(address, 1, TOLD, stall_s=0.2) as load:
            with pytest.raises(_native.LoadError, match="stopped answering"):
                load.run(0.05)


def test_an_answer_before_the_request_is_over_is_a_fault() -> None:
    request = post("/upload", bytes(16 << 20))  # more than the buffers of two sockets hold
    found_out = threading.Event()

    def hasty(client: socket.socket) -> None:
        client.sendall(HEAD + b"hello")
        found_out.wait(10 * SLOWNESS)  # reads nothing, so the request cannot end before

    with scripted(hasty) as address:
        with _native.HttpLoad(address, 1, [(request, b"hello")]) as load:
            with pytest.raises(_native.LoadError, match="more than it was asked for"):
                load.run(0.05)
        found_out.set()


def test_mixed_up_answers_are_found_out() -> None:
    """Of one connection, in a batch; and of two connections, which ask for different things."""
    one, other = HEAD + b"hello", HEAD + b"again"
    asked = [(get("/hello"), b"hello"), (get("/again"), b"again")]
    both = len(asked[0][0]) * 2
    with scripted(answering(one + other, both)) as address:
        with _native.HttpLoad(address, 1, asked, depth=2) as load:
            assert load.run(0.05)["requests_all"] >= 2
    with scripted(answering(other + one, both)) as address:
        with _native.HttpLoad(address, 1, asked, depth=2) as load:
            with pytest.raises(_native.LoadError, match="wrong bytes"):
                load.run(0.05)
    with scripted(answering(one), 2) as address:
        with _native.HttpLoad(address, 2, asked) as load:
            with pytest.raises(_native.LoadError, match=r"wrong bytes \(connection 1\)"):
                load.run(0)


def test_a_rate_is_kept() -> None:
    with scripted(answering(HEAD + b"hello"), 4) as address:
        with _native.HttpLoad(address, 4, TOLD) as load:
            result = load.run(0.4, 200)
    assert 78 <= result["requests_all"] <= 80  # each that was due in the window, and no more


def test_latencies_count_from_when_a_request_was_due() -> None:
    """One long answer delays those behind it, which a closed loop does not see."""
    pause_s = 0.2

    def sleepy(client: socket.socket) -> None:
        first = True
        while len(exactly(client, len(QUESTION))) == len(QUESTION):
            if first:
                time.sleep(pause_s)
            first = False
            client.sendall(HEAD + b"hello")

    with scripted(sleepy) as address, _native.HttpLoad(address, 1, TOLD) as load:
        result = load.run(0.4, 100)
    late = sum(count for top_ns, count in result["histogram"] if top_ns > pause_s / 4 * 1e9)
    assert late >= 10
    assert 38 <= result["requests_all"] <= 40


def test_a_load_that_makes_no_sense_is_refused() -> None:
    with scripted(answering(HEAD), 0) as address:
        for connections, exchanges, more in (
            (0, TOLD, {}),
            (1, [], {}),
            (1, TOLD * 17, {}),
            (1, [(QUESTION, b"")], {}),
            (1, TOLD, {"depth": 0}),
            (1, TOLD, {"depth": 1000}),
        ):
            with pytest.raises(ValueError):
                _native.HttpLoad(address, connections, exchanges, **more)


# ---- WebSocket --------------------------------------------------------------------------------


def upgrading(answer: bytes, more: Callable[[socket.socket], None]) -> Callable[..., None]:
    def serve(client: socket.socket) -> None:
        exactly(client, len(UPGRADE))
        client.sendall(answer)
        more(client)

    return serve


SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + ACCEPTED + b"\r\n\r\n"
REFUSED = b"HTTP/1.1 400 Bad Request\r\nSec-WebSocket-Accept: " + ACCEPTED + b"\r\n\r\n"


def test_a_websocket_echoes() -> None:
    asked, told = frames(0)
    load = partial(_native.HttpLoad, upgrade=(UPGRADE, ACCEPTED))
    with scripted(upgrading(SWITCHED, answering(told, len(asked)))) as address:
        with load(address, 1, [frames(0)]) as websockets:
            assert websockets.run(0.05)["requests_all"] >= 1
    with scripted(upgrading(SWITCHED, answering(told, len(asked)))) as address:
        with load(address, 1, [frames(1)]) as websockets:
            with pytest.raises(_native.LoadError, match="wrong bytes"):
                websockets.run(0.05)
    for refusal in (REFUSED, SWITCHED.replace(ACCEPTED, b"x")):
        with scripted(upgrading(refusal, lambda client: None)) as address:
            with pytest.raises(_native.LoadError, match="does not open a WebSocket"):
                load(address, 1, [frames(0)])


# ---- the floor --------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[tuple[str, int], bytes]]:
    """The floor's address, and what is in its file."""
    content = answers.write_files(tmp_path)
    with (tmp_path / "file").open("rb") as file:
        serve = partial(_native.floor_http, routes=floor_http.routes(file))
        with floor(serve) as address:
            yield address, content


def plain_works(file: bytes) -> list[tuple[str, bytes, bytes]]:
    """(work, request, body of the answer) of the works that every server has."""
    return [
        (work.name, *exchange)
        for work in WORKS.values()
        if "wsgi" in work.interfaces and not work.is_tls
        for exchange in work.exchanges(file)
    ]


def test_the_floor_answers_every_work(served: tuple[tuple[str, int], bytes]) -> None:
    address, content = served
    for work in WORKS.values():
        if "-" in work.interfaces:
            with _native.HttpLoad(address, 8, work.exchanges(content), depth=work.depth) as load:
                assert load.run(0.02)["requests_all"] >= 8 * work.depth, work.name


def talk(address: tuple[str, int], data: bytes, pause_s: float = 0.0) -> bytes:
    """Everything that comes back until the floor ends the connection."""
    with socket.create_connection(address, timeout=10 * SLOWNESS) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in [data] if not pause_s else [bytes([byte]) for byte in data]:
            sock.sendall(part)
            time.sleep(pause_s)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(1 << 20):
                received += part
        return received


LAST = b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (LAST, b"200"),
        (LAST.replace(b"/hello", b"/nowhere"), b"404"),
        (b"GET /hello HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /hello HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", b"400"),
        (b"GET /hello HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", b"400"),
        (b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"PUT /hello HTTP/1.1\r\nHost: a\r\n\r\n", b"501"),
        (b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"501"),
        (b"GET /hello HTTP/1.0\r\nHost: a\r\n\r\n", b"505"),
        (b"GET /hello HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000, b"431"),
    ],
)
def test_the_floor_is_a_server_of_http(
    served: tuple[tuple[str, int], bytes], request_: bytes, status: bytes
) -> None:
    received = talk(served[0], request_)
    assert received.startswith(b"HTTP/1.1 " + status)
    assert received.count(b"HTTP/1.1") == 1


def test_the_floor_reads_a_request_in_pieces(served: tuple[tuple[str, int], bytes]) -> None:
    last = LAST.replace(b"GET /hello", b"POST /upload").replace(
        b"\r\n\r\n", b"\r\nContent-Length: 7\r\n\r\n1234567"
    )
    received = talk(served[0], QUESTION + last, pause_s=0.0005)
    assert received.count(b"HTTP/1.1 200") == 2
    assert received.endswith(b"\r\n\r\n7")


def test_the_floor_waits_for_a_slow_reader(served: tuple[tuple[str, int], bytes]) -> None:
    """Answers of all sorts in a row, more than the socket holds: none is lost or out of order."""
    address, content = served
    works = plain_works(content)
    asked = [(request, body) for _, request, body in works if request.startswith(b"GET")] * 3
    assert sum(len(body) for _, body in asked) > 3 << 20
    with socket.create_connection(address, timeout=20 * SLOWNESS) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        sock.sendall(b"".join(request for request, _ in asked))
        time.sleep(0.1)
        stream = sock.makefile("rb")
        for _, body in asked:
            length = 0
            while line := stream.readline().strip():
                name, _, value = line.lower().partition(b":")
                length = int(value) if name == b"content-length" else length
            assert stream.read(length) == body
        stream.close()


# ---- the applications -------------------------------------------------------------------------


def parted(request: bytes) -> tuple[str, str, bytes]:
    """Method, path and body."""
    head, _, body = request.partition(b"\r\n\r\n")
    method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
    return method, path, body


def test_the_wsgi_application_answers_every_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = answers.write_files(tmp_path)
    monkeypatch.setenv(answers.FOLDER_VARIABLE, str(tmp_path))
    for work, request, expected in plain_works(content):
        method, path, body = parted(request)
        environ: dict = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }
        setup_testing_defaults(environ)
        started = []

        def start(status: str, headers: list, exc_info: object = None, into: list = started):
            into.append((status, dict(headers)))
            return lambda data: None

        answer = validator(wsgi.app)(environ, start)
        assert b"".join(answer) == expected, work
        answer.close()
        assert started[0][0] == "200 OK"
        assert started[0][1]["Content-Length"] == str(len(expected))


@pytest.mark.parametrize("extensions", [None, {"http.response.pathsend": {}}])
def test_the_asgi_application_answers_every_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extensions: dict | None
) -> None:
    content = answers.write_files(tmp_path)
    monkeypatch.setenv(answers.FOLDER_VARIABLE, str(tmp_path))
    for work, request, expected in plain_works(content):
        method, path, body = parted(request)
        scope = {"type": "http", "method": method, "path": path, "extensions": extensions}
        sent = []

        async def receive(body: bytes = body) -> dict:
            return {"type": "http.request", "body": body}

        async def send(event: dict, into: list = sent) -> None:
            into.append(event)

        asyncio.run(asgi.app(scope, receive, send))
        start, end = sent
        assert start["status"] == 200
        assert (b"content-length", str(len(expected)).encode()) in start["headers"]
        if extensions and work == "file":
            assert Path(end["path"]).read_bytes() == expected
        else:
            assert end["body"] == expected


# ---- the arms ---------------------------------------------------------------------------------


def test_an_arm_says_what_it_lacks() -> None:
    arm = HTTP_ARMS["uvicorn-asyncio"]
    for changed, words in (
        (replace(arm, module="no_such_module", distribution="nope"), "pip install nope"),
        (replace(arm, module="json", needs=("no_such_module",)), "no_such_module is not installed"),
        (replace(arm, command=("no-such-program",)), "no program 'no-such-program'"),
    ):
        with pytest.raises(ArmUnavailable, match=words):
            changed.check()


def test_who_can_be_asked_for_what() -> None:
    can = {
        name: {work.name for work in WORKS.values() if arm.can(work)}
        for name, arm in HTTP_ARMS.items()
    }
    everywhere = {"hello", "json", "upload", "download", "file", "pipelined"}
    assert can["uvicorn-asyncio"] == set(WORKS)
    assert can["floor"] == everywhere | {"static", "starlette", "fastapi"}
    assert can["granian-wsgi"] == everywhere | {"tls"}
    assert can["node"] == everywhere | {"static", "tls"}
    assert can["netpoll-raw-uring"] == everywhere | {"static", "tls", "websocket"}
    assert can["netpoll-asgi-epoll"] == set(WORKS)
    assert can["socketify"] == set(WORKS) - {"tls"}
    assert can["fastpysgi-asgi"] == set(WORKS) - {"websocket"}


def test_a_command_has_all_its_places_filled(tmp_path: Path) -> None:
    for arm in HTTP_ARMS.values():
        for work in filter(arm.can, WORKS.values()):
            words = arm.serving(work, tmp_path).words(8000)
            assert "8000" in " ".join(words)
            assert not any("{" in word for word in words)


# ---- the command ------------------------------------------------------------------------------


def run_http(folder: Path, *options: str, code: int = 0) -> dict:
    json_path, html_path = folder / "http.json", folder / "http.html"
    arguments = ["http", *options, "--json", str(json_path), "--html", str(html_path)]
    assert cli.main(arguments) == code
    page = html_path.read_text()
    assert "<h1>HTTP servers under load</h1>" in page
    document: dict = json.loads(json_path.read_text())
    assert document["schema"] == "netpoll.bench.http/1"
    return document


def able(*names: str) -> str:
    """Those of the arms that are installed here."""
    there = []
    for name in names:
        with contextlib.suppress(ArmUnavailable):
            HTTP_ARMS[name].check()
            there.append(name)
    return ",".join(there)


def test_the_floor_and_a_peer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = able("uvicorn-asyncio") or able("node")
    if not peer:
        pytest.skip("there is neither uvicorn nor Node.js here")
    short = ("--rounds", "1", "--duration-s", "0.05", "--warmup-s", "0.02", "--connections", "4")
    arms, works = f"floor,{peer}", ",".join(WORKS)
    document = run_http(tmp_path, "--quick", "--arms", arms, "--works", works, *short)
    rows = {(row["work"], row["arm"]): row for row in document["rows"]}
    there = set(document["settings"]["works"])
    assert there | set(document["settings"]["skipped"]) == set(WORKS)
    assert {work for work, arm in rows if arm == peer} == {
        name for name in there if HTTP_ARMS[peer].can(WORKS[name])
    }
    for (work, arm), row in rows.items():
        assert row["fault"] is None
        assert row["rounds"] == 1
        assert row["cpu_us"]["median"] > 0
        assert row["latency_us"]["p50"] > 0
        if "-" in WORKS[work].interfaces:
            assert (row["cpu_vs_floor"] == 1) == (arm == "floor")
    assert "×floor" in capsys.readouterr().out


def test_a_liar_gets_a_sentence_and_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server whose answer is one byte short of what the work is."""
    code = (
        "import http.server, sys\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    protocol_version = 'HTTP/1.1'\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.send_header('Content-Length', '12')\n"
        "        self.end_headers()\n"
        "        self.wfile.write(b'Hello, world')\n"
        "    def log_message(self, *args): pass\n"
        "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()"
    )
    liar = replace(HTTP_ARMS["node"], name="liar", command=("{python}", "-c", code, "{port}"))
    monkeypatch.setitem(HTTP_ARMS, "liar", liar)
    short = ("--rounds", "1", "--duration-s", "0.05", "--warmup-s", "0", "--paced", "0")
    short += ("--connections", "4")
    document = run_http(tmp_path, "--quick", "--arms", "floor,liar", *short, code=1)
    rows = {row["arm"]: row for row in document["rows"]}
    assert rows["floor"]["rounds"] == 1
    assert rows["liar"]["rounds"] == 0
    assert "a body of a wrong length" in rows["liar"]["fault"]
    assert "a body of a wrong length" in capsys.readouterr().out


def test_a_quick_run_has_room_for_both_windows() -> None:
    kind = all_kinds()["http"]
    parser = argparse.ArgumentParser()
    kind.add_options(parser.add_argument_group())
    options = parser.parse_args(["--works", "hello,json"])
    options.quick = True
    terms = Terms(tuple(HTTP_ARMS), choose_pinning(), 2, 100.0)
    plan = kind.plan(options, terms)
    options.paced = 0
    single = kind.plan(options, terms)
    for each in (plan, single):
        assert 85 < replace(each, limit_s=None).expected_s < 95
    assert single.duration_s == pytest.approx(min(2 * plan.duration_s, USUAL_WINDOW_S))


def test_a_work_that_nobody_can_do_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["http", "--arms", "floor", "--works", "websocket", "--no-files"]) == 2
    assert "none of these servers can be asked for that" in capsys.readouterr().err


def test_answering_is_any_answer() -> None:
    from netpoll.bench.kinds.http import answers as answers_there

    with scripted(answering(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", 1)) as address:
        assert answers_there(False, address)
    assert not answers_there(False, address)  # nobody is there any more
