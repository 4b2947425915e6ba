"""Attributes of a program's own on a transport, methods replaced on one, and private names.

Tests of web projects do it all the time: mock.patch.object(transport, "write").
"""

import asyncio
import ctypes
import os
import ssl
from typing import Any
from unittest import mock

import pytest

from ..support import Recorder, pair, stream_pair, until
from ..tls import client_context, server_context, tls_pair
from .datagrams import Recorder as DatagramRecorder

pytestmark = pytest.mark.control

TP_CLEAR = 51  # Py_tp_clear of typeslots.h


async def plain(loop: Any) -> tuple[Any, list[Any]]:
    client, served = await pair(loop)
    return client.transport, [client, served]


async def over_tls(loop: Any) -> tuple[Any, list[Any]]:
    client, served = await tls_pair(loop)
    return client.transport, [client, served]


async def datagram(loop: Any) -> tuple[Any, list[Any]]:
    transport, protocol = await loop.create_datagram_endpoint(
        DatagramRecorder, local_addr=("127.0.0.1", 0)
    )
    return transport, [protocol]


class Pipe(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


async def pipe(loop: Any) -> tuple[Any, list[Any]]:
    reading, writing = os.pipe()
    transport, reader = await loop.connect_read_pipe(Pipe, open(reading, "rb", 0))
    _, writer = await loop.connect_write_pipe(Pipe, open(writing, "wb", 0))
    return transport, [reader, writer]


async def end(protocols: list[Any]) -> None:
    for protocol in protocols:
        (getattr(protocol.transport, "abort", None) or protocol.transport.close)()
    await asyncio.gather(*(protocol.lost for protocol in protocols))


@pytest.mark.parametrize("make", [plain, over_tls, datagram, pipe])
async def test_attributes_of_ones_own(loop: Any, make: Any) -> None:
    transport, protocols = await make(loop)
    transport.request_id = 12
    transport._owner = protocols
    assert (transport.request_id, transport._owner) == (12, protocols)
    assert "request_id" in vars(transport)
    del transport.request_id
    assert not hasattr(transport, "request_id")
    with mock.patch.object(transport, "is_closing", return_value="maybe"):
        assert transport.is_closing() == "maybe"
    assert transport.is_closing() is False
    assert "is_closing" not in vars(transport)
    await end(protocols)


def clear(thing: Any) -> None:
    """tp_clear, as the garbage collector calls it."""
    get_slot = ctypes.pythonapi.PyType_GetSlot
    get_slot.argtypes, get_slot.restype = [ctypes.py_object, ctypes.c_int], ctypes.c_void_p
    slot = get_slot(type(thing), TP_CLEAR)
    assert slot is not None
    ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object)(slot)(thing)


@pytest.mark.netpoll_only
@pytest.mark.parametrize("has_attributes", [False, True])
@pytest.mark.parametrize("make", [plain, over_tls, datagram, pipe])
async def test_attributes_while_the_collector_clears(
    loop: Any, make: Any, has_attributes: bool
) -> None:
    """Finalisers run then, and may look at a transport that is cleared, or being cleared."""
    transport, protocols = await make(loop)
    found = []

    class Looks:
        def __del__(self) -> None:
            found.append(getattr(transport, "note", "none"))
            transport.note = len(found)
            found.append(dict(vars(transport)))

    if has_attributes:
        transport.looks = Looks()
    await end(protocols)
    await asyncio.sleep(0.01)
    clear(transport)
    assert found == (["none", {"note": 1}] if has_attributes else [])
    assert not hasattr(transport, "looks") and not hasattr(transport, "nothing")
    assert set(vars(transport)) <= {"note"}
    transport.more = 1
    assert vars(transport)["more"] == 1
    del transport.more


@pytest.mark.parametrize("make", [plain, over_tls])
async def test_write_replaced_on_one_transport(loop: Any, make: Any) -> None:
    transport, protocols = await make(loop)
    transport.write(b"before ")
    with mock.patch.object(transport, "write") as write:
        transport.write(b"not sent")
    transport.write(b"after")
    write.assert_called_once_with(b"not sent")
    await until(lambda: protocols[1].data == b"before after")
    await end(protocols)


@pytest.mark.parametrize("tls", [False, True])
async def test_streams_honour_a_replaced_write(loop: Any, tls: bool) -> None:
    """Also those that write natively: a server's StreamWriter."""
    got: list[bytes] = []
    accepted: asyncio.Future[asyncio.StreamWriter] = loop.create_future()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(writer)

    server = await asyncio.start_server(
        served, "127.0.0.1", 0, ssl=server_context() if tls else None
    )
    options: dict[str, Any] = {"ssl": client_context(), "server_hostname": "localhost"}
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), **(options if tls else {})
    )
    for end in (writer, await accepted):
        end.transport.note = "an attribute alone changes nothing"
        with mock.patch.object(end.transport, "write", side_effect=got.append):
            end.write(b"kept")
            await end.drain()
        end.write(b"sent\n")
    assert got == [b"kept", b"kept"]
    assert await reader.readline() == b"sent\n"
    for end in (writer, await accepted):
        end.transport.abort()
    server.close()
    await asyncio.sleep(0.01)


