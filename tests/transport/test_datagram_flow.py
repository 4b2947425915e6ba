"""Datagram endpoints under pressure: flow control, segments, interrupts, loops that end."""

import asyncio
import contextlib
import gc
import itertools
import os
import resource
import socket
import struct
import warnings
from typing import Any

import pytest

from ..support import SLOWNESS, child_output, is_netpoll, until
from .datagrams import Recorder, bound, closed, connected, echo

pytestmark = pytest.mark.control

UDP_GRO = 104  # linux/udp.h; the socket module has no name for it


def full_pair() -> tuple[socket.socket, socket.socket]:
    """Connected Unix datagram sockets with names; what `taker` does not take makes `sender` wait,
    which loopback's UDP never does."""
    taker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    taker.bind(b"")
    taker.setblocking(False)
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.bind(b"")
    sender.connect(taker.getsockname())
    return sender, taker


def drain(taker: socket.socket) -> list[bytes]:
    got = []
    with contextlib.suppress(BlockingIOError):
        while True:
            got.append(taker.recv(65536))
    return got


# ---- flow control -----------------------------------------------------------------------------


async def test_watermarks(loop: Any) -> None:
    transport, _ = await bound(loop)
    assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
    transport.set_write_buffer_limits(high=1000)
    assert transport.get_write_buffer_limits() == (250, 1000)
    transport.set_write_buffer_limits(low=10)
    assert transport.get_write_buffer_limits() == (10, 40)
    transport.set_write_buffer_limits()
    assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
    with pytest.raises(ValueError, match="must be >="):
        transport.set_write_buffer_limits(high=5, low=10)
    await closed(transport)


async def test_a_protocol_is_paused_and_resumed(loop: Any, backend: str) -> None:
    sender, taker = full_pair()
    transport, protocol = await loop.create_datagram_endpoint(Recorder, sock=sender)
    transport.set_write_buffer_limits(high=20_000, low=5_000)
    sent = [b"%d." % i + bytes(1000) for i in range(600)]
    for data in sent:
        transport.sendto(data)
        if protocol.count("pause"):
            break
    assert protocol.count("pause") == 1
    assert transport.get_write_buffer_size() > 20_000
    sent = sent[: sent.index(data) + 1]
    got: list[bytes] = []

    def taken() -> bool:
        got.extend(drain(taker))
        return len(got) == len(sent)

    await until(taken)
    await until(lambda: protocol.count("resume"))
    assert got == sent
    if is_netpoll(backend):  # asyncio 3.13 never takes off the 8 bytes for each that had to wait
        assert transport.get_write_buffer_size() == 0
    assert [event[0] for event in protocol.events] == ["made", "pause", "resume"]
    await closed(transport)
    taker.close()


@pytest.mark.control_since((3, 11, 7))
async def test_reading_is_resumed_when_there_is_room_to_write(loop: Any) -> None:
    class Careful(Recorder):
        def resume_writing(self) -> None:
            super().resume_writing()
            self.transport.resume_reading()

    sender, taker = full_pair()
    transport, protocol = await loop.create_datagram_endpoint(Careful, sock=sender)
    transport.pause_reading()
    await asyncio.sleep(0.01)
    transport.set_write_buffer_limits(high=20_000, low=5_000)
    while not protocol.count("pause"):
        transport.sendto(bytes(1000))
    await until(lambda: drain(taker) and protocol.count("resume"))
    taker.sendto(b"go on", sender.getsockname())
    await until(lambda: protocol.data == [b"go on"])
    await closed(transport)
    taker.close()


async def test_close_waits_for_a_full_socket(loop: Any) -> None:
    sender, taker = full_pair()
    transport, protocol = await loop.create_datagram_endpoint(Recorder, sock=sender)
    sent = [b"%d" % i for i in range(600)]
    for data in sent:
        transport.sendto(data)
    assert transport.get_write_buffer_size() > 0
    transport.close()
    await asyncio.sleep(0.01)
    assert not protocol.lost.done()
    got: list[bytes] = []

    def taken() -> bool:
        got.extend(drain(taker))
        return len(got) == len(sent)

    await until(taken)
    assert got == sent
    assert await protocol.lost is None
    taker.close()


async def test_abort_drops_what_a_full_socket_does_not_take(loop: Any) -> None:
    sender, taker = full_pair()
    transport, protocol = await loop.create_datagram_endpoint(Recorder, sock=sender)
    for i in range(600):
        transport.sendto(b"%d" % i)
    transport.abort()
    assert await protocol.lost is None
    got = drain(taker)
    assert got == [b"%d" % i for i in range(len(got))]
    assert len(got) < 600
    taker.close()


async def test_sending_from_error_received(loop: Any) -> None:
    """The protocol calls back in the middle of a flush."""

    class Sends(Recorder):
        def error_received(self, exc: Exception) -> None:
            super().error_received(exc)
            self.transport.sendto(b"after the error", self.other)

    server, served = await bound(loop)
    transport, protocol = await loop.create_datagram_endpoint(Sends, local_addr=("127.0.0.1", 0))
    protocol.other = name = server.get_extra_info("sockname")
    transport.sendto(b"1", name)
    transport.sendto(bytes(65508), name)
    transport.sendto(b"2", name)
    await until(lambda: len(served.data) == 3)
    assert sorted(served.data) == [b"1", b"2", b"after the error"]
    assert len(protocol.errors) == 1
    await closed(server, transport)


