"""Live objects of every extension type, for mishandle.py.

A maker is a coroutine that yields objects while they are alive; behind its yield they are closed,
and are handled once more, and again when their loop is closed.
"""

import asyncio
import contextlib
import gc
import io
import os
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import netpoll
from netpoll import http
from netpoll._files.operations import is_ring
from netpoll._http import codings
from netpoll._native.files import operations as native_files
from netpoll._native.http import asgi as native_asgi
from netpoll._native.http import compression as native_compression
from netpoll._native.http import encoder as native_encoder
from netpoll._native.http import meter as native_meter
from netpoll._native.http import own_pages as native_pages
from netpoll._native.http import parser as native_http
from netpoll._native.http import raw as native_raw
from netpoll._native.http import request_id as native_ids
from netpoll._native.http import served_file as native_served
from netpoll._native.http import websocket as native_websocket
from netpoll._native.http import wire as native_wire
from netpoll._native.http import wsgi as native_wsgi
from netpoll._native.loop import sendfile as native_sendfile
from netpoll._native.sched import alarm as native_alarm
from netpoll._native.sched import task as native_task
from netpoll._native.testing import faults as native_faults
from netpoll._native.tls import transport as native_tls
from netpoll._native.transport import pipe as native_pipe

MAKERS: list[Callable[..., Any]] = []


def maker(function: Callable[..., Any]) -> Callable[..., Any]:
    MAKERS.append(function)
    return function


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def connected(protocol: Any = asyncio.Protocol) -> tuple[Any, Any, Any]:
    """A transport, its peer's, and the server."""
    loop = asyncio.get_running_loop()
    made: list[Any] = []

    def factory() -> Any:
        made.append(Echo())
        return made[0]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(protocol, *server.sockets[0].getsockname())
    while not made or not hasattr(made[0], "transport"):
        await asyncio.sleep(0)
    return transport, made[0].transport, server


@maker
async def transports() -> AsyncIterator[list[Any]]:
    transport, peer, server = await connected()
    transport.write(b"x" * 100000)
    yield [transport, peer, transport.get_extra_info("socket"), server]
    transport.abort()


@maker
async def buffered_and_paused() -> AsyncIterator[list[Any]]:
    class Buffered(asyncio.BufferedProtocol):
        def get_buffer(self, _hint: int) -> bytearray:
            return bytearray(10)

        def buffer_updated(self, nbytes: int) -> None:
            pass

    transport, peer, server = await connected(Buffered)
    transport.pause_reading()
    peer.write(b"x" * 1000)
    await asyncio.sleep(0.01)
    yield [transport, server]
    server.close()


@maker
async def acceptors() -> AsyncIterator[list[Any]]:
    _, _, server = await connected()
    yield [*asyncio.get_running_loop()._acceptors.values(), server]  # type: ignore[attr-defined]


@maker
async def streams() -> AsyncIterator[list[Any]]:
    served = []

    async def serve(reader: Any, writer: Any) -> None:
        served.append((reader, writer))
        await reader.read(1)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    while not served:
        await asyncio.sleep(0)
    native = [reader._core, writer.drain(), reader.read(10), reader.readuntil(b"x")]
    waiting = reader.readexactly(5)
    with contextlib.suppress(Exception):
        waiting.send(None)
    yield [*native, waiting, reader, writer, served[0][0]]
    writer.close()


@maker
async def exchanges() -> AsyncIterator[list[Any]]:
    _, writer = await asyncio.open_connection(sock=socket.socketpair()[0])
    yield [writer.drain(), writer]


@maker
async def tls() -> AsyncIterator[list[Any]]:
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    one, other = socket.socketpair()
    layer = native_tls.make_layer(loop, asyncio.Protocol(), context, None)  # type: ignore[arg-type]
    below, _ = await loop.create_connection(lambda: layer, sock=one)
    yield [layer._app_transport, layer, below]
    other.close()


@maker
async def datagrams() -> AsyncIterator[list[Any]]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    transport.sendto(b"x", transport.get_extra_info("sockname"))
    yield [transport, loop._datagram_memory]  # type: ignore[attr-defined]
    transport.abort()


