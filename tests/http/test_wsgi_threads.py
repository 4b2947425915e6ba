"""WSGI applications in threads: the pool, peers that do not read, stopping."""

import asyncio
import concurrent.futures
import gc
import logging
import select
import socket
import struct
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import netpoll
from netpoll import http
from netpoll._http.pool import ThreadPool
from tests.http.conftest import Client, HttpServing
from tests.http.wsgi_apps import TEXT, Environ, Result, echo, hello
from tests.server.conftest import wait_for, wait_until_still

WSGI = "netpoll._native.http.wsgi"


def test_the_pool_grows_to_its_size_and_shrinks(
    http_serving: HttpServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netpoll._http.pool.IDLE_MAX_S", 0.1)
    gate = threading.Event()
    running: list[int] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        running.append(threading.get_ident())
        gate.wait(20)
        return hello(environ, start_response)

    server = http_serving(app, threads=3)
    clients = [http_serving.client() for _ in range(5)]
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    wait_for(lambda: len(running) == 3)
    time.sleep(0.05)
    assert len(running) == len(set(running)) == 3
    gate.set()
    assert [client.answer().body for client in clients] == [b"hello"] * 5
    pool = server._pool_of_threads
    assert pool is not None
    wait_for(lambda: not pool.threads)
    assert clients[0].ask().body == b"hello"


def ask_in_one_turn(http_serving: HttpServing, server: http.Server, count: int) -> list[Client]:
    """So many clients, whose requests the loop finds all at once."""
    held, go = threading.Event(), threading.Event()
    clients = [http_serving.client() for _ in range(count)]
    wait_for(lambda: server.stats()["connections"] == count)

    def hold() -> None:
        held.set()
        go.wait(20)

    server._loops()[0].call_soon_threadsafe(hold)
    assert held.wait(20)
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    go.set()
    return clients


def answered(clients: list[Client]) -> int:
    return len(select.select([client.sock for client in clients], [], [], 0)[0])


def test_requests_that_block_have_a_thread_each(http_serving: HttpServing) -> None:
    """Though they have come together, and one thread was woken for all of them."""
    barrier = threading.Barrier(6)

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        barrier.wait(20)
        return hello(environ, start_response)

    server = http_serving(app, threads=6)
    for _ in range(2):  # threads are made; and are woken
        clients = ask_in_one_turn(http_serving, server, 6)
        assert [client.answer().body for client in clients] == [b"hello"] * 6
        for client in clients:
            client.close()
        wait_for(lambda: server.stats()["connections"] == 0)


def test_short_requests_do_not_wait_for_a_long_one(http_serving: HttpServing) -> None:
    gate, calls = threading.Event(), []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        calls.append(threading.get_ident())
        if len(calls) % 8 == 1:
            gate.wait(20)
        return hello(environ, start_response)

    server = http_serving(app, threads=2)
    for _ in range(3):
        clients = ask_in_one_turn(http_serving, server, 8)
        wait_for(lambda clients=clients: answered(clients) == 7)
        gate.set()
        assert [client.answer().body for client in clients] == [b"hello"] * 8
        gate.clear()
        for client in clients:
            client.close()
        wait_for(lambda: server.stats()["connections"] == 0)
    assert len(set(calls)) == 2


def test_the_answer_of_a_short_request_does_not_wait_for_a_long_one(
    http_serving: HttpServing,
) -> None:
    """Nor where there is no other thread."""
    gate, calls = threading.Event(), []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        calls.append(1)
        if len(calls) == 8:
            gate.wait(20)
        return hello(environ, start_response)

    server = http_serving(app, threads=1)
    clients = ask_in_one_turn(http_serving, server, 8)
    wait_for(lambda: answered(clients) == 7)
    gate.set()
    assert [client.answer().body for client in clients] == [b"hello"] * 8


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="there is no GIL")
def test_short_requests_of_a_turn_are_one_threads(http_serving: HttpServing) -> None:
    """No other could run them while that one has the GIL."""
    ran: list[int] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        ran.append(threading.get_ident())
        return hello(environ, start_response)

    server, interval_s = http_serving(app, threads=6), sys.getswitchinterval()
    sys.setswitchinterval(20)
    try:
        clients = ask_in_one_turn(http_serving, server, 8)
        assert [client.answer().body for client in clients] == [b"hello"] * 8
    finally:
        sys.setswitchinterval(interval_s)
    assert len(set(ran)) == 1


