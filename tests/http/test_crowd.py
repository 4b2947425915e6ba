"""More connections than are served: they are answered, and closed."""

import contextlib
from pathlib import Path

import pytest

from netpoll import http
from tests.http.conftest import Client, HttpServing
from tests.http.serving import complaint, serving
from tests.server.conftest import wait_for


def limits(served_count: int) -> http.HttpLimits:
    return http.HttpLimits(connections_served_max_count=served_count)


def test_one_too_many_gets_503(http_serving: HttpServing, tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = http_serving(lambda request: b"ok", limits=limits(2), access_log=log)
    first, second = http_serving.client(), http_serving.client()
    assert first.ask().body == second.ask().body == b"ok"
    third = http_serving.client()
    answer = third.ask("/third")
    assert (answer.status, answer.header("retry-after")) == (503, "1")
    assert (answer.header("connection"), third.rest()) == ("close", b"")
    assert answer.body == b"There are more connections than are served.\n"
    # The others do not notice.
    assert first.ask().body == second.ask().body == b"ok"
    server.close()
    lines = log.read_text().splitlines()
    assert [line.split()[-2] for line in lines if "/third" in line] == ["503"]


def test_a_place_that_is_free_again(http_serving: HttpServing) -> None:
    server = http_serving(lambda request: b"ok", limits=limits(1))
    first = http_serving.client()
    assert first.ask().body == b"ok"
    # It came when there was no place, and there is one when it asks.
    second = http_serving.client()
    wait_for(lambda: server.stats()["connections"] == 2)
    first.close()
    wait_for(lambda: server.stats()["connections"] == 1)
    assert [second.ask().status for _ in range(2)] == [200, 200]
    # Whoever is served stays so.
    third = http_serving.client()
    assert third.ask().status == 503
    assert second.ask().status == 200


def test_those_that_were_turned_away_take_no_place(http_serving: HttpServing) -> None:
    """They may be slow to read their answer, and to go."""
    server = http_serving(lambda request: b"ok", limits=limits(1))
    first = http_serving.client()
    assert first.ask().body == b"ok"
    turned_away = [http_serving.client() for _ in range(5)]
    assert [client.ask().status for client in turned_away] == [503] * 5
    first.close()
    wait_for(lambda: server.stats()["connections"] <= 5)
    assert http_serving.client().ask().status == 200
    for client in turned_away:
        client.close()


def test_a_connection_that_comes_and_goes_is_not_counted(http_serving: HttpServing) -> None:
    server = http_serving(lambda request: b"ok", limits=limits(1))
    for _ in range(20):
        client = http_serving.client()
        assert client.ask().status == 200
        client.close()
        wait_for(lambda: server.stats()["connections"] == 0)


def test_a_body_that_comes_is_not_read_as_a_request(http_serving: HttpServing) -> None:
    http_serving(lambda request: request.body, limits=limits(1))
    first = http_serving.client()
    assert first.ask("/", "POST", b"abc").body == b"abc"
    second = http_serving.client()
    inner = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    assert second.ask("/", "POST", inner * 100).status == 503
    assert second.rest() == b""


@pytest.mark.parametrize("option", ["--limit-concurrency", "--worker-connections"])
def test_the_options(backend: str, tmp_path: Path, option: str) -> None:
    with serving(tmp_path, backend, "app:wsgi", option, "1") as running:
        with contextlib.closing(Client(running.connect())) as first:
            assert first.ask().status == 200
            with contextlib.closing(Client(running.connect())) as second:
                if option == "--limit-concurrency":
                    assert second.ask().status == 503
                else:
                    second.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                    first.close()
                    assert second.answer().status == 200  # it has waited
        assert running.ended() == 0


def test_a_handler_of_connections_has_no_answer(tmp_path: Path) -> None:
    said = complaint(tmp_path, "app:stream", "--limit-concurrency", "1", code=2)
    assert "--worker-connections pauses accepting" in said