@maker
async def pipes() -> AsyncIterator[list[Any]]:
    loop = asyncio.get_running_loop()
    r, w = os.pipe()
    reading, _ = await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(r, "rb"))
    writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(w, "wb"))
    writing.write(b"x" * 100000)
    yield [reading, writing]
    reading.close()
    writing.abort()


@maker
async def processes() -> AsyncIterator[list[Any]]:
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    transport: Any = process._transport  # type: ignore[attr-defined]
    pipe: Any = transport._pipes[1]
    yield [pipe, pipe.transport, native_pipe.ChildPipe(transport, 1)]
    process.kill()
    await process.wait()


@maker
async def handles() -> AsyncIterator[list[Any]]:
    loop = asyncio.get_running_loop()
    r, w = socket.socketpair()
    loop.add_reader(r, print)
    watchers = list(loop._readers.values())  # type: ignore[attr-defined]
    made = [
        loop.call_soon(len, ()),
        loop.call_later(0.01, len, ()),
        loop.call_at(1e12, len, ()),
        loop.call_soon_threadsafe(len, ()),
        *watchers,
        watchers[-1]._handle,
    ]
    loop.set_debug(True)
    yield [*made, loop.call_soon(len, ()), loop.call_later(5, len, ())]
    loop.set_debug(False)
    w.close()


@maker
async def socket_calls() -> AsyncIterator[list[Any]]:
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    listening = socket.create_server(("127.0.0.1", 0))
    for sock in (one, other, listening):
        sock.setblocking(False)
    file = tempfile.TemporaryFile()
    calls: list[Any] = [
        loop.sock_recv(one, 10),
        loop.sock_recv_into(one, bytearray(5)),
        loop.sock_sendall(one, b"x"),
        loop.sock_accept(listening),
        loop.sock_recvfrom(one, 5),
        loop._connect_resolved(socket.socket(), ("127.0.0.1", 9)),  # type: ignore[attr-defined]
        native_sendfile.send_file(loop, one, file, 0, None),
    ]
    waiting: Any = loop.sock_recv(other, 10)
    waiting.send(None)
    yield [*calls, waiting]
    one.close()
    other.close()


@maker
async def files() -> AsyncIterator[list[Any]]:
    loop: Any = asyncio.get_running_loop()
    if not is_ring(loop):
        yield []
        return
    from netpoll import uring
    from netpoll._native.loop import sqe as native_sqe

    r, _w = os.pipe()
    fd = os.open(os.devnull, os.O_RDWR)
    waiting = native_files.read(loop, r, 10)
    waiting.send(None)
    operations = [
        waiting,
        native_files.read(loop, fd, 5),
        native_files.readinto(loop, r, bytearray(5)),
        native_files.write(loop, fd, b"x"),
        native_files.fsync(loop, fd),
        native_files.open(loop, "/dev/null", 0),
        native_files.close(loop, fd),
    ]
    entry = uring.sqe()
    uring.lib.io_uring_prep_poll_add(entry, r, 1)
    operation = uring.submit(entry)
    assert isinstance(operation, native_sqe.Operation)
    yield [*operations, operation, operation.wait()]
    operation.cancel()


@maker
async def pools() -> AsyncIterator[list[Any]]:
    pool = netpoll.BufferPool(1 << 22, hugepages="off")
    pool.attach()
    buffer = pool.reserve(100)
    buffer.write(b"abc")
    yield [buffer, pool.reserve(4096), pool]
    with contextlib.suppress(Exception):
        buffer.release()


@maker
async def parsers() -> AsyncIterator[list[Any]]:
    parser = native_http.RequestParser()
    parser.feed(b"GET / HTTP/1.1\r\nHo")
    yield [parser]


BIG = bytes(1 << 24)  # more than a socket takes
POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab"
UPGRADE = (
    b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n"
)


async def asked(app: Any, met: list[Any], request: bytes = POST) -> Any:
    """A server of HTTP whose application waits with a request, part of whose body is there."""
    server = http.Server(app, "127.0.0.1", 0, lifespan="off")
    await server.astart()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    while not met:
        await asyncio.sleep(0.001)
    met.extend(one for one in gc.get_objects() if type(one) is native_wire.Wire)
    met.append(server._handler_of(asyncio.get_running_loop()))
    return server, writer


