"""Frameworks on netpoll.http.Server, each as it is: what their programs do in every second line."""

import importlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ..http.conftest import HttpServing
from ..server.conftest import check_all_is_back, wait_for

httpx = pytest.importorskip("httpx")

FRAMEWORKS = ("fastapi", "starlette", "litestar", "django", "quart", "blacksheep", "flask")
BODY = b"a streamed body " * 10_000


class Served:
    """An application of a framework on a server, and a client."""

    def __init__(self, name: str, serving: HttpServing) -> None:
        pytest.importorskip(name)
        module: Any = importlib.import_module(f".frameworks.{name}_app", __package__)
        self.lacks: frozenset[str] = module.LACKS
        self.seen: set[str] = set()
        interface = "wsgi" if name == "flask" else "asgi"
        self.server = serving(module.make(self.seen), interface=interface)
        self.url = f"127.0.0.1:{self.server.port}"
        self.client = httpx.Client(base_url=f"http://{self.url}", timeout=20)

    def needs(self, feature: str) -> None:
        if feature in self.lacks:
            pytest.skip(f"the framework has no {feature}")


@pytest.fixture
def http_serving(backend: str) -> Iterator[HttpServing]:
    yield from check_all_is_back(HttpServing(backend))


@pytest.fixture(params=FRAMEWORKS)
def served(request: pytest.FixtureRequest, http_serving: HttpServing) -> Iterator[Served]:
    found = Served(request.param, http_serving)
    with found.client:
        yield found


def test_json_in_and_out(served: Served) -> None:
    data = {"text": "caf\u00e9", "numbers": [1, 2.5, None], "nested": {"a": {}}}
    for _ in range(3):
        assert served.client.post("/json", json=data).json() == {"got": data}


def test_a_form_with_a_file(served: Served) -> None:
    files = {"file": ("name.bin", bytes(range(256)) * 1000)}
    answer = served.client.post("/form", data={"name": "a name"}, files=files)
    assert answer.json() == {"name": "a name", "file": "name.bin", "size": 256_000}


def test_a_streamed_request_and_a_streamed_answer(served: Served) -> None:
    def parts() -> Iterator[bytes]:
        for at in range(0, len(BODY), 7000):
            yield BODY[at : at + 7000]

    answer = served.client.post("/stream", content=parts())
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.content == BODY.upper()


def test_server_sent_events(served: Served) -> None:
    with served.client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.strip() for line in answer.iter_lines() if line.startswith("data:")]
    assert lines == [f"data: event {number}" for number in range(3)]


def test_what_the_lifespan_has_made(served: Served) -> None:
    served.needs("state")
    for _ in range(2):
        assert served.client.get("/state").json() == {"word": "from the lifespan"}


def test_a_background_task_runs_behind_the_answer(served: Served) -> None:
    served.needs("background")
    assert served.client.get("/background").json() == {}
    wait_for(lambda: "background" in served.seen)


def test_an_exception_is_500_and_the_server_goes_on(served: Served) -> None:
    for _ in range(2):
        assert served.client.get("/fail").status_code == 500
    assert served.client.post("/json", json={"a": 1}).json() == {"got": {"a": 1}}


def test_a_client_that_leaves_is_noticed(served: Served) -> None:
    for _ in range(2):
        served.seen.clear()
        with socket.create_connection(("127.0.0.1", served.server.port)) as client:
            client.sendall(b"GET /gone HTTP/1.1\r\nhost: test\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        wait_for(lambda: "gone" in served.seen)


def test_a_websocket(served: Served) -> None:
    served.needs("websocket")
    client: Any = pytest.importorskip("websockets.sync.client")
    with client.connect(f"ws://{served.url}/ws") as connection:
        for text in ("a", "caf\u00e9", "x" * 100_000):
            connection.send(text)
            assert connection.recv() == text