def test_no_job_is_lost_between_threads_that_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netpoll._http.pool.IDLE_MAX_S", 0.0005)
    pool, ran, many = ThreadPool(3), [], []

    def job() -> None:
        ran.append(1)
        many.append(len(pool.threads))
        if len(ran) % 5 == 0:
            time.sleep(0.0002)

    def submit() -> None:
        for number in range(400):
            pool.submit(job)
            if number % 7 == 0:
                time.sleep(0.001)

    submitters = [threading.Thread(target=submit) for _ in range(4)]
    for submitter in submitters:
        submitter.start()
    wait_for(lambda: len(ran) == 1600)
    for submitter in submitters:
        submitter.join()
    wait_for(lambda: not pool.threads)
    pool.submit(lambda: ran.append(1))
    pool.close()
    assert pool.join(time.monotonic() + 20)
    assert len(ran) == 1601


@pytest.mark.parametrize("is_made", [False, True])
def test_a_signal_while_a_thread_is_made(monkeypatch: pytest.MonkeyPatch, is_made: bool) -> None:
    pool, ran, start = ThreadPool(1), threading.Event(), threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if is_made:
            start(thread)
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("netpoll._http.pool.threading.Thread.start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.submit(int)
                pool.submit(int)  # when the first has found its thread
                raise KeyboardInterrupt
        ran.clear()
        pool.submit(ran.set)
        assert ran.wait(20)
    pool.close()
    assert pool.join(time.monotonic() + 20)


def test_a_pool_that_is_stopped_within_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler runs wherever Python code does, also while a thread is made."""
    pool, ran, start = ThreadPool(4), threading.Event(), threading.Thread.start

    def stops_first(thread: threading.Thread) -> None:
        pool.close()
        start(thread)

    monkeypatch.setattr("netpoll._http.pool.threading.Thread.start", stops_first)
    pool.submit(ran.set)
    assert ran.wait(20)
    assert pool.join(time.monotonic() + 5)  # before it would have been idle for long


def test_a_system_without_threads(
    http_serving: HttpServing,
    errors_logged: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = threading.Event()
    begun: list[bool] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        begun.append(True)
        gate.wait(20)
        return hello(environ, start_response)

    http_serving(app)
    clients = [http_serving.client() for _ in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr("netpoll._http.pool.threading.Thread.start", no_thread)
        answer = clients[0].ask()
    assert (answer.status, len(errors_logged.records)) == (500, 1)
    for client in clients[1:]:
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        wait_for(lambda: begun)
        monkeypatch.setattr("netpoll._http.pool.threading.Thread.start", no_thread)
    gate.set()
    assert [client.answer().body for client in clients[1:]] == [b"hello"] * 2


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_thread_waits_while_the_peer_does_not_read(http_serving: HttpServing) -> None:
    result = Result(b"x" * 65536 for _ in range(1000))

    def app(environ: Environ, start_response: Any) -> Result:
        start_response("200 OK", TEXT)
        return result

    http_serving(app, threads=1)
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    wait_for(lambda: result.given > 1)
    assert wait_until_still(lambda: result.given) < 500
    assert len(client.answer().body) == 65536 * 1000
    wait_for(lambda: result.closed)


def test_inline_iteration_goes_on_when_the_peer_reads(http_serving: HttpServing) -> None:
    result = Result(b"x" * 65536 for _ in range(1000))

    def app(environ: Environ, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/":
            return hello(environ, start_response)
        start_response("200 OK", TEXT)
        return result

    http_serving(app, threads=0)
    client = http_serving.client()
    client.send(b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n")
    assert http_serving.client().ask().body == b"hello"
    assert result.given < 500
    assert len(client.answer().body) == 65536 * 1000
    assert client.ask().body == b"hello"
    assert result.closed == 1


def test_a_client_that_goes_ends_the_iteration(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture, threads: int
) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000
            if threads:
                time.sleep(0.001)

    result = Result(endless())

    def app(environ: Environ, start_response: Any) -> Result:
        start_response("200 OK", TEXT)
        return result

    http_serving(app, threads=threads)
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    client.file.read(2000)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    wait_for(lambda: result.closed == 1)
    assert errors_logged.records == []


def test_many_at_once(http_serving: HttpServing) -> None:
    http_serving(echo, threads=4, workers=2)
    failures: list[Any] = []

    def talk(number: int) -> None:
        client = http_serving.client()
        for i in range(50):
            body = b"%d-%d" % (number, i) * (i + 1)
            if client.ask("/", "POST", body).body != body:
                failures.append((number, i))

    talkers = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join()
    assert failures == []


def test_a_stop_waits_for_the_answer(http_serving: HttpServing) -> None:
    gate, begun = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        begun.set()
        gate.wait(20)
        return hello(environ, start_response)

    server = http_serving(app)
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert begun.wait(20)
    idle = http_serving.client()
    wait_for(lambda: server.stats()["connections"] == 2)
    stopping = threading.Thread(target=server.close, args=(20,))
    stopping.start()
    assert idle.sock.recv(1) == b""  # the worker has heard of it
    gate.set()
    answer = client.answer()
    assert (answer.body, answer.header("connection")) == (b"hello", "close")
    stopping.join(20)
    assert not stopping.is_alive()


def test_a_stop_ends_threads_that_wait_for_the_peer(http_serving: HttpServing) -> None:
    results = [Result(b"x" * 65536 for _ in range(1000))]
    errors: list[BaseException] = []

    def app(environ: Environ, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/answer":
            start_response("200 OK", TEXT)
            return results[0]
        try:
            return echo(environ, start_response)
        except OSError as exc:
            errors.append(exc)
            raise

    server = http_serving(app)
    reading, writing = http_serving.client(), http_serving.client()
    writing.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc")
    reading.send(b"GET /answer HTTP/1.1\r\nhost: x\r\n\r\n")
    wait_for(lambda: results[0].given > 1)
    server.close(0.1)
    wait_for(lambda: results[0].closed == 1 and len(errors) == 1)


def test_a_stop_leaves_a_blocked_thread_behind(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    gate, begun = threading.Event(), threading.Event()
    result = Result([b"late"])

    def app(environ: Environ, start_response: Any) -> Result:
        begun.set()
        gate.wait(60)
        start_response("200 OK", TEXT)
        return result

    server = http_serving(app)
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert begun.wait(20)
    start_s = time.monotonic()
    server.close(0.1)
    assert time.monotonic() - start_s < 10
    assert "blocks 1 threads" in errors_logged.records[0].message
    gate.set()
    wait_for(lambda: result.closed == 1)  # its thread ends as it would have
    pool = server._pool_of_threads
    assert pool is not None
    wait_for(lambda: not pool.threads)


def test_a_stop_within_a_loop_waits_for_the_threads(http_serving: HttpServing) -> None:
    ended: list[bool] = []

    class Slow(Result):
        def close(self) -> None:
            time.sleep(0.2)
            ended.append(True)

    def app(environ: Environ, start_response: Any) -> Result:
        start_response("200 OK", TEXT)
        return Slow([b"x"])

    async def main() -> bytes:
        async with http.Server(app, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            answer = await reader.read()
            writer.close()
        return answer

    answer = netpoll.run(main(), backend=http_serving.backend)
    assert answer.endswith(b"\r\n\r\nx")
    assert ended == [True]


def test_nothing_of_a_request_stays(
    http_serving: HttpServing, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    # Whoever keeps what is logged keeps tracebacks, and these what has failed.
    monkeypatch.setattr(logging.getLogger("netpoll.http"), "disabled", True)

    def app(environ: Environ, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        write = start_response("200 OK", TEXT)
        if path == "/write":
            write(b"x")
        if path == "/fail":
            raise KeyError
        environ["wsgi.input"].read()
        return Result([b"y", b"z"]) if path == "/parts" else [b"y"]

    http_serving(app, threads=threads)
    for path in ("/", "/write", "/fail", "/parts"):
        client = http_serving.client()
        client.send(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\na".encode())
        client.send(b"bc")
        assert client.answer().status in (200, 500)
        client.close()
    gone = http_serving.client()
    gone.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\na")
    gone.close()

    def left() -> list[str]:
        gc.collect()
        kinds = [f"{type(one).__module__}.{type(one).__name__}" for one in gc.get_objects()]
        return [kind for kind in kinds if kind.startswith(f"{WSGI}.") and "Application" not in kind]

    wait_for(lambda: left() == [])


def test_it_runs_in_one_process_or_many(http_serving: HttpServing) -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", TEXT)
        names = ("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once")
        return [repr([environ[name] for name in names]).encode()]

    for options, many_threads in (
        ({"threads": 0}, False),
        ({"threads": 1}, False),
        ({"threads": 2}, True),
        ({"threads": 0, "workers": 2}, True),
    ):
        with http.Server(app, "127.0.0.1", 0, backend=http_serving.backend, **options) as server:
            client = Client(socket.create_connection(("127.0.0.1", server.port)))
            assert client.ask().body.decode() == repr([many_threads, False, False])
            client.close()


def test_threads_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="threads"):
        http.Server(hello, "127.0.0.1", 0, threads=-1)


def test_the_loops_own_thread_may_not_wait_for_a_body(http_serving: HttpServing) -> None:
    """It would have to bring what it waits for (bug class 64). What it has taken already is put
    back."""

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        said: concurrent.futures.Future[bytes] = concurrent.futures.Future()

        def read() -> None:
            try:
                said.set_result(environ["wsgi.input"].read())
            except RuntimeError as error:
                said.set_result(str(error).encode())
                refused.set()

        server._loops()[0].call_soon_threadsafe(read)
        start_response("200 OK", TEXT)
        return [said.result(5), environ["wsgi.input"].read()]

    refused = threading.Event()
    server = http_serving(app, threads=1)
    client = http_serving.client()
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbo")
    assert refused.wait(20)
    client.send(b"dy")
    assert client.answer().body == b"the loop's own thread would wait for itself herebody"
