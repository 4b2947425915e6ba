"""Work of each kind that a loop can have in flight: what test_collectable.py drops.

Each function starts something on `loop` and returns what the loop is to refer to, so that there is
a reference cycle through what only native code sees.
"""

import asyncio
import concurrent.futures
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pytest

import netpoll

Prepare = Callable[[Any, "socket.socket", "socket.socket"], Any]
KINDS: dict[str, tuple[Prepare, bool]] = {}  # and whether asyncio has it


def kind(prepare: Prepare) -> Prepare:
    KINDS[prepare.__name__] = (prepare, True)
    return prepare


def netpolls(prepare: Prepare) -> Prepare:
    """Not asyncio's, or not collected there: its watcher's threads keep subprocesses."""
    KINDS[prepare.__name__] = (prepare, False)
    return prepare


@kind
def nothing(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return None


@kind
def future(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return loop.create_future()


@kind
def callback(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return loop.call_soon(print, loop, a)


@kind
def callback_that_has_run(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    handle = loop.call_soon(id, loop)
    loop.run_until_complete(asyncio.sleep(0))
    return handle


@kind
def callback_of_another_thread(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return loop.call_soon_threadsafe(print, loop)


@kind
def timer(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return loop.call_later(3600, loop.stop)


@kind
def timers_some_cancelled(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    handles = [loop.call_later(3600 + i, print, loop, i) for i in range(4)]
    handles[1].cancel()
    handles[2].cancel()
    return handles


@kind
def debug_mode(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    loop.set_debug(True)
    return [loop.call_soon(print, loop), loop.call_later(3600, print, loop)]


@kind
def reader_and_writer(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    loop.add_reader(a, print, loop)
    loop.add_writer(b, loop.stop)


@kind
def reader_that_fires(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    loop.add_reader(a, lambda: loop)
    b.send(b"x")
    loop.run_until_complete(asyncio.sleep(0))
    loop.call_soon(loop.stop)


@kind
def reader_replaced_and_removed(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    loop.add_reader(a, print, loop)
    loop.add_reader(a, print, loop, 2)
    loop.add_writer(a, print, loop)
    loop.remove_writer(a)


def task_of(loop: Any, coro: Any) -> Any:
    task = loop.create_task(coro)
    loop.run_until_complete(asyncio.sleep(0))
    return task


@kind
def sleep(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return task_of(loop, asyncio.sleep(3600))


@kind
def wait_for(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def waits() -> None:
        await asyncio.wait_for(asyncio.Event().wait(), 3600)

    return task_of(loop, waits())


@kind
def sock_recv(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    task_of(loop, loop.sock_recv(a, 10))


@kind
def sock_recv_into(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return task_of(loop, loop.sock_recv_into(a, bytearray(10)))


@kind
def sock_sendall(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    task_of(loop, loop.sock_sendall(a, bytes(1 << 19)))


@kind
def sock_accept(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    task_of(loop, loop.sock_accept(listener))
    return listener


class Keeps(asyncio.Protocol):
    """A protocol that refers to its transport, as most do."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport


@kind
def server(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return loop.run_until_complete(loop.create_server(Keeps, "127.0.0.1", 0))


@kind
def server_with_a_connection(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def main() -> Any:
        serving = await loop.create_server(Keeps, "127.0.0.1", 0)
        client = await loop.create_connection(Keeps, *serving.sockets[0].getsockname())
        await asyncio.sleep(0.01)
        return serving, client

    return loop.run_until_complete(main())


@kind
def transport(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return loop.run_until_complete(loop.create_connection(Keeps, sock=a.dup()))


@kind
def transport_paused(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    made = loop.run_until_complete(loop.create_connection(Keeps, sock=a.dup()))
    made[0].pause_reading()
    b.send(b"x")
    loop.run_until_complete(asyncio.sleep(0))
    return made


@kind
def transport_that_writes(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    made = loop.run_until_complete(loop.create_connection(Keeps, sock=a.dup()))
    made[0].write(bytes(1 << 19))
    loop.run_until_complete(asyncio.sleep(0))
    made[0].write(b"and more")
    return made


@kind
def stream(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def main() -> Any:
        reader, writer = await asyncio.open_connection(sock=a.dup())
        writer.write(b"x")
        waiting = loop.create_task(reader.readline())
        await asyncio.sleep(0)
        return reader, writer, waiting

    return loop.run_until_complete(main())


@kind
def datagrams(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    made = loop.run_until_complete(
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    )
    made[0].sendto(b"x", made[0].get_extra_info("sockname"))
    return made


@kind
def pipes(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    read_fd, write_fd = os.pipe()
    reading = loop.connect_read_pipe(Keeps, os.fdopen(read_fd, "rb", 0))
    writing = loop.connect_write_pipe(Keeps, os.fdopen(write_fd, "wb", 0))
    made = loop.run_until_complete(reading), loop.run_until_complete(writing)
    made[0][0].pause_reading()
    made[1][0].write(bytes(1 << 18))
    return made


@kind
def async_generator(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def numbers() -> Any:
        yield loop
        yield 2

    async def main() -> Any:
        generator = numbers()
        await anext(generator)
        return generator

    return loop.run_until_complete(main())


@netpolls
def file(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def main() -> Any:
        opened = await netpoll.open("/proc/self/statm")
        await opened.read(1)
        return opened

    return loop.run_until_complete(main())


@netpolls
def pool(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    class Owner(netpoll.BufferPool):
        pass

    made = Owner(1 << 18, classes=(4096, 1 << 16), hugepages="off")
    made.attach(loop)
    made.loop, made.filled = loop, made.reserve(100)
    return made


async def has_received(server: Any) -> None:
    """Until its handler has been called, most likely."""
    for _ in range(20):
        await asyncio.sleep(0.001)
        if server.stats()["recv_bytes"]:
            break
    await asyncio.sleep(0.001)


def served(loop: Any, handler: Any, **options: Any) -> Any:
    """A server inside the loop, with one connection that has sent something."""

    async def main() -> Any:
        inside = netpoll.Server(handler, "127.0.0.1", 0, **options).start()
        client = socket.create_connection(("127.0.0.1", inside.port))
        client.sendall(b"hello")
        await has_received(inside)
        return inside, client

    return loop.run_until_complete(main())


@netpolls
def server_plain(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return served(loop, lambda conn: conn.forward())


@netpolls
def server_face_kept(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    def on_data(conn: Any) -> None:
        conn.state = [conn, loop, conn.peek_lease()]
        conn.write(conn.take())

    return served(loop, on_data)


@netpolls
def server_lease_retained(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    def on_data(conn: Any) -> None:
        conn.state = conn.lease().retain()
        conn.write(b"ok")

    return served(loop, on_data)


@netpolls
def server_view_of_a_lease(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    def on_data(conn: Any) -> None:
        lease = conn.lease()
        conn.state = [memoryview(lease), lease.pieces()]
        conn.write(b"ok")

    return served(loop, on_data)


@netpolls
def server_buffer(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    def on_data(conn: Any) -> None:
        conn.state = [conn.reserve(100), conn.reserve(200)]
        conn.state[1].write(conn.take())
        conn.write(conn.state[1])

    return served(loop, on_data)


@netpolls
def server_session(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def session(conn: Any) -> None:
        conn.state = asyncio.current_task()
        while await conn.fill(100):
            conn.forward()

    return served(loop, session)


# ---- datagrams, TLS, subprocesses, files, the raw ring ------------------------------------------


@netpolls  # asyncio takes a peer without a name for none
def datagrams_queued(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    """A peer that does not read: the socket's queue is full, and ours has some."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    here.setblocking(False)
    made = loop.run_until_complete(loop.create_datagram_endpoint(Keeps, sock=here))
    for _ in range(300):
        made[0].sendto(bytes(500))
    assert made[0].get_write_buffer_size() > 0
    loop.run_until_complete(asyncio.sleep(0))
    return made, there


@kind
def stream_with_readers(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    """One waits for a line, one for room to write."""

    async def main() -> Any:
        reader, writer = await asyncio.open_connection(sock=a.dup())
        other_reader, other_writer = await asyncio.open_connection(sock=b.dup())
        writer.write(bytes(1 << 19))
        waiting = [
            loop.create_task(reader.readuntil(b"!")),
            loop.create_task(writer.drain()),
            loop.create_task(other_reader.readexactly(1 << 22)),
        ]
        await asyncio.sleep(0)
        return reader, writer, other_reader, other_writer, waiting

    return loop.run_until_complete(main())


def tls_contexts() -> Any:
    from ..tls import client_context, server_context  # where there is trustme

    return client_context(), server_context()


@kind
def tls_handshake(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    """The peer never answers the hello, of a client and of a server's connection."""
    client, server = tls_contexts()
    made = [
        loop.create_task(
            loop.create_connection(Keeps, sock=a.dup(), ssl=client, server_hostname="localhost")
        ),
        loop.create_task(loop.connect_accepted_socket(Keeps, b.dup(), ssl=server)),
    ]
    b.setblocking(False)
    loop.run_until_complete(asyncio.sleep(0))
    other = socket.socketpair()
    made.append(loop.create_task(loop.connect_accepted_socket(Keeps, other[0].dup(), ssl=server)))
    for _ in range(2):
        loop.run_until_complete(asyncio.sleep(0))
    other[0].close()
    return made, other[1]


def tls_pair_of(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    client, server = tls_contexts()

    async def main() -> Any:
        accepting = loop.create_task(loop.connect_accepted_socket(Keeps, b.dup(), ssl=server))
        connected = await loop.create_connection(
            Keeps, sock=a.dup(), ssl=client, server_hostname="localhost"
        )
        return connected, await accepting

    return loop.run_until_complete(main())


@kind
def tls_idle(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return tls_pair_of(loop, a, b)


@netpolls
def tls_transfer(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    """Both directions are full, and one side does not read."""
    made = tls_pair_of(loop, a, b)
    (left, _), (right, _) = made
    right.pause_reading()
    left.write(bytes(1 << 20))
    right.write(bytes(1 << 18))
    loop.run_until_complete(asyncio.sleep(0))
    left.write(b"more")
    return made


@kind
def tls_stream(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    client, server = tls_contexts()

    async def main() -> Any:
        accepting = loop.create_task(loop.connect_accepted_socket(Keeps, b.dup(), ssl=server))
        reader, writer = await asyncio.open_connection(
            sock=a.dup(), ssl=client, server_hostname="localhost"
        )
        waiting = loop.create_task(reader.read(10))
        await asyncio.sleep(0)
        return reader, writer, waiting, await accepting

    return loop.run_until_complete(main())


class KeepsProcess(asyncio.SubprocessProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport


def child(loop: Any, *command: str, **pipes: Any) -> Any:
    return loop.run_until_complete(loop.subprocess_exec(KeepsProcess, *command, **pipes))


@netpolls
def subprocess_with_pipes(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    """A child that reads until its input ends, with output that nobody has read."""
    made = child(loop, "cat")
    made[0].get_pipe_transport(0).write(b"x" * 1000)
    return made


@netpolls
def subprocess_with_full_pipes(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    made = child(loop, "sleep", "1000")
    made[0].get_pipe_transport(0).write(bytes(1 << 18))
    return made


@netpolls
def subprocess_waited_for(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def main() -> Any:
        process = await asyncio.create_subprocess_exec("sleep", "1000", stdin=-1, stdout=-1)
        waiting = loop.create_task(process.communicate(b"x"))
        await asyncio.sleep(0)
        return process, waiting

    return loop.run_until_complete(main())


@netpolls
def file_operations(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    """On a pipe that stays empty, and one that stays full."""

    async def main() -> Any:
        read_fd, write_fd = os.pipe()
        reading = await netpoll.open(read_fd, "rb", buffering=0)
        writing = await netpoll.open(write_fd, "wb", buffering=0)
        spare = os.pipe()
        empty = await netpoll.open(spare[0], "rb")
        held = await netpoll.open(spare[1], "wb", buffering=0)
        tasks = [
            loop.create_task(empty.read(10)),
            loop.create_task(writing.write(bytes(1 << 18))),
        ]
        await asyncio.sleep(0.001)
        return reading, writing, empty, held, tasks

    return loop.run_until_complete(main())


@netpolls
def raw_operations(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    """A read that waits, a multishot, a time-out, and a chain."""
    uring = pytest.importorskip("netpoll.uring")
    if loop.backend != "uring":
        pytest.skip("there is no ring")
    ffi, lib = uring.ffi, uring.lib

    async def main() -> Any:
        place = ffi.new("char[]", 64)
        entry = uring.sqe()
        lib.io_uring_prep_recv(entry, a.fileno(), place, 64, 0)
        operations = [uring.submit(entry, keep=(place, loop))]
        listener = socket.create_server(("127.0.0.1", 0))
        entry = uring.sqe()
        lib.io_uring_prep_multishot_accept(entry, listener.fileno(), ffi.NULL, ffi.NULL, 0)
        operations.append(uring.submit(entry, keep=(listener, operations)))
        client = socket.create_connection(listener.getsockname())  # a descriptor nobody fetches
        other = socket.create_server(("127.0.0.1", 0))
        entry = uring.sqe()
        lib.io_uring_prep_multishot_accept(entry, other.fileno(), ffi.NULL, ffi.NULL, 0)
        operations.append(uring.submit(entry, keep=(other, operations)))
        limit = ffi.new("struct __kernel_timespec *")
        limit.tv_sec = 1000
        chain = [uring.sqe(), uring.sqe()]
        lib.io_uring_prep_timeout(chain[0], limit, 0, 0)
        lib.io_uring_prep_nop(chain[1])
        operations += uring.submit_linked(chain, keep=(limit, loop))

        async def wait(operation: Any) -> Any:
            return await operation

        async def iterate(operation: Any) -> Any:
            return [item async for item in operation]

        waiting = [loop.create_task(wait(operations[0])), loop.create_task(iterate(operations[2]))]
        await asyncio.sleep(0.001)
        return operations, waiting, client

    return loop.run_until_complete(main())


@kind
def executor(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    """A function that is done soon, and others that wait for its thread."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    made = [loop.run_in_executor(pool, time.sleep, 0.002) for _ in range(3)]
    for future in made:
        future.add_done_callback(lambda future: loop)
    loop.run_until_complete(asyncio.sleep(0))
    return made


@netpolls  # asyncio's signal module keeps the callback, and with it the loop
def signal_handler(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    loop.add_signal_handler(signal.SIGUSR2, print, loop)
    loop.run_until_complete(asyncio.sleep(0))


@kind
def name_lookup(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return task_of(loop, loop.create_connection(Keeps, "localhost", 1))


@kind
def file_sent(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    """By the transport, and by the loop's call on a socket."""
    file = tempfile.TemporaryFile()
    file.truncate(1 << 22)
    other = a.dup()
    made = loop.run_until_complete(loop.create_connection(Keeps, sock=a.dup()))
    sending = [
        loop.create_task(loop.sendfile(made[0], file)),
        loop.create_task(loop.sock_sendfile(b, file, 0)),
    ]
    loop.run_until_complete(asyncio.sleep(0))
    return made, sending, other, file


def served_tls(loop: Any, handler: Any) -> Any:
    """A TLS server inside the loop; a client that has shaken hands, and one that has not."""
    client_context, server_context = tls_contexts()

    async def main() -> Any:
        inside = netpoll.Server(handler, "127.0.0.1", 0, ssl=server_context).start()
        silent = socket.create_connection(("127.0.0.1", inside.port))
        made = await loop.create_connection(
            Keeps, "127.0.0.1", inside.port, ssl=client_context, server_hostname="localhost"
        )
        made[0].write(b"hello")
        made[0].pause_reading()
        await has_received(inside)
        return inside, silent, made

    return loop.run_until_complete(main())


@netpolls
def server_tls(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    """It has written more than the client takes."""

    def on_data(conn: Any) -> None:
        conn.state = [conn, conn.lease().retain()]
        conn.write(bytes(1 << 18))

    return served_tls(loop, on_data)


@netpolls
def server_tls_session(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def session(conn: Any) -> None:
        conn.state = asyncio.current_task()
        while await conn.fill(100):
            conn.forward()

    return served_tls(loop, session)


@netpolls
def server_sends_a_file(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    file = tempfile.TemporaryFile()
    file.truncate(1 << 24)

    def on_data(conn: Any) -> None:
        conn.state = [conn, loop, file]
        conn.take()
        conn.sendfile(file)

    return served(loop, on_data)


@netpolls
def server_writes_much(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    """From memory of a pool and from leases, to a client that does not read."""

    def on_data(conn: Any) -> None:
        lease = conn.lease().retain()
        buffer = conn.reserve(60_000)
        buffer.write(bytes(60_000))
        conn.state = [conn, lease]
        conn.write(buffer)
        conn.writev([lease, bytes(1 << 22)])

    return served(loop, on_data)


@netpolls
def server_session_drains(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    """Sessions that wait for room, for a task, and for a connection of their own."""

    async def session(conn: Any) -> None:
        await conn.fill(5)
        conn.write(bytes(1 << 22))
        conn.state = loop.create_task(conn.drain())
        await conn.state

    return served(loop, session)


@netpolls
def raw_ring(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    """An io_uring without a loop, watched by one."""
    uring = pytest.importorskip("netpoll.uring")
    if loop.backend != "uring":
        pytest.skip("there is no ring")
    ring = uring.Ring(8)
    place = uring.ffi.new("char[]", 64)
    entry = ring.get_sqe()
    uring.lib.io_uring_prep_recv(entry, a.fileno(), place, 64, 0)
    ring.submit()
    loop.add_reader(ring, print, loop)
    return ring, place
