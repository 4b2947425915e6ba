"""A small program that uses all of netpoll, in processes that were refused a system call.

    refused_program.py [--backends NAME,...] SYSCALL[+SYSCALL...] ERRNO...

Prints, as JSON, {"backend errno": {part: "ok" or "ErrorType: message"}}; the part "backend" is the
one that the loop took. One process for each backend and errno, forked from this one, which has
imported everything and made no loop. The errno "KILL" ends a process that makes the call.
"""

import argparse
import asyncio
import contextlib
import errno
import faulthandler
import json
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable

from restricted import refuse

import netpoll

PART_LIMIT_S = 15
RUN_LIMIT_S = 45
FILE_BYTES = 300_000
DATAGRAMS_COUNT = 40
IDLE_TURNS_MAX_COUNT = 20


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


async def timer() -> None:
    """A wait ends in time, and is a wait: no turn after turn."""
    loop = asyncio.get_running_loop()
    begin_s, turns_count = loop.time(), loop.stats()["enters"]
    await asyncio.sleep(0.05)
    assert loop.time() - begin_s >= 0.05
    assert loop.stats()["enters"] - turns_count <= IDLE_TURNS_MAX_COUNT


async def thread() -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    other = threading.Thread(target=loop.call_soon_threadsafe, args=(event.set,))
    other.start()
    await event.wait()
    other.join()
    assert await asyncio.to_thread(lambda: 5) == 5


async def tcp() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"line\n")
        assert await reader.read() == b"line\n"
        writer.close()
        await writer.wait_closed()


async def abort() -> None:
    """What is given up while the kernel waits for it is closed: the other side reads the end."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.transport.abort()

    async with await asyncio.start_server(leave, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"line\n")
        assert await reader.read() == b""
        writer.close()
    with socket.socket() as sock:
        assert sock.connect_ex(address) == errno.ECONNREFUSED


async def pool() -> None:
    """Memory to send from, registered or not."""
    loop = asyncio.get_running_loop()
    with netpoll.BufferPool(1 << 20, hugepages="off") as memory:
        memory.attach(loop)

        def give(conn: netpoll.Connection) -> None:
            conn.take()
            with memory.reserve(65536) as buffer:
                buffer.write(b"p" * 65536)
                buffer.commit()
                conn.write(buffer)

        async with netpoll.Server(give, "127.0.0.1", 0) as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(b"line\n")
            assert await reader.readexactly(65536) == b"p" * 65536
            writer.close()


async def socks() -> None:
    """sock_accept and sock_sendfile."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        client.setblocking(False)
        await loop.sock_connect(client, listener.getsockname())
        accepted, _ = await loop.sock_accept(listener)
        with accepted, tempfile.TemporaryFile() as file:
            file.write(b"z" * FILE_BYTES)
            file.seek(0)
            sending = asyncio.ensure_future(loop.sock_sendfile(accepted, file))
            got_count = 0
            while got_count < FILE_BYTES:
                got_count += len(await loop.sock_recv(client, 65536))
            assert await sending == FILE_BYTES


async def datagrams() -> None:
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(data, addr)

    class Count(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.got: list[bytes] = []
            self.all_there = asyncio.Event()

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.got.append(data)
            if len(self.got) == DATAGRAMS_COUNT:
                self.all_there.set()

        def error_received(self, exc: Exception) -> None:
            raise exc

    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    address = server.get_extra_info("sockname")
    client, count = await loop.create_datagram_endpoint(Count, remote_addr=address)
    sent = [b"%03d" % number for number in range(DATAGRAMS_COUNT)]
    for data in sent:
        client.sendto(data)
    await count.all_there.wait()
    assert count.got == sent
    client.close()
    server.close()


async def files() -> None:
    with tempfile.TemporaryDirectory() as place:
        path = os.path.join(place, "file")
        async with await netpoll.open(path, "wb") as file:
            await file.write(b"text" * 1000)
        async with await netpoll.open(path, "rb") as file:
            assert await file.read() == b"text" * 1000
            into = bytearray(8)
            assert await netpoll.readinto_at(file.fileno(), into, 4000 - 6) == 6
            assert into == b"xttext\0\0"


async def processes() -> None:
    child = await asyncio.create_subprocess_exec("sleep", str(2 * PART_LIMIT_S))
    child.kill()
    assert await child.wait() == -9
    child = await asyncio.create_subprocess_shell("cat; exit 3", stdin=-1, stdout=-1)
    out, _ = await child.communicate(b"text")
    assert (out, child.returncode) == (b"text", 3)


async def server() -> None:
    def upper(conn: netpoll.Connection) -> None:
        while (line := conn.take_line()) is not None:
            if line == b"file\n":
                conn.sendfile(file)
            else:
                conn.write(line.upper())

    file = tempfile.TemporaryFile()
    file.write(b"f" * FILE_BYTES)
    file.flush()
    async with netpoll.Server(upper, "127.0.0.1", 0) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"line\nfile\n")
        assert await reader.readline() == b"LINE\n"
        assert await reader.readexactly(FILE_BYTES) == b"f" * FILE_BYTES
        writer.close()
    file.close()


async def scheduler() -> None:
    with netpoll.Scheduler() as running:
        assert await running.spawn(lambda: 7) == 7


PARTS: list[Callable[[], Awaitable[None]]] = [
    timer,
    thread,
    tcp,
    abort,
    pool,
    socks,
    datagrams,
    files,
    processes,
    server,
    scheduler,
    timer,
]


async def all_parts(results: dict[str, str]) -> None:
    for part in PARTS:
        try:
            async with asyncio.timeout(PART_LIMIT_S):
                await part()
            results[part.__name__] = "ok"
        except Exception as error:
            results[part.__name__] = f"{type(error).__name__}: {error}"


def run_refused(call: str, code: str, backend: str) -> dict[str, str]:
    faulthandler.dump_traceback_later(RUN_LIMIT_S, exit=True)
    lines = Lines()
    logging.getLogger().addHandler(lines)
    results: dict[str, str] = {}
    refuse(dict.fromkeys(call.split("+"), 0 if code == "KILL" else getattr(errno, code)))
    try:
        loop = netpoll.new_event_loop(backend=backend)
        results["backend"] = loop.backend
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(all_parts(results))
    except Exception as error:
        results["loop"] = f"{type(error).__name__}: {error}"
    results["lines"] = f"{len(lines.texts)}: {lines.texts[-1][-400:]}" if lines.texts else "ok"
    return results


def in_child(call: str, code: str, backend: str) -> tuple[int, int]:
    """Starts one; (its pid, where its results can be read)."""
    reading_fd, writing_fd = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing_fd)
        return pid, reading_fd
    status = 1
    with contextlib.suppress(BaseException):
        results = run_refused(call, code, backend)
        os.write(writing_fd, json.dumps(results).encode())
        status = 0
    os._exit(status)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backends", default="auto,epoll")
    parser.add_argument("call")
    parser.add_argument("codes", nargs="+")
    options = parser.parse_args()
    os.environ.pop("NETPOLL_BACKEND", None)
    found = {}
    for backend in options.backends.split(","):
        running = {code: in_child(options.call, code, backend) for code in options.codes}
        for code, (pid, fd) in running.items():
            with open(fd, "rb") as stream:
                text = stream.read()
            _, status = os.waitpid(pid, 0)
            ended = {"loop": f"ended with {os.waitstatus_to_exitcode(status)}"}
            found[f"{backend} {code}"] = json.loads(text) if status == 0 else ended
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
