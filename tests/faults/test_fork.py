"""Fork: the child's new loop works, the parent's loop is intact and out of reach. Bug class 14."""

import os
import subprocess
import sys
import textwrap

import pytest

from ..support import child_output

pytestmark = pytest.mark.control


def _fork_and_use_a_new_loop() -> None:
    import asyncio
    import os
    import socket
    import warnings

    warnings.simplefilter("ignore")

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async def ask(address: tuple[str, int], line: bytes) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(line)
        assert await reader.readline() == line
        writer.close()
        await writer.wait_closed()

    async def child_main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        await ask(server.sockets[0].getsockname(), b"in the child\n")
        server.close()

    loop = new_loop()  # type: ignore[name-defined]
    server = loop.run_until_complete(asyncio.start_server(echo, "127.0.0.1", 0))
    address = server.sockets[0].getsockname()
    loop.run_until_complete(ask(address, b"before\n"))
    waiting, other_end = socket.socketpair()
    waiting.setblocking(False)
    task = loop.create_task(loop.sock_recv(waiting, 100))
    loop.run_until_complete(asyncio.sleep(0.01))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            own = new_loop()  # type: ignore[name-defined]
            own.run_until_complete(child_main())
            own.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    # The parent's loop still has its server, its pending read and its counters.
    loop.run_until_complete(ask(address, b"after\n"))
    other_end.send(b"still waiting")
    assert loop.run_until_complete(task) == b"still waiting"
    server.close()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    waiting.close()
    other_end.close()
    print("parent fine")


def test_new_loop_in_the_child(backend: str) -> None:
    assert child_output(backend, _fork_and_use_a_new_loop) == "parent fine\n"


def _fork_inside_a_running_loop() -> None:
    import asyncio
    import os
    import warnings

    warnings.simplefilter("ignore")

    async def child_main() -> int:
        await asyncio.sleep(0.001)
        return 5

    async def main() -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                try:
                    asyncio.get_running_loop()
                except RuntimeError:
                    pass
                else:
                    os._exit(2)
                own = new_loop()  # type: ignore[name-defined]
                code = 0 if own.run_until_complete(child_main()) == 5 else 3
                own.close()
            finally:
                os._exit(code)
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            await asyncio.sleep(0.005)
        print(os.waitstatus_to_exitcode(status))

    loop = new_loop()  # type: ignore[name-defined]
    loop.run_until_complete(main())
    loop.close()


def test_fork_inside_a_running_loop(backend: str) -> None:
    """asyncio forgets the parent's running loop in a child (os.getpid() is looked at)."""
    assert child_output(backend, _fork_inside_a_running_loop) == "0\n"


LEAVING = """
    import asyncio, contextlib, os, signal, socket, sys, warnings
    import netpoll
    warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads
    WAY, BACKEND = sys.argv[1:]

    def run(main):
        if BACKEND == "asyncio":
            asyncio.run(main)
        else:
            netpoll.run(main, backend=BACKEND)

    async def cleans_up():
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.001)

    async def generate():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)

    async def leave(generator, transport):
        if WAY == "exit":
            sys.exit(7)
        if WAY == "return":
            return
        if WAY == "close":
            transport.write(b"x" * 100)
            transport.close()
            sys.exit(7)
        raise ValueError("the child's own")

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, print)
        left, right = socket.socketpair()
        right.setblocking(False)
        received = loop.create_task(loop.sock_recv(right, 100))
        readable = asyncio.Event()
        quiet, other = socket.socketpair()
        loop.add_reader(quiet, readable.set)
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        background = loop.create_task(cleans_up())
        await loop.run_in_executor(None, int)  # a thread that a child does not have
        generator = generate()
        await generator.__anext__()
        await asyncio.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            return await leave(generator, writer.transport)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        # All that was in flight is still there.
        left.send(b"received")
        other.send(b"x")
        await asyncio.wait_for(readable.wait(), 10)
        print(code, (await received).decode())
        background.cancel()
        writer.close()
        server.close()
        loop.remove_reader(quiet)
        for sock in (left, right, quiet, other):
            sock.close()
        await generator.aclose()

    run(main())
"""


