"""A client that we have not written: the library websockets."""

import threading
from typing import Any

import pytest

from netpoll import http
from tests.http.conftest import HttpServing

websockets = pytest.importorskip(
    "websockets", reason="needs the extra: pip install 'netpoll[oracles]'"
)
client = pytest.importorskip("websockets.sync.client")

# Without a proxy, and without a thread for pings, which outlives its connection a little.
ALONE: dict[str, Any] = {"proxy": None, "ping_interval": None}


async def echo(request: http.Request) -> None:
    websocket = request.websocket(next(iter(request.subprotocols), None))
    async for message in websocket:
        if message == "close":
            await websocket.close(4000, "as asked")
            return
        await websocket.send(message)


def connect(serving: HttpServing, **options: Any) -> Any:
    return client.connect(f"ws://127.0.0.1:{serving.servers[-1].port}/", **ALONE, **options)


@pytest.mark.parametrize("deflates", [False, True])
@pytest.mark.parametrize("offers", [None, "deflate"])
def test_messages(http_serving: HttpServing, deflates: bool, offers: str | None) -> None:
    http_serving(echo, websocket_deflate=deflates)
    with connect(http_serving, compression=offers, max_size=None) as socket:
        for message in ("text", b"bytes", "", b"", "caf\u00e9" * 1000, bytes(1 << 20)):
            for _ in range(2):
                socket.send(message)
                assert socket.recv(timeout=10) == message
        socket.send(["frag", "", "ile"])
        assert socket.recv(timeout=10) == "fragile"
        assert socket.ping().wait(10)


def test_subprotocols(http_serving: HttpServing) -> None:
    http_serving(echo)
    with connect(http_serving, subprotocols=["one", "two"]) as socket:
        assert socket.subprotocol == "one"


def test_both_sides_close(http_serving: HttpServing) -> None:
    http_serving(echo)
    with connect(http_serving) as socket:
        socket.send("close")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            socket.recv(timeout=10)
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4000, "as asked")
    with connect(http_serving) as socket:
        socket.close(4001, "we")
    assert (socket.close_code, socket.close_reason) == (4001, "")


def test_a_denial(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> http.Response:
        return http.Response("not today", status=403)

    http_serving(handler)
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        connect(http_serving)
    assert (caught.value.response.status_code, caught.value.response.body) == (403, b"not today")


def test_clients_at_once(http_serving: HttpServing) -> None:
    http_serving(echo, workers=2)
    wrong: list[Any] = []

    def talk(number: int) -> None:
        with connect(http_serving) as socket:
            for i in range(50):
                socket.send(f"{number}:{i}")
                answer = socket.recv(timeout=10)
                if answer != f"{number}:{i}":
                    wrong.append(answer)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
