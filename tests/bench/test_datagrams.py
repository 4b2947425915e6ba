"""Datagrams in the harness: the load judges them rightly, the floor passes, a run measures them."""

import socket
from pathlib import Path

import pytest

from netpoll.bench import _native, cells, cli, server
from netpoll.bench.arms import ARMS, LOOP_MODES, UDP_MODE, SocketArm
from netpoll.bench.cells import Entry
from netpoll.bench.document import read_json

from .conftest import Answer, scripted_datagrams, udp_floor

SIZE = 64


def load(address: object, connections: int, size_bytes: int = SIZE) -> _native.Load:
    return _native.Load(address, connections, size_bytes, datagrams=True, stall_s=0.3)


@pytest.mark.parametrize(
    ("connections", "size_bytes"), [(16, 1), (16, 64), (16, 1472), (2, 9000), (1, 65507)]
)
def test_the_floor_answers(connections: int, size_bytes: int) -> None:
    """As many at a time as the smallest receive buffer holds."""
    with udp_floor() as address, load(address, connections, size_bytes) as running:
        for _ in range(2):
            result = running.run(0.03)
            assert result["requests_all"] >= connections
            assert result["checked_bytes"] >= connections * min(size_bytes, 64)


def test_the_floor_answers_unix_datagrams(tmp_path: Path) -> None:
    with udp_floor(str(tmp_path / "echo")) as address, load(address, 8) as running:
        assert running.run(0.02)["requests_all"] >= 8


def test_no_time_is_one_datagram_per_socket() -> None:
    with udp_floor() as address, load(address, 5) as running:
        for _ in range(3):
            assert running.run(0)["requests_all"] == 5


def short(sock: socket.socket, data: bytes, sender: object) -> None:
    sock.sendto(data[:-1], sender)


def empty(sock: socket.socket, data: bytes, sender: object) -> None:
    sock.sendto(b"", sender)


def twice(sock: socket.socket, data: bytes, sender: object) -> None:
    sock.sendto(data, sender)
    sock.sendto(data, sender)


def longer(sock: socket.socket, data: bytes, sender: object) -> None:
    sock.sendto(data + b"!", sender)


def wrong(sock: socket.socket, data: bytes, sender: object) -> None:
    sock.sendto(data[:-1] + bytes([data[-1] ^ 1]), sender)


def silent(sock: socket.socket, data: bytes, sender: object) -> None:
    pass


LIARS = [
    (short, "other bytes"),
    (empty, "other bytes"),
    (twice, "bytes than it was sent"),  # too many, or those of the question before
    (longer, "more bytes"),
    (wrong, "other bytes"),
    (silent, "stopped answering"),
]


@pytest.mark.parametrize(("answer", "text"), LIARS, ids=[liar.__name__ for liar, _ in LIARS])
def test_a_server_that_lies_is_caught(answer: Answer, text: str) -> None:
    with (
        scripted_datagrams(answer) as address,
        load(address, 1) as running,
        pytest.raises(_native.LoadError, match=text),
    ):
        running.run(0.2)


def test_nobody_listens() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
    with load(address, 1) as running, pytest.raises(_native.LoadError, match="a connection broke"):
        running.run(0.2)


def test_a_datagram_has_a_largest_size() -> None:
    with pytest.raises(ValueError, match="65508 bytes"):
        load(("127.0.0.1", 9), 1, 65508)


def test_who_takes_part() -> None:
    taking_part = cells.entries(ARMS, [UDP_MODE])
    assert Entry("floor-epoll", UDP_MODE) in taking_part
    assert {entry.mode for entry in taking_part} == {UDP_MODE}
    assert {entry.mode for entry in cells.entries(ARMS, LOOP_MODES)} == {*LOOP_MODES, "-"}


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
def test_each_mode_of_an_arm_has_its_server(arm: SocketArm) -> None:
    known = {"loop": set(server.MODES), "server": set(server.SERVER_HANDLERS)}
    assert set(arm.modes) <= known.get(arm.kind, {"-", UDP_MODE})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--modes", "udp,protocol"], "a run of its own"),
        (["--scenario", "bulk", "--modes", "udp"], "is not one of the mode udp"),
        (["--scenario", "udp", "--modes", "sock"], "is not one of the mode sock"),
        (["--modes", "udp", "--cells", "1x128KiB"], "65507"),
    ],
)
def test_options_that_make_no_sense(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["echo", "--no-files", "--arms", "asyncio", *options]) == 2
    assert sentence in capsys.readouterr().err


def test_a_run_measures_datagrams(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("plotly")
    pytest.importorskip("psutil")
    files = ["--json", str(tmp_path / "udp.json"), "--html", str(tmp_path / "udp.html")]
    short_run = ["--rounds", "2", "--duration-s", "0.05", "--warmup-s", "0.01"]
    others = "floor-epoll,floor-uring,sockets-threads,server-epoll"  # of which one has datagrams
    arms = ["--arms", f"asyncio,netpoll-epoll,{others}"]
    assert cli.main(["echo", "--scenario", "udp", *arms, *short_run, *files]) == 0
    document = read_json(tmp_path / "udp.json")
    rows = {row["arm"]: row for row in document["rows"]}
    assert set(rows) == {"asyncio", "netpoll-epoll", "floor-epoll"}
    assert {row["mode"] for row in document["rows"]} == {UDP_MODE}
    for row in rows.values():
        assert row["fault"] is None
        assert row["requests"] >= 64
    assert rows["floor-epoll"]["cpu_vs_floor_epoll"] == pytest.approx(1)
    assert rows["netpoll-epoll"]["near_floor"] == "epoll"
    assert 0 < rows["netpoll-epoll"]["cpu_vs_asyncio"] < 1
    assert "datagrams" in (tmp_path / "udp.html").read_text()