@pytest.mark.netpoll_only  # on asyncio the child takes the parent's watchers out of the set
@pytest.mark.parametrize(("way", "code"), [("exit", 7), ("return", 0), ("error", 1), ("close", 7)])
def test_a_child_leaves_in_its_own_way(backend: str, way: str, code: int) -> None:
    """Out of the running loop: tasks are cancelled and generators ended, and nothing hides why."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(LEAVING), way, backend],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONASYNCIODEBUG": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{code} received\n", done.stderr
    if way == "error":
        assert done.stderr.endswith("ValueError: the child's own\n")
        assert done.stderr.count("Traceback") == 1, done.stderr
    else:
        assert done.stderr == ""


def _use_the_parents_loop() -> None:
    import asyncio
    import os
    import socket
    import traceback
    import warnings

    warnings.simplefilter("ignore")
    loop = new_loop()  # type: ignore[name-defined]
    loop.run_until_complete(asyncio.sleep(0.001))
    left, right = socket.socketpair()
    right.setblocking(False)
    task = loop.create_task(loop.sock_recv(right, 100))
    loop.run_until_complete(asyncio.sleep(0.01))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            refused = 0
            uses = (
                lambda: loop.run_until_complete(loop.create_future()),
                loop.run_forever,
                lambda: loop.add_reader(left, print),
                lambda: loop.call_soon_threadsafe(print),
            )
            for use in uses:
                try:
                    use()
                except RuntimeError as error:
                    assert "fork" in str(error), error
                    refused += 1
            loop.close()
            loop.close()
            os.write(1, b"refused %d\n" % refused)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    left.send(b"the parent's")
    print(loop.run_until_complete(task))
    loop.close()
    left.close()
    right.close()


@pytest.mark.netpoll_only
def test_the_parents_loop_in_the_child(backend: str) -> None:
    """A RuntimeError that says why; close() works and takes nothing from the parent."""
    out = child_output(backend, _use_the_parents_loop)
    first, _, rest = out.partition("\n")
    assert first in ("refused 3", "refused 4"), out
    assert rest == 'b"the parent\'s"\n'


def _preloading_server() -> None:
    import asyncio
    import os
    import signal
    import socket

    # A server that listens first and forks workers: each makes its loop after the fork.
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    address = sock.getsockname()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline() + str(os.getpid()).encode())
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(echo, sock=sock)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        server.close()

    # Used before the fork, closed after.
    warm = new_loop()  # type: ignore[name-defined]
    warm.run_until_complete(asyncio.sleep(0.001))
    workers = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                loop = new_loop()  # type: ignore[name-defined]
                loop.run_until_complete(work())
                loop.close()
                code = 0
            finally:
                os._exit(code)
        workers.append(pid)

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"line\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def many() -> set[bytes]:
        return set(await asyncio.gather(*(ask() for _ in range(60))))

    answers = warm.run_until_complete(many())
    assert all(answer.startswith(b"line\n") for answer in answers)
    assert {int(answer[5:]) for answer in answers} <= set(workers)
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    warm.close()
    print("fine")


def test_preloading_servers(backend: str) -> None:
    assert child_output(backend, _preloading_server) == "fine\n"


def _processes(method: str) -> None:
    import concurrent.futures
    import multiprocessing

    loop = new_loop()  # type: ignore[name-defined]

    async def main() -> None:
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            results = [await loop.run_in_executor(pool, pow, 2, n) for n in range(10)]
        print(results == [2**n for n in range(10)])

    import warnings

    warnings.simplefilter("ignore")
    loop.run_until_complete(main())
    loop.close()


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_process_pools(backend: str, method: str) -> None:
    if method == "forkserver" and sys.flags.ignore_environment:
        pytest.skip("the fork server needs the environment")
    assert child_output(backend, _processes, method) == "True\n"
