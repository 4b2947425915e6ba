"""Storms of signals, and processes that are stopped for a while: system calls end with EINTR.

What was to be received is received, once and in order; what was to be waited for is waited for.
"""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.http.serving import children, serving
from tests.server.conftest import wait_for
from tests.support import SLOWNESS, child_says, talking_child

from .machines import in_the_long_lane, output

STORM = """
import asyncio, os, random, signal, socket, subprocess, threading, time
import netpoll

heard = [0]

def hear(*_):
    heard[0] += 1

def storm(until):
    \"\"\"SIGUSR1 and SIGALRM to this process, and children that end, without a pause.\"\"\"
    signal.signal(signal.SIGUSR1, hear)
    signal.signal(signal.SIGALRM, hear)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    main = threading.main_thread().ident

    def send():
        while not until.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)
            time.sleep(0.0001)

    def breed():
        while not until.is_set():
            subprocess.run(["true"])

    threads = [threading.Thread(target=send), threading.Thread(target=breed)]
    for thread in threads:
        thread.start()
    return threads

def calm(until, threads):
    until.set()
    for thread in threads:
        thread.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_an_echo_in_a_storm(backend: str) -> None:
    """Streams, datagrams, files, timers, child processes."""
    code = """
    async def main():
        loop = asyncio.get_running_loop()
        chld = [0]
        loop.add_signal_handler(signal.SIGCHLD, lambda: chld.__setitem__(0, chld[0] + 1))
        async def echo(reader, writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        late = []
        async def ticks():
            while True:
                begin = loop.time()
                await asyncio.sleep(0.001)
                late.append(loop.time() - begin < 0.001)
        ticking = loop.create_task(ticks())
        sock = socket.create_connection(server.sockets[0].getsockname())
        sock.setblocking(False)
        round_count = 0
        while heard[0] < 3000 or round_count < 100 or chld[0] < 20:
            round_count += 1
            data = random.randbytes(random.choice([10, 1000, 300_000]))
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            await loop.sock_sendall(sock, b"s" * 100)
            got = 0
            while got < 100:
                got += len(await loop.sock_recv(sock, 100 - got))
        async with await netpoll.open("/dev/null", "wb") as file:
            for _ in range(50):
                assert await file.write(bytes(4096)) == 4096
        for _ in range(5):
            child = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
            assert await child.wait() == 3
        ticking.cancel()
        print(any(late), len(late) > 10)
        sock.close()
        writer.close()
        server.close()
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.001)

    until = threading.Event()
    threads = storm(until)
    try:
        netpoll.run(main(), backend=BACKEND)
    finally:
        calm(until, threads)
    """
    assert output(backend, code, before=STORM) == "False True\n"


def test_loops_that_close_in_a_storm(backend: str) -> None:
    """The interpreter writes the numbers of signals to a socket of the loop: not to a closed one,
    and not to another file that has got its number."""
    code = """
    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, print)
        await asyncio.sleep(0.001)

    until = threading.Event()
    threads = storm(until)
    try:
        for _ in range(200):
            netpoll.run(main(), backend=BACKEND)
    finally:
        calm(until, threads)
    print(heard[0] > 0, signal.set_wakeup_fd(-1), signal.getsignal(signal.SIGHUP).name)
    """
    assert output(backend, code, before=STORM) == "True -1 SIG_DFL\n"


def test_a_server_in_a_storm(backend: str) -> None:
    """Its workers have threads of their own; the signals come to all of them."""
    code = """
    def upper(conn):
        conn.write(bytes(conn.take()).upper())

    until = threading.Event()
    with netpoll.Server(upper, "127.0.0.1", 0, workers=2, backend=BACKEND) as server:
        threads = storm(until)
        others = [thread for thread in threading.enumerate() if thread.name.startswith("netpoll")]
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.settimeout(20)
        for number in range(2000):
            for thread in others:
                signal.pthread_kill(thread.ident, signal.SIGUSR1)
            sock.sendall(b"line")
            got = b""
            while len(got) < 4:
                got += sock.recv(4)
            assert got == b"LINE"
        sock.close()
        with netpoll.Scheduler(workers=2) as scheduler:
            print(sum(task.result() for task in [scheduler.spawn(int, "1") for _ in range(1000)]))
        calm(until, threads)
    """
    assert output(backend, code, before=STORM) == "1000\n"


# ---- stopped processes --------------------------------------------------------------------------

STOPPED_S = 1.0


def _echo_until_told() -> None:
    import asyncio

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        over = loop.create_future()
        loop.call_later(0.2, lambda: print("timer", flush=True))
        loop.add_reader(0, over.set_result, None)
        await over
        loop.remove_reader(0)
        server.close()
        print("over", flush=True)

    loop = new_loop()  # type: ignore[name-defined]
    loop.run_until_complete(main())
    loop.close()


@pytest.mark.control
def test_a_server_that_is_stopped(backend: str) -> None:
    """What came meanwhile is answered, timers that were due fire, and nobody is disconnected."""
    import socket

    with talking_child(backend, _echo_until_told) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.settimeout(20 * SLOWNESS)
            os.kill(child.pid, signal.SIGSTOP)
            sock.sendall(b"x" * 100_000)
            with socket.create_connection(("127.0.0.1", port)) as another:
                another.settimeout(20 * SLOWNESS)
                another.sendall(b"another")
                time.sleep(STOPPED_S)
                os.kill(child.pid, signal.SIGCONT)
                child_says(child, "timer")
                assert another.makefile("rb").read(7) == b"another"
            assert sock.makefile("rb").read(100_000) == b"x" * 100_000
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
        child_says(child, "over")
        assert child.wait(20 * SLOWNESS) == 0


def test_a_peer_that_is_stopped(backend: str) -> None:
    """It takes nothing for a while: the writer waits, others are served, and all arrives."""
    code = """
    import asyncio, hashlib, os, signal, sys
    import netpoll

    SIZE = 8 << 20
    TAKES = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"

    async def main():
        data = os.urandom(SIZE)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", TAKES, stdin=-1, stdout=-1)
        child.send_signal(signal.SIGSTOP)
        child.stdin.write(data)
        draining = asyncio.ensure_future(child.stdin.drain())
        loop = asyncio.get_running_loop()
        turns = loop.stats()["turns"]
        await asyncio.sleep(1.0)
        assert not draining.done()
        print("idle", loop.stats()["turns"] - turns < 50)
        child.send_signal(signal.SIGCONT)
        await draining
        child.stdin.close()
        out = await child.stdout.read()
        await child.wait()
        print(out.decode().strip() == hashlib.sha256(data).hexdigest())

    netpoll.run(main(), backend=BACKEND)
    """
    assert output(backend, code) == "idle True\nTrue\n"


def test_a_worker_of_serve_that_is_stopped(tmp_path: Path, backend: str) -> None:
    """It looks stuck, and cannot say where: it is killed all the same, and replaced."""
    args = ("app:wsgi", "--workers", "2", "--timeout", "1.5")
    with serving(tmp_path, backend, *args) as running:
        before = running.pids(2)
        stopped = min(before)
        os.kill(stopped, signal.SIGSTOP)
        wait_for(lambda: stopped not in children(running) and len(children(running)) == 2, 30)
        assert f"worker {stopped} is stuck" in running.errors.read_text()
        running.pids(2)
        assert running.ended() == 0


@in_the_long_lane
def test_a_supervisor_that_is_stopped(tmp_path: Path, backend: str) -> None:
    """Its workers serve on. It was away, not they: nobody is killed when it comes back."""
    args = ("app:wsgi", "--workers", "2", "--timeout", "1.5")
    with serving(tmp_path, backend, *args) as running:
        before = running.pids(2)
        os.kill(running.process.pid, signal.SIGSTOP)
        begin_s = time.monotonic()
        while time.monotonic() - begin_s < 2.0:
            assert running.ask()
            time.sleep(0.05)
        os.kill(running.process.pid, signal.SIGCONT)
        assert running.pids(2) == before
        time.sleep(1.2)  # longer than it sleeps between two looks
        assert children(running) == before
        assert running.ended() == 0


@in_the_long_lane
def test_a_machine_that_sleeps(tmp_path: Path, backend: str) -> None:
    """All processes are stopped at once, as with a container that is paused."""
    args = ("app:wsgi", "--workers", "2", "--timeout", "30")
    with serving(tmp_path, backend, *args) as running:
        before = running.pids(2)
        os.killpg(running.process.pid, signal.SIGSTOP)
        asked = threading.Thread(target=running.ask)
        asked.start()
        time.sleep(STOPPED_S)
        os.killpg(running.process.pid, signal.SIGCONT)
        asked.join(20 * SLOWNESS)
        assert not asked.is_alive()
        assert running.pids(2) == before
        assert running.ended() == 0
