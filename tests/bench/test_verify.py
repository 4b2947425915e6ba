"""`bench verify`: other loads, what they say, and what is made of it."""

import json
import shutil
import socket
from pathlib import Path

import pytest

pytest.importorskip("rich")
pytest.importorskip("plotly")
pytest.importorskip("psutil")

from netpoll.bench import cli, otherloads
from netpoll.bench.errors import ServerError
from netpoll.bench.kinds.verify import AGREES, DIFFERS, KIND, OF_LOAD, judged
from netpoll.bench.otherloads import ClosedLoop, Wrk, parse_wrk

from .conftest import FLOORS, Handler, exactly, floor, scripted

needs_closed_loop = pytest.mark.skipif(
    otherloads.why_no_closed_loop() is not None, reason=str(otherloads.why_no_closed_loop())
)
needs_wrk = pytest.mark.skipif(
    otherloads.why_no_wrk() is not None, reason=str(otherloads.why_no_wrk())
)
SIZE = 64


# ---- the closed loop --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := otherloads.why_no_closed_loop():
        pytest.skip(reason)
    with otherloads.compiled() as path:
        kept = tmp_path_factory.mktemp("program") / path.name
        shutil.copy(path, kept)
    return kept


@pytest.mark.parametrize(("connections", "size_bytes"), [(1, 1), (8, SIZE), (3, 300_000)])
def test_it_counts_what_is_answered(program: Path, connections: int, size_bytes: int) -> None:
    with floor(FLOORS["epoll"]) as address:
        assert isinstance(address, tuple)
        with ClosedLoop(program, address, connections, size_bytes) as load:
            for _ in range(2):
                found = load.run(0.1)
                assert 0 < found["requests"] <= found["requests_all"]
                assert found["requests_all"] <= found["requests"] + connections
                assert found["window_ns"] == 100_000_000 <= found["elapsed_ns"]
                assert found["checked_bytes"] == found["requests_all"] * size_bytes


def wrong_answer(client: socket.socket) -> None:
    while data := exactly(client, SIZE):
        client.sendall(bytes([data[0] ^ 1]) * SIZE)


def too_much(client: socket.socket) -> None:
    while data := exactly(client, SIZE):
        client.sendall(data * 2)


def goodbye(client: socket.socket) -> None:
    client.sendall(exactly(client, SIZE)[:5])


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (wrong_answer, "not what was sent"),
        (too_much, "not what was sent|without being asked"),
        (goodbye, "closed a connection|Connection reset"),
    ],
)
def test_a_server_that_is_wrong_is_told(program: Path, server: Handler, words: str) -> None:
    with scripted(server) as address, ClosedLoop(program, address, 1, SIZE) as load:
        with pytest.raises(ServerError, match=words):
            for _ in range(3):
                load.run(0.05)


def test_a_server_that_is_not_there(program: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
    with ClosedLoop(program, address, 1, SIZE) as load:
        with pytest.raises(ServerError, match="cannot connect"):
            load.run(0.05)


# ---- wrk --------------------------------------------------------------------------------------

SAID = """Running 1s test @ http://127.0.0.1:8080/hello
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.50ms    1.00ms   9.00ms   90.00%
  25000 requests in 1.00s, 3.00MB read
Requests/sec:  24950.10
Transfer/sec:      2.99MB
"""


def test_what_wrk_says_is_read() -> None:
    assert parse_wrk(SAID) == (25000, 24950.1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing that is understood"),
        (SAID.replace("24950.10", "0.00"), "nothing that is understood"),
        (SAID + "  Non-2xx or 3xx responses: 7\n", "Non-2xx or 3xx responses: 7"),
        (SAID + "  Socket errors: connect 0, read 3, write 0, timeout 0\n", "read 3"),
    ],
)
def test_what_wrk_says_of_faults_is_told(text: str, words: str) -> None:
    with pytest.raises(ServerError, match=words):
        parse_wrk(text)


@needs_wrk
def test_wrk_is_asked() -> None:
    def hello(client: socket.socket) -> None:
        while client.recv(4096):
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    # One connection more than it was told: it looks once whether the server is there.
    with scripted(hello, 3) as address:
        found = Wrk(address, 2, "/hello").run(1)
    assert found["requests"] == found["requests_all"] > 0
    assert 0.5e9 < found["window_ns"] <= found["elapsed_ns"]


# ---- the verdict ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "busy", "word"),
    [
        (1.0, None, AGREES),
        (0.91, None, AGREES),
        (1.09, {"harness": 0.5, "other": 1.0}, AGREES),
        (1.2, None, DIFFERS),
        (0.8, {"harness": 0.97, "other": 0.99}, DIFFERS),
        (0.8, {"harness": 0.97, "other": 0.6}, OF_LOAD),
    ],
)
def test_a_ratio_is_judged(found: float, busy: dict[str, float] | None, word: str) -> None:
    assert judged(found, busy) == word


def test_what_differs_is_a_failure() -> None:
    def row(arm: str, rate: str, cost: str) -> dict[str, object]:
        facts = {"arm": arm, "rounds": 3, "other_load": "wrk"}
        quantities = {"requests_per_s": rate, "cpu_us": cost}
        return facts | {key: {"ratio": 1.5, "verdict": word} for key, word in quantities.items()}

    rows = [row("a", AGREES, DIFFERS), row("b", OF_LOAD, AGREES), row("c", AGREES, AGREES)]
    (sentence,) = KIND.wrong({"rows": rows})
    assert sentence == "differs: a: server CPU per request is 1.50 of what wrk finds."
    assert KIND.wrong({"rows": rows[2:]}) == []
    (sentence,) = KIND.wrong({"rows": rows[1:2]})
    assert sentence.startswith("no rate can be judged")


@needs_closed_loop
@needs_wrk
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One server of each sort; whether the two loads agree is the machine's to say."""
    files = ["--json", str(tmp_path / "v.json"), "--html", str(tmp_path / "v.html")]
    arms = ["--arms", "floor-epoll,floor", "--rounds", "2", "--connections", "4"]
    code = cli.main(["verify", *arms, *files])
    document = json.loads((tmp_path / "v.json").read_text())
    assert document["schema"] == "netpoll.bench.verify/1"
    assert code == bool(KIND.wrong(document))
    rows = {row["arm"]: row for row in document["rows"]}
    assert {arm: row["other_load"] for arm, row in rows.items()} == {
        "floor-epoll": "C loop",
        "floor": "wrk",
    }
    for row in rows.values():
        assert (row["rounds"], row["fault"]) == (2, None)
        for key in ("requests_per_s", "cpu_us"):
            assert row[key]["harness"]["count"] == row[key]["other"]["count"] == 2
            assert 0.1 < row[key]["ratio"] < 10
        assert set(row["server_busy"]) == {"harness", "other"}
    loads = [sample["load"] for sample in document["samples"] if sample["arm"] == "floor"]
    assert sorted(loads) == ["harness", "harness", "wrk", "wrk"]
    assert "C loop" in capsys.readouterr().out


def test_what_is_missing_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netpoll.bench.kinds.verify.why_no_wrk", lambda: "there is no wrk here")
    monkeypatch.setattr("netpoll.bench.kinds.verify.why_no_closed_loop", lambda: None)
    facts = KIND.check(("floor-epoll", "floor"))
    assert facts["floor"] == {"unavailable": "there is no wrk here"}
    assert "unavailable" not in facts["floor-epoll"]