@maker
async def equipment() -> AsyncIterator[list[Any]]:
    """What a deployment asks of a server of HTTP."""
    coders = {"gzip": lambda: codings.Gzip(6)}
    application = native_wire.Application()
    yield [
        native_meter.Meter(),
        native_ids.RequestIds(b"x-request-id"),
        native_pages.OwnPages(application, {b"/health": print}, print),
        native_compression.Compression(str, coders, bool, print, print, 0, 1),
        native_encoder.AnswerCoding(),
    ]


@maker
async def served_files() -> AsyncIterator[list[Any]]:
    cache = native_served.FileCache()
    small, large = cache.find(__file__), cache.find(sys.executable)
    yield [cache, small, large, native_served.FileParts(small, [b"x", (0, 1)])]


@maker
async def http_functions() -> AsyncIterator[list[Any]]:
    met: list[Any] = []

    async def handler(request: http.Request) -> None:
        met.extend([request, request.read(), http.Response(b"x"), asyncio.current_task()])
        await asyncio.sleep(1000)

    server, writer = await asked(handler, met)
    rules = native_websocket.SocketRules(None, None, None, None)
    application = native_raw.RawApplication(handler, True, print, rules)
    yield [*met, rules, application, native_wire.Application()]
    writer.close()
    await server.aclose(0)


@maker
async def http_applications() -> AsyncIterator[list[Any]]:
    met: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        message = {"type": "http.response.body", "body": BIG, "more_body": True}
        met.extend([receive.__self__, receive(), send(message)])
        await asyncio.sleep(1000)

    server, writer = await asked(app, met)
    rules = native_websocket.SocketRules(None, None, None, None)
    yield [*met, native_asgi.AsgiApplication(app, None, "http", "", print, rules)]
    writer.close()
    await server.aclose(0)


@maker
async def websockets_of_functions() -> AsyncIterator[list[Any]]:
    met: list[Any] = []

    async def handler(request: http.Request) -> None:
        websocket = request.websocket()
        met.extend([websocket, anext(websocket), websocket.send(b"x"), websocket.send(BIG)])
        await asyncio.sleep(1000)

    server, writer = await asked(handler, met, UPGRADE)
    yield met
    writer.close()
    await server.aclose(0)


@maker
async def websockets_of_applications() -> AsyncIterator[list[Any]]:
    met: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        met.extend([receive.__self__, receive()])
        await asyncio.sleep(1000)

    server, writer = await asked(app, met, UPGRADE)
    yield met
    writer.close()
    await server.aclose(0)


@maker
async def wsgi_applications() -> AsyncIterator[list[Any]]:
    met: list[Any] = []
    gate = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        met.extend([environ["wsgi.input"], start_response.__self__])
        gate.wait(60)
        return []

    server, writer = await asked(app, met)
    loop = asyncio.get_running_loop()
    wrapper = native_wsgi.FileWrapper(io.BytesIO(b"x"))
    inline = native_wsgi.WsgiApplication(app, loop, None, "http", "", False, False, print)
    yield [*met, wrapper, inline]
    gate.set()
    writer.close()
    await server.aclose(0)


@maker
async def secure_workers() -> AsyncIterator[list[Any]]:
    from netpoll._native.server.secure import SecureWorker

    options = {
        "limits": netpoll.ServerLimits(),
        "pool": None,
        "ended": print,
        "proxies": None,
        "ssl": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
    }
    loop = asyncio.get_running_loop()
    yield [SecureWorker(loop, print, False, None, None, options)]


@maker
async def seats() -> AsyncIterator[list[Any]]:
    from netpoll._native.http.forwarded import Forwarded
    from netpoll._native.server.networks import Networks
    from netpoll._native.server.seats import Seats

    networks = Networks("10.0.0.0/8,*")
    yield [Seats(2), networks, Forwarded(networks)]