async def test_closing_from_error_received(loop: Any) -> None:
    class Closes(Recorder):
        def error_received(self, exc: Exception) -> None:
            super().error_received(exc)
            self.transport.abort()

    server, _ = await bound(loop)
    name = server.get_extra_info("sockname")
    transport, protocol = await loop.create_datagram_endpoint(Closes, remote_addr=name)
    transport.sendto(bytes(65508))
    transport.sendto(b"dropped, or sent")
    assert await protocol.lost is None
    assert [event[0] for event in protocol.events] == ["made", "error", "lost"]
    await closed(server)


# ---- more addresses than are kept -------------------------------------------------------------


async def test_more_senders_than_addresses_are_kept(loop: Any) -> None:
    """2000 addresses through a cache of 512: each answer goes where it belongs, twice."""
    server, _ = await bound(loop, on_datagram=echo)
    name = server.get_extra_info("sockname")
    clients = []
    for i in range(2000):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((f"127.0.{1 + i // 200}.{1 + i % 200}", 0))
        sock.setblocking(False)
        clients.append(sock)
    for round_number in range(2):
        for start in range(0, 2000, 100):
            for i in range(start, start + 100):
                clients[i].sendto(b"%d.%d" % (round_number, i), name)
            for i in range(start, start + 100):
                assert await loop.sock_recv(clients[i], 100) == b"%d.%d" % (round_number, i)
    await closed(server)
    for sock in clients:
        sock.close()


@pytest.mark.netpoll_only
async def test_one_tuple_for_two_families(loop: Any) -> None:
    """An address that the one socket understood is not sent to by a socket of another family."""
    four, protocol_of_four = await bound(loop)
    six, protocol_of_six = await bound(loop, "::1")
    name = ("127.0.0.1", four.get_extra_info("sockname")[1])
    four.sendto(b"to myself", name)
    await until(lambda: protocol_of_four.data)
    six.sendto(b"wrong family", name)
    await until(lambda: protocol_of_six.errors)
    assert isinstance(protocol_of_six.errors[0], socket.gaierror)
    await closed(four, six)


# ---- segmented sends and receives -------------------------------------------------------------


def has_gro(sock: socket.socket) -> bool:
    try:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    except OSError:
        return False
    return True


@pytest.mark.netpoll_only
async def test_a_run_of_equal_datagrams_leaves_as_one_message(loop: Any) -> None:
    taker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taker.bind(("127.0.0.1", 0))
    taker.settimeout(10)
    if not has_gro(taker):
        pytest.skip("this kernel has no UDP_GRO")
    client, _ = await bound(loop)
    sent = [bytes([i]) * 200 for i in range(10)] + [b"end"]
    for data in sent:
        client.sendto(data, taker.getsockname())
    data, control, _, _ = await loop.run_in_executor(None, taker.recvmsg, 65536, 64)
    assert data == b"".join(sent)
    assert [struct.unpack("i", value)[0] for _, _, value in control] == [200]
    await closed(client)
    taker.close()


@pytest.mark.netpoll_only
async def test_received_runs_are_taken_apart(loop: Any) -> None:
    taker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taker.bind(("127.0.0.1", 0))
    if not has_gro(taker):
        pytest.skip("this kernel has no UDP_GRO")
    server, served = await loop.create_datagram_endpoint(Recorder, sock=taker)
    clients = [(await connected(loop, server))[0] for _ in range(3)]
    sent: dict[Any, list[bytes]] = {}
    for number, client in enumerate(clients):
        sent[client.get_extra_info("sockname")] = mine = []
        for i in range(20):
            mine.append(bytes([number, i]) * 100)
        mine += [b"short", b"", b"x" * 300, b"y" * 300]
        for data in mine:
            client.sendto(data)
    await until(lambda: len(served.data) == 3 * 24)
    for name, mine in sent.items():
        assert [event[1] for event in served.events if event[0] == "got" and event[2] == name] == (
            mine
        )
    await closed(server, *clients)


@pytest.mark.netpoll_only
async def test_a_run_that_is_paused_in_its_middle(loop: Any) -> None:
    def pause(protocol: Recorder, data: bytes, addr: Any) -> None:
        if data[0] == 4:
            protocol.transport.pause_reading()

    taker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taker.bind(("127.0.0.1", 0))
    if not has_gro(taker):
        pytest.skip("this kernel has no UDP_GRO")
    server, served = await loop.create_datagram_endpoint(lambda: Recorder(pause), sock=taker)
    client, _ = await connected(loop, server)
    sent = [bytes([i]) * 100 for i in range(10)]
    for data in sent:
        client.sendto(data)
    await until(lambda: len(served.data) == 5)
    await asyncio.sleep(0.01)
    assert served.data == sent[:5]
    server.resume_reading()
    await until(lambda: len(served.data) == 10)
    assert served.data == sent
    await closed(server, client)


