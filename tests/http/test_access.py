"""What a server adds to answers, and what it writes down of them: the access log."""

import io
import json
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netpoll import http
from netpoll._http.access import LogFile
from tests.http.conftest import HttpServing
from tests.server.conftest import wait_for


def test_headers_of_each_answer(http_serving: HttpServing) -> None:
    http_serving(lambda request: b"x" * 10, headers=[("X-One", "1"), ("x-two", "\u00e9")])
    client = http_serving.client()
    for method in ("GET", "HEAD"):
        answer = client.ask("/", method)
        assert (answer.header("x-one"), answer.header("x-two")) == ("1", "\u00e9")
    for headers in ([("x y", "1")], [("x", "1\r\ny: 2")], [("Content-Length", "1")]):
        with pytest.raises(ValueError, match=r"\w"):
            http.Server(hello, "127.0.0.1", 0, headers=headers).start()


def hello(request: http.Request) -> bytes:
    return b"hello"


def test_what_is_logged(http_serving: HttpServing, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    results: dict[str, Callable[[], Any]] = {
        "/body": lambda: b"12345",
        "/large": lambda: b"x" * 100_000,
        "/parts": lambda: http.Response([b"a", b"bc"], 201),
        "/file": lambda: http.Response(tmp_path / "file"),
        "/fails": lambda: 1 / 0,
    }
    log = io.StringIO()
    server = http_serving(lambda request: results[request.path](), access_log=log)
    client = http_serving.client()
    for path in ("/body", "/large", "/parts", "/file"):
        client.ask(path)
    client.ask("/body", "HEAD")
    client.ask("/body?query", "POST", b"abc")
    wait_for(lambda: log.getvalue().count("\n") == 6)
    client.ask("/fails")
    server.close()
    lines = [line.partition("] ")[2] for line in log.getvalue().splitlines()]
    assert lines == [
        '"GET /body HTTP/1.1" 200 5',
        '"GET /large HTTP/1.1" 200 100000',
        '"GET /parts HTTP/1.1" 201 3',
        '"GET /file HTTP/1.1" 200 5000',
        '"HEAD /body HTTP/1.1" 200 0',
        '"POST /body?query HTTP/1.1" 200 5',
        '"GET /fails HTTP/1.1" 500 21',
    ]
    assert all(line.startswith("127.0.0.1 - - [") for line in log.getvalue().splitlines())


def test_what_a_proxy_says_is_one_word(http_serving: HttpServing) -> None:
    log = io.StringIO()
    server = http_serving(hello, access_log=log, forwarded_from="*")
    said = '10.0.0.1 - root [now] "GET / HTTP/1.1" 200 5'
    http_serving.client().ask("/", X_Forwarded_For=f"{said}, 10.0.0.2")
    server.close()
    (line,) = log.getvalue().splitlines()
    assert line.startswith(r"10.0.0.1\x20-\x20root\x20[now]\x20\"GET")
    assert line.split(" ")[1:3] == ["-", "-"]


# ---- formats ------------------------------------------------------------------------------------


def test_formats(http_serving: HttpServing, tmp_path: Path) -> None:
    paths = {form: tmp_path / form for form in ("common", "combined", "json")}
    for form, path in paths.items():
        server = http_serving(hello, access_log=path, access_log_format=form)
        client = http_serving.client()
        agent, referer = 'a "quoted" \\ \u00e9', "http://x/"
        client.send(
            f"GET /a%20b?c HTTP/1.1\r\nhost: x\r\nuser-agent: {agent}\r\n"
            f"referer: {referer}\r\n\r\n".encode("latin-1")
        )
        client.answer()
        client.send(b"GET /plain HTTP/1.0\r\n\r\n")
        client.rest()
        server.close()
    combined = paths["combined"].read_text().splitlines()
    ends = [line.partition("] ")[2] for line in combined]
    assert ends == [
        r'"GET /a%20b?c HTTP/1.1" 200 5 "http://x/" "a \"quoted\" \\ \xe9"',
        '"GET /plain HTTP/1.0" 200 5 "-" "-"',
    ]
    common = [line.partition("] ")[2] for line in paths["common"].read_text().splitlines()]
    assert common == [end.rpartition(" 5")[0] + " 5" for end in ends]
    first, second = map(json.loads, paths["json"].read_text().splitlines())
    assert 0 <= first.pop("milliseconds") < 10_000
    assert first.pop("time")[10::9] == "TZ"
    assert first == {
        "peer": "127.0.0.1",
        "method": "GET",
        "target": "/a%20b?c",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 5,
        "referer": referer,
        "user_agent": agent,
    }
    assert second["referer"] is second["user_agent"] is None
    with pytest.raises(ValueError, match="access_log_format"):
        http.Server(hello, "127.0.0.1", 0, access_log_format="other")


def test_refused_and_lost_requests_are_logged(http_serving: HttpServing, tmp_path: Path) -> None:
    begun, gate = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/wait":
            begun.set()
            gate.wait(20)
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [b"ok"]

    limits = http.HttpLimits(
        body_max_bytes=10, head_max_bytes=1000, line_max_bytes=100, head_timeout_s=1
    )
    log = tmp_path / "log"
    server = http_serving(app, access_log=log, limits=limits)
    statuses = []
    for request in (
        b"GET / HTTP/1.1\r\nhost: x\r\nbad name: x\r\n\r\n",
        b"POST /large HTTP/1.1\r\nhost: x\r\ncontent-length: 11\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"x" * 1000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /chunks HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nxyz",
        b"GET /late HTTP/1.1\r\nho",
    ):
        client = http_serving.client()
        client.send(request)
        answer = client.answer()
        statuses.append((answer.status, len(answer.body)))
        client.close()
    lost = http_serving.client()
    lost.send(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
    assert begun.wait(20)
    lost.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    lost.close()
    wait_for(lambda: log.read_text().count("\n") == 7)
    gate.set()
    server.close()
    assert [status for status, _ in statuses] == [400, 413, 431, 414, 400, 408]
    ends = [line.partition("] ")[2] for line in log.read_text().splitlines()]
    wanted = [f'"-" {status} {size}' for status, size in statuses]
    wanted[4] = f'"GET /chunks HTTP/1.1" 400 {statuses[4][1]}'
    assert ends[:6] == wanted
    assert ends[6] == '"GET /wait HTTP/1.1" 499 0'


# ---- the file -----------------------------------------------------------------------------------


def test_the_log_goes_on_in_a_new_file(http_serving: HttpServing, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    server = http_serving(hello, access_log=log)
    client = http_serving.client()
    client.ask("/one")
    wait_for(lambda: "/one" in log.read_text())
    log.rename(tmp_path / "old")
    server.reopen_access_log()
    client.ask("/two")
    wait_for(lambda: "/two" in log.read_text())
    assert (tmp_path / "old").read_text().startswith("before\n127.0.0.1")
    assert "/two" not in (tmp_path / "old").read_text()
    (tmp_path / "old").unlink()
    log.rename(tmp_path / "old")
    log.mkdir()
    with pytest.raises(OSError, match="log"):
        server.reopen_access_log()
    client.ask("/three")
    wait_for(lambda: "/three" in (tmp_path / "old").read_text())


def test_a_log_that_cannot_be_opened(http_serving: HttpServing, tmp_path: Path) -> None:
    server = http.Server(hello, "127.0.0.1", 0, access_log=tmp_path / "no" / "log")
    with pytest.raises(FileNotFoundError):
        server.start()


def test_a_full_disk(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.symlink_to("/dev/full")
    server = http_serving(hello, access_log=log)
    client = http_serving.client()
    for _ in range(600):  # notes are written before a second is over
        assert client.ask().body == b"hello"
    wait_for(lambda: errors_logged.records)
    assert client.ask().body == b"hello"
    server.close()
    assert [record.message.partition(":")[0] for record in errors_logged.records] == [
        "the access log cannot be written"
    ]


def test_a_disk_with_room_again(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    class Disk(io.StringIO):
        is_full = True

        def write(self, text: str) -> int:
            if self.is_full:
                raise OSError("no space")
            return super().write(text)

    log = Disk()
    http_serving(hello, access_log=log)
    client = http_serving.client()
    client.ask("/lost")
    wait_for(lambda: errors_logged.records)
    log.is_full = False
    client.ask("/kept")
    wait_for(lambda: len(errors_logged.records) == 2)
    assert "1 requests are lost" in errors_logged.records[1].message
    assert "/kept" in log.getvalue()


def test_lines_are_whole_after_a_torn_write(tmp_path: Path) -> None:
    file = LogFile(str(tmp_path / "log"))
    taken = [3, 0]

    class Short:
        def write(self, data: Any) -> int:
            if not taken:
                return os.write(fd, data)
            size = taken.pop(0)
            if size == 0:
                raise OSError("no space")
            return os.write(fd, data[:size])

        def close(self) -> None:
            os.close(fd)

    real, file._file = file._file, Short()  # type: ignore[assignment]
    fd = os.dup(real.fileno())
    real.close()
    with pytest.raises(OSError, match="no space"):
        file.write("one\ntwo\n")
    file.write("three\n")
    file.write("four\n")
    file.close()
    assert (tmp_path / "log").read_text() == "one\nthree\nfour\n"


def test_workers_share_a_log(http_serving: HttpServing, tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = http_serving(hello, access_log=log, workers=2)

    def talk() -> None:
        client = http_serving.client()
        for _ in range(1000):
            client.ask()

    talkers = [threading.Thread(target=talk) for _ in range(4)]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join()
    server.close()
    lines = log.read_text().splitlines()
    assert len(lines) == 4000
    assert all(line.endswith('"GET / HTTP/1.1" 200 5') for line in lines)
