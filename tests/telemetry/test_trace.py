"""`netpoll trace`: the kernel's tracepoints of a ring, as text and in Chrome's format."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import netpoll
from netpoll._telemetry import recording, trace
from netpoll.probe import choose_backend

SAMPLE = (Path(__file__).parent / "ring.txt").read_text()  # as the kernel prints it


def sample() -> recording.Recording:
    return recording.parse(SAMPLE.splitlines())


def test_lines_of_the_kernel() -> None:
    found = sample()
    assert (len(found.events), found.lost) == (10, 3)
    first, last = found.events[0], found.events[-1]
    assert (first.task, first.tid, first.name) == ("netpoll-se-0", 75, "submit_req")
    assert first.facts == {
        "ring": "00a1",
        "req": "00b1",
        "user_data": "0x1",
        "opcode": "ACCEPT",
        "flags": "0x0",
        "sq_thread": "0",
    }
    assert (last.task, last.tid) == ("iou-wrk-75", 76)
    assert last.facts["sq size"] == "8"
    assert found.events[6].facts["result"] == "-32"


def test_text() -> None:
    lines = list(trace.text(sample()))
    assert lines[0] == ("      0.000 ms       75  submit_req         opcode=ACCEPT user_data=0x1")
    assert lines[3].endswith("complete           result=8 user_data=0x1 cflags=0x2")
    assert lines[10:12] == ["          3  submit_req", "          3  complete"]
    assert lines[-1] == "          3  events are lost: take fewer seconds"


def test_chromes_format() -> None:
    found = list(trace.chrome(sample().events, 75))
    phases = [(one["ph"], one["name"]) for one in found]
    assert phases == [
        *(("M", "thread_name"), ("M", "thread_name")),
        *(("b", "ACCEPT"), ("i", "file_get"), ("X", "wait"), ("n", "ACCEPT")),
        *(("i", "local_work_run"), ("b", "SEND"), ("e", "SEND"), ("n", "SEND")),
        *(("i", "complete"), ("i", "create")),
    ]
    [wait] = [one for one in found if one["ph"] == "X"]
    assert (wait["ts"], wait["dur"]) == (10000010.0, 500.0)
    begun, ended, _ = [one for one in found if one["name"] == "SEND"]
    assert begun["id"] == ended["id"] == "00a1/0x2" and begun["ts"] < ended["ts"]


# ---- the sentences ------------------------------------------------------------------------------


def run(capsys: Any, *arguments: str) -> str:
    assert trace.main(arguments) == 1
    error: str = capsys.readouterr().err
    return error


def test_what_is_missing_is_said(
    capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = str(os.getpid())
    assert "there is no process" in run(capsys, str(2**22 + 1))
    monkeypatch.setattr(recording, "PLACES", (tmp_path,))
    assert "tracefs cannot be seen" in run(capsys, pid)
    (tmp_path / "instances").mkdir()
    assert "no tracepoints of io_uring" in run(capsys, pid)
    (tmp_path / "events" / "io_uring").mkdir(parents=True)

    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert "tracing is root's, or CAP_SYS_ADMIN's (Permission denied): use sudo" in run(capsys, pid)


# ---- a real ring --------------------------------------------------------------------------------


@pytest.fixture
def instances() -> list[str]:
    """Those before the test; skipped where nothing can be traced."""
    folder = next((place / "instances" for place in recording.PLACES if place.is_dir()), None)
    if folder is None or not os.access(folder, os.W_OK):
        pytest.skip("tracing needs root and tracefs")
    if not (folder.parent / "events" / "io_uring").is_dir():
        pytest.skip("this kernel has no tracepoints of io_uring")
    try:
        choose_backend("uring")
    except netpoll.BackendUnavailableError as exc:
        pytest.skip(str(exc))
    return sorted(os.listdir(folder))


def traced(*options: str, cwd: Path) -> str:
    """While an echo server of this process is talked to."""
    ended = threading.Event()

    def echo(conn: netpoll.Connection) -> None:
        conn.forward(conn.lease())

    def talk() -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            while not ended.wait(0.002):
                sock.sendall(b"hello")
                assert sock.recv(100) == b"hello"

    with netpoll.Server(echo, "127.0.0.1", 0, backend="uring") as server:
        talking = threading.Thread(target=talk)
        talking.start()
        try:
            command = [sys.executable, "-m", "netpoll", "trace", str(os.getpid())]
            command += ["--seconds", "0.3", *options]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd)
        finally:
            ended.set()
            talking.join()
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_server_that_answers(instances: list[str], tmp_path: Path) -> None:
    lines = traced(cwd=tmp_path).splitlines()
    assert any("submit_req         opcode=SEND" in line for line in lines)
    assert any(" complete           result=5 " in line for line in lines)
    assert any(" cqring_wait        min_events=1" in line for line in lines)
    folder = next(place / "instances" for place in recording.PLACES if place.is_dir())
    assert sorted(os.listdir(folder)) == instances


def test_for_perfetto(instances: list[str], tmp_path: Path) -> None:
    said = traced("--chrome", "ring.json", cwd=tmp_path)
    assert said.endswith("ui.perfetto.dev\n")
    events = json.loads((tmp_path / "ring.json").read_text())["traceEvents"]
    assert {one["ph"] for one in events if one["name"] == "SEND"} == {"n"}  # they all succeed
    waits = [one["dur"] for one in events if one["ph"] == "X"]
    assert waits and all(0 <= one < 60e6 for one in waits)
    assert [one["ts"] for one in events if one["ph"] == "i"]