async def served(handler: Any, **options: Any) -> tuple[Any, Any, Any]:
    server = netpoll.Server(handler, host="127.0.0.1", port=0, **options)
    await server.__aenter__()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"hello world\n" * 100)
    return server, reader, writer


@maker
async def connections() -> AsyncIterator[list[Any]]:
    met: list[Any] = []

    def on_data(conn: Any) -> None:
        lease = conn.lease(50).retain()
        met.extend([lease, conn.peek_lease(5), *[view.obj for view in lease.pieces()]])
        met.append(conn)

    server, _, _ = await served(on_data)
    while not met:
        await asyncio.sleep(0.001)
    yield [
        *met,
        *server._workers,
        server._listener if hasattr(server, "_listener") else None,
        *getattr(server, "_listeners", []),
    ]
    server._begin_stop()


@maker
async def sessions() -> AsyncIterator[list[Any]]:
    met: list[Any] = []

    async def session(conn: Any) -> None:
        met.extend([asyncio.current_task(), conn.fill(10), conn.drain(), conn])
        await conn.fill(100000 - 1)

    server, _, _ = await served(session, limits=netpoll.ServerLimits(unread_max_bytes=1 << 20))
    while not met:
        await asyncio.sleep(0.001)
    yield met
    server._begin_stop()


@maker
async def scheduled() -> AsyncIterator[list[Any]]:
    from netpoll._native.sched.offload import ConnectionTask, Outbox

    scheduler = netpoll.Scheduler(1)
    loop = scheduler.loop()

    async def forever() -> None:
        await netpoll.sched.sleep(1000)

    tasks: list[Any] = [
        scheduler.spawn(forever),
        scheduler.spawn(len, ()),
        scheduler.spawn(int, "x"),
    ]
    outbox = Outbox(asyncio.get_running_loop())
    task = ConnectionTask(scheduler, outbox, len, print, print, 1)
    yield [
        *tasks,
        native_alarm.Sleep(0.5),
        native_task.Join(tasks[0]),
        native_alarm.Alarm(scheduler, 0.01, print),
        outbox,
        task,
        scheduler,
        loop,
    ]
    with contextlib.suppress(Exception):
        scheduler._stop(True)


@maker
async def loops() -> AsyncIterator[list[Any]]:
    other = netpoll.new_event_loop()
    half = netpoll.EventLoop.__new__(netpoll.EventLoop)
    yield [other, half, asyncio.get_running_loop()]


@maker
async def fault_plans() -> AsyncIterator[list[Any]]:
    yield [native_faults.FaultPlan(1, {"delay": 0.5})]


@maker
async def loads() -> AsyncIterator[list[Any]]:
    from netpoll.bench import _native

    listening = socket.create_server(("127.0.0.1", 0))
    load = _native.Load(listening.getsockname(), 1, 10, stall_s=0.1)
    exchanges = [(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"hello")]
    http_load = _native.HttpLoad(listening.getsockname(), 1, exchanges, stall_s=0.1)
    yield [load, http_load]
    load.close()
    http_load.close()


def run(backend: str, make: Any, handle: Callable[[Any], None]) -> None:
    """Handles what a maker makes: alive in its loop, closed, and with the loop closed."""
    loop: Any = netpoll.new_event_loop(backend)
    loop.set_exception_handler(lambda _loop, _context: None)
    kept: list[Any] = []

    async def main() -> None:
        made = make()
        try:
            kept.extend(item for item in await anext(made) if item is not None)
        except BaseException as exc:
            raise SystemExit(f"{make.__name__} makes nothing: {exc!r}") from exc
        for _ in range(2):
            for item in kept:
                handle(item)
            await asyncio.sleep(0)
            await asyncio.sleep(0.005)
            with contextlib.suppress(StopAsyncIteration):
                await anext(made)

    try:
        loop.run_until_complete(main())
    except SystemExit as exc:
        if "makes nothing" in str(exc):
            os.write(200, str(exc).encode())
            os._exit(4)
    except BaseException:
        pass
    with contextlib.suppress(BaseException):
        loop.run_until_complete(asyncio.sleep(0.005))
    with contextlib.suppress(BaseException):
        type(loop).close(loop)
    for item in kept:
        handle(item)