async def test_streams_honour_replaced_flow_control(loop: Any) -> None:
    (_reader, writer), (_, other) = await stream_pair(loop, limit=16)
    transport: Any = writer.transport
    with mock.patch.object(transport, "pause_reading") as pause:
        other.write(bytes(4096))
        await until(lambda: pause.called)
    for end in (writer, other):
        end.transport.abort()
    await asyncio.sleep(0.01)


async def test_tls_honours_the_write_of_the_transport_below(loop: Any) -> None:
    connected, served = await tls_pair(loop)
    below = connected.transport._ssl_protocol._transport
    records: list[int] = []
    write = below.write

    def counted(data: bytes) -> None:
        records.append(len(data))
        write(data)

    below.write = counted
    connected.transport.write(b"seen")
    await until(lambda: served.data == b"seen")
    assert sum(records) > len(b"seen")
    await end([connected, served])


async def test_close_replaced_is_what_the_end_of_the_stream_calls(loop: Any) -> None:
    client, served = await pair(loop)
    transport = served.transport
    with mock.patch.object(transport, "close", wraps=transport.close) as close:
        client.transport.write_eof()
        await served.lost
        close.assert_called_with()
    await end([client])


# ---- private names that programs read ---------------------------------------------------------


async def test_private_names_of_a_stream_transport(loop: Any) -> None:
    client, served = await pair(loop)
    transport = served.transport
    assert transport._loop is loop
    assert transport._protocol is served
    assert transport._sock.getsockname() == transport.get_extra_info("sockname")
    assert transport._sock_fd == transport._sock.fileno()
    assert {"socket", "sockname", "peername"} <= set(transport._extra)
    transport._extra["mine"] = 1
    assert transport.get_extra_info("mine") == 1
    assert (transport._eof, transport._closing, transport._conn_lost) == (False, False, 0)
    assert (transport._high_water, transport._low_water) == (65536, 16384)
    assert transport._server is not None
    assert transport.max_size == 256 * 1024
    other = Recorder()
    transport._protocol = other
    assert transport.get_protocol() is other
    transport._protocol = served
    transport.write_eof()
    assert transport._eof is True
    transport.close()
    assert (transport._closing, transport._conn_lost) == (True, 1)
    await served.lost
    await asyncio.sleep(0)
    assert transport._sock is None
    client.transport.abort()
    await client.lost


async def test_private_names_of_a_tls_transport(loop: Any) -> None:
    context = client_context()
    connected, served = await tls_pair(loop, client=context)
    transport = connected.transport
    layer = transport._ssl_protocol
    assert layer._sslcontext is context
    assert layer._transport.get_extra_info("peername") == transport.get_extra_info("peername")
    assert layer._app_transport is transport and layer._app_protocol is connected
    assert layer._sslobj.version() == transport.get_extra_info("ssl_object").version()
    assert layer._extra["sslcontext"] is context
    assert ssl.DER_cert_to_PEM_cert(layer._extra["ssl_object"].getpeercert(True))
    assert transport._loop is loop and layer._loop is loop
    assert transport._closed is False
    transport.abort()
    assert transport._closed is True
    served.transport.abort()
    await asyncio.gather(connected.lost, served.lost)


async def test_private_names_of_a_datagram_transport(loop: Any) -> None:
    transport, protocol = await loop.create_datagram_endpoint(
        DatagramRecorder, remote_addr=("127.0.0.1", 9)
    )
    assert transport._protocol is protocol and transport._loop is loop
    assert transport._sock.fileno() == transport._sock_fd
    assert transport._conn_lost == 0
    transport.abort()
    await protocol.lost
    await asyncio.sleep(0)
    assert transport._sock is None


async def test_private_names_of_a_subprocess_transport(loop: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    transport: Any = process._transport  # type: ignore[attr-defined]
    assert transport._proc.pid == transport._pid == process.pid
    assert transport._pipes[0].pipe is process.stdin.transport  # type: ignore[union-attr]
    stdin: Any = process.stdin.transport  # type: ignore[union-attr]
    assert stdin._conn_lost == 0 and stdin._closing is False
    assert stdin._pipe.fileno() == stdin._fileno
    with mock.patch.object(stdin, "write") as write:
        process.stdin.write(b"kept")  # type: ignore[union-attr]
    write.assert_called_once_with(b"kept")
    assert await process.communicate(b"sent") == (b"sent", None)