# ---- interrupts, forks, loops that end --------------------------------------------------------


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_loses_no_datagram(loop: Any, interrupt: type[BaseException]) -> None:
    def raise_once(protocol: Recorder, data: bytes, addr: Any) -> None:
        if data == b"2":
            raise interrupt

    server, served = loop.run_until_complete(bound(loop, on_datagram=raise_once))
    client, _ = loop.run_until_complete(connected(loop, server))
    for i in range(6):
        client.sendto(b"%d" % i)
    with pytest.raises(interrupt):
        loop.run_until_complete(asyncio.sleep(10))
    loop.run_until_complete(until(lambda: len(served.data) == 6))
    assert served.data == [b"%d" % i for i in range(6)]
    loop.run_until_complete(closed(server, client))


def test_a_transport_that_outlives_its_loop(loop_factory: Any) -> None:
    loop = loop_factory()
    transport, _ = loop.run_until_complete(bound(loop))
    fd = transport.get_extra_info("socket").fileno()
    loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del transport, _
        gc.collect()
    assert any("unclosed transport" in str(w.message) for w in caught)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def _fork_with_an_endpoint() -> None:
    import asyncio
    import os

    class Keep(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.got: list[bytes] = []

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: object) -> None:
            self.got.append(data)

    def exchange(loop: asyncio.AbstractEventLoop, taker: object, keep: Keep, data: bytes) -> None:
        async def send() -> None:
            name = taker.get_extra_info("sockname")  # type: ignore[attr-defined]
            sender, _ = await loop.create_datagram_endpoint(Keep, remote_addr=name)
            sender.sendto(data)
            while data not in keep.got:
                await asyncio.sleep(0.001)
            sender.close()

        loop.run_until_complete(asyncio.wait_for(send(), 20))

    def endpoint(loop: asyncio.AbstractEventLoop) -> tuple[object, Keep]:
        return loop.run_until_complete(
            loop.create_datagram_endpoint(Keep, local_addr=("127.0.0.1", 0))
        )

    loop = new_loop()  # type: ignore[name-defined]
    transport, keep = endpoint(loop)
    exchange(loop, transport, keep, b"before")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            own = new_loop()  # type: ignore[name-defined]
            exchange(own, *endpoint(own), b"in the child")
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    exchange(loop, transport, keep, b"after")
    assert keep.got == [b"before", b"after"]


def test_a_fork_leaves_the_parents_endpoint_alone(backend: str) -> None:
    child_output(backend, _fork_with_an_endpoint)


async def test_a_reused_descriptor_gets_nothing_of_the_old_one(loop: Any) -> None:
    """Closed with datagrams waiting, and its number taken by the next endpoint at once."""
    numbers = set()
    for round_number in range(100):
        old, old_protocol = await bound(loop)
        numbers.add(old.get_extra_info("socket").fileno())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(5):
                sender.sendto(b"old", old.get_extra_info("sockname"))
        if round_number % 2:
            old.abort()
        else:
            old.close()
        await old_protocol.lost
        new, new_protocol = await bound(loop)
        numbers.add(new.get_extra_info("socket").fileno())
        client, _ = await connected(loop, new)
        client.sendto(b"new")
        await until(lambda protocol=new_protocol: protocol.data)
        assert new_protocol.data == [b"new"]
        await closed(new, client)
    assert len(numbers) < 10, "the numbers were used again"


def test_five_hundred_endpoints_leave_nothing(loop: Any) -> None:
    """Memory and descriptors after 500 cycles of open, use and close are those after 250."""

    async def cycle() -> None:
        for _ in range(25):
            server, _ = await bound(loop, on_datagram=echo)
            client, protocol = await connected(loop, server)
            for size_bytes in (10, 10, 1400, 9000):
                client.sendto(bytes(size_bytes))
            await until(lambda protocol=protocol: len(protocol.data) == 4)
            await closed(server, client)

    def rss_bytes() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    for _ in range(10):
        loop.run_until_complete(cycle())
    gc.collect()
    before_bytes, fds = rss_bytes(), len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        loop.run_until_complete(cycle())
    gc.collect()
    # A leak of 250 bytes a cycle is more; sanitizers keep what was freed.
    assert rss_bytes() - before_bytes < (1 << 17) * (64 if SLOWNESS > 1 else 1)
    assert len(os.listdir("/proc/self/fd")) == fds


async def test_a_flood_does_not_hold_the_loop(loop: Any) -> None:
    """Callbacks have their turn although more datagrams wait than a turn may deliver."""
    server, served = await bound(loop)
    # Twice this (the kernel doubles it) holds 500 of the smallest; larger may be refused.
    server.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 212_992)
    client, _ = await connected(loop, server)
    for _ in range(500):
        client.sendto(b"x")
    seen = [0]
    while seen[-1] < 500 and len(seen) < 10_000:
        await asyncio.sleep(0)
        seen.append(len(served.data))
    assert seen[-1] == 500
    assert max(after - before for before, after in itertools.pairwise(seen)) <= 256
    await closed(server, client)
