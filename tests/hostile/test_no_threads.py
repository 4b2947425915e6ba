"""No thread and no process can be made: RLIMIT_NPROC, a full pids cgroup, a filter.

What needs one says so; what runs goes on; nothing waits for ever for who was never started.
"""

import os
import signal
from pathlib import Path

import pytest

from tests.http.serving import children, serving
from tests.server.conftest import wait_for

from .machines import cgroup, output, run_program

# pthread_create() calls clone3, fork() calls clone.
NO_THREADS = """
import asyncio, errno, os, threading
from restricted import refuse
import netpoll

def no_threads():
    refuse({"clone3": errno.EAGAIN})
"""


def test_a_scheduler_says_so_and_leaves_no_thread(backend: str) -> None:
    code = """
    started = []
    start = threading.Thread.start

    def third_fails(thread):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    threading.Thread.start = third_fails
    try:
        netpoll.Scheduler(workers=4)
    except RuntimeError as error:
        print(error, [thread.is_alive() for thread in started])
    threading.Thread.start = start
    with netpoll.Scheduler(workers=2) as scheduler:
        print(scheduler.run(lambda: 7))
    """
    assert output(backend, code, before=NO_THREADS) == "can't start new thread [False, False]\n7\n"


def test_a_server_says_so(backend: str) -> None:
    code = """
    no_threads()
    server = netpoll.Server(lambda conn: conn.take(), "127.0.0.1", 0, workers=2, backend=BACKEND)
    try:
        server.start()
    except RuntimeError as error:
        print(error)
    print(sorted(os.readlink(f"/proc/self/fd/{fd}")[:6] for fd in os.listdir("/proc/self/fd")
                 if int(fd) > 2 and os.path.exists(f"/proc/self/fd/{fd}")))
    """
    assert output(backend, code, before=NO_THREADS) == "can't start new thread\n[]\n"


def test_a_loop_goes_on(backend: str) -> None:
    """What needs a thread fails where it was asked for, and nowhere else."""
    code = """
    async def main(folder):
        os.mkfifo(folder + "/fifo")
        loop = asyncio.get_running_loop()
        no_threads()
        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"line\\n")
            print(await reader.read())
            writer.close()
        child = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
        print(await child.wait())
        needs = [lambda: asyncio.to_thread(int),
                 lambda: loop.getaddrinfo("no.such.name.invalid", 1)]
        if BACKEND == "epoll":  # on io_uring the kernel waits for a FIFO's other end
            needs.append(lambda: netpoll.open(folder + "/fifo", "rb").__aenter__())
        for needs_one in needs:
            try:
                async with asyncio.timeout(10):
                    await needs_one()
            except RuntimeError as error:
                print(error)

    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        netpoll.run(main(folder), backend=BACKEND)
    """
    said = output(backend, code, before=NO_THREADS)
    count = 3 if backend == "epoll" else 2
    assert said == "b'line\\n'\n3\n" + count * "can't start new thread\n"


def test_a_fifo_whose_own_thread_cannot_be_made() -> None:
    """The executor has its thread already; the one that may wait without end is refused."""
    code = """
    async def main(folder):
        os.mkfifo(folder + "/fifo")
        await asyncio.to_thread(int)
        no_threads()
        try:
            async with asyncio.timeout(10):
                await netpoll.open(folder + "/fifo", "rb").__aenter__()
        except RuntimeError as error:
            print(error)

    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        netpoll.run(main(folder), backend=BACKEND)
    """
    assert output("epoll", code, before=NO_THREADS) == "can't start new thread\n"


def test_large_answers_are_compressed_in_the_loop(backend: str) -> None:
    code = """
    import gzip, socket
    from netpoll import http

    async def main():
        text = b"text " * 100_000
        server = http.Server(lambda request: http.Response(text, headers=[("content-type",
                             "text/plain")]), "127.0.0.1", 0, backend=BACKEND,
                             compression=http.Compression(("gzip",)))
        async with server:
            no_threads()
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.1\\r\\nhost: a\\r\\naccept-encoding: gzip\\r\\n"
                         b"connection: close\\r\\n\\r\\n")
            head, _, body = (await reader.read()).partition(b"\\r\\n\\r\\n")
            assert b"content-encoding: gzip" in head.lower(), head
            if b"chunked" in head.lower():
                parts = b""
                while body:
                    size, _, body = body.partition(b"\\r\\n")
                    parts, body = parts + body[:int(size, 16)], body[int(size, 16) + 2:]
                body = parts
            print(gzip.decompress(body) == text)
            writer.close()

    netpoll.run(main(), backend=BACKEND)
    """
    assert output(backend, code, before=NO_THREADS) == "True\n"


# ---- netpoll serve ------------------------------------------------------------------------------


SERVE = """
import errno, sys
from restricted import refuse
from netpoll.cli import main
refuse({sys.argv[2]: errno.EAGAIN})
sys.argv[1:] = ["serve", "app:wsgi", "--port", "0", "--backend", BACKEND, *sys.argv[3:]]
sys.exit(main())
"""
APP = """
def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"here"]
"""


@pytest.mark.parametrize(
    ("call", "options", "says"),
    [
        ("clone", ("--workers", "2"), "netpoll: no process for a worker: Resource temporarily"),
        ("clone3", ("--workers", "2"), "netpoll: it cannot serve: can't start new thread"),
        ("clone3", (), "netpoll: it cannot serve: can't start new thread"),
    ],
)
def test_it_does_not_start(
    tmp_path: Path, backend: str, call: str, options: tuple[str, ...], says: str
) -> None:
    """One sentence, exit status 1."""
    (tmp_path / "app.py").write_text(APP)
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = run_program(backend, SERVE, call, *options, cwd=tmp_path, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith(says), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_worker_is_replaced_when_there_is_room_again(tmp_path: Path, backend: str) -> None:
    """A full pids cgroup: the others go on, a reload keeps the old ones, and so does an end."""
    with (
        cgroup("pids", "pids.max", "pids.max") as group,
        serving(tmp_path, backend, "app:raw", "--interface", "raw", "--workers", "2") as running,
    ):
        group.add(running.process.pid)
        first = sorted(children(running))
        for pid in first:
            group.add(pid)
        killed, kept = first
        group.limit(1)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: "a worker does not start: no process" in running.errors.read_text())
        assert running.ask() == "raw"
        running.send(signal.SIGHUP)
        wait_for(lambda: "the old one goes on" in running.errors.read_text())
        assert running.ask() == "raw"
        assert children(running) == {kept}
        group.limit("max")
        wait_for(lambda: len(children(running)) == 2, 30)
        assert running.ask() == "raw"
        group.limit(1)  # a worker that ends has a thread for it, usually
        assert running.ended() == 0
        assert "Traceback" not in running.errors.read_text()
