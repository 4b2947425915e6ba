"""Datagram endpoints: what arrives, in which order, from whom, and what errors become."""

import asyncio
import errno
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ..support import until
from .datagrams import Recorder, bound, closed, connected, echo

pytestmark = pytest.mark.control


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_echo_comes_back_to_its_sender(loop: Any, host: str) -> None:
    server, _ = await bound(loop, host, on_datagram=echo)
    name = server.get_extra_info("sockname")
    client, protocol = await connected(loop, server)
    free, other = await bound(loop, host)
    client.sendto(b"one")
    free.sendto(b"two", name)
    await until(lambda: protocol.data and other.data)
    assert protocol.events == [("made",), ("got", b"one", name)]
    assert other.events == [("made",), ("got", b"two", name)]
    await closed(server, client, free)
    assert protocol.events[-1] == ("lost", None)


async def test_the_order_of_datagrams_is_kept(loop: Any) -> None:
    server, served = await bound(loop)
    client, _ = await connected(loop, server)
    sent = [b"%d" % i for i in range(200)]
    for start in range(0, 200, 50):  # within the receive buffer
        for data in sent[start : start + 50]:
            client.sendto(data)
        await until(lambda end=start + 50: len(served.data) == end)
    assert served.data == sent
    await closed(server, client)


@pytest.mark.parametrize("size_bytes", [1, 1472, 1473, 9000, 65507])
async def test_a_datagram_arrives_whole(loop: Any, size_bytes: int) -> None:
    server, served = await bound(loop)
    client, _ = await connected(loop, server)
    data = bytes(i * 7 % 256 for i in range(size_bytes))
    client.sendto(data)
    client.sendto(b"end")
    await until(lambda: len(served.data) == 2)
    assert served.data == [data, b"end"]
    await closed(server, client)


@pytest.mark.netpoll_only
async def test_an_empty_datagram_is_sent(loop: Any) -> None:
    """As asyncio does from Python 3.13 on; before, it drops them."""
    server, served = await bound(loop)
    client, _ = await connected(loop, server)
    for data in (b"", b"x", b""):
        client.sendto(data)
    await until(lambda: len(served.data) == 3)
    assert served.data == [b"", b"x", b""]
    await closed(server, client)


async def test_mutable_data_is_copied_at_once(loop: Any) -> None:
    server, served = await bound(loop)
    client, _ = await connected(loop, server)
    data = bytearray(b"first")
    client.sendto(data)
    data[:] = b"XXXXX"
    client.sendto(memoryview(data)[1:3])
    data[:] = b"YYYYY"
    await until(lambda: len(served.data) == 2)
    assert served.data == [b"first", b"XX"]
    await closed(server, client)


async def test_sendto_checks_its_arguments(loop: Any) -> None:
    server, served = await bound(loop)
    client, _ = await connected(loop, server)
    with pytest.raises(TypeError, match="data argument must be a bytes-like object, not 'str'"):
        client.sendto("text")
    with pytest.raises(ValueError, match="Invalid address: must be None or"):
        client.sendto(b"data", ("127.0.0.1", 1))
    client.sendto(b"data", server.get_extra_info("sockname"))
    await until(lambda: served.data)
    assert served.data == [b"data"]
    await closed(server, client)


async def test_a_host_name_is_resolved(loop: Any) -> None:
    server, served = await bound(loop)
    client, _ = await bound(loop)
    port = server.get_extra_info("sockname")[1]
    client.sendto(b"1", ("127.0.0.1", port))
    client.sendto(b"2", ("localhost", port))
    client.sendto(b"3", ("127.0.0.1", port))
    await until(lambda: len(served.data) == 3)
    assert served.data == [b"1", b"2", b"3"]
    await closed(server, client)


async def test_an_address_that_makes_no_sense_ends_the_transport(
    loop: Any, errors: list[dict[str, Any]]
) -> None:
    client, protocol = await bound(loop)
    client.sendto(b"data", ("127.0.0.1",))
    assert isinstance(await protocol.lost, TypeError)
    assert client.is_closing()
    assert [context["message"] for context in errors] == ["Fatal write error on datagram transport"]
    errors.clear()


async def test_without_an_address_an_unconnected_transport_ends(
    loop: Any, errors: list[dict[str, Any]]
) -> None:
    client, protocol = await bound(loop)
    client.sendto(b"data")
    assert isinstance(await protocol.lost, TypeError)
    errors.clear()


async def test_a_datagram_that_is_too_long_is_an_error_of_the_protocol(loop: Any) -> None:
    server, served = await bound(loop)
    client, protocol = await connected(loop, server)
    client.sendto(bytes(65508))
    client.sendto(b"next")
    await until(lambda: served.data and protocol.errors)
    assert [type(e) for e in protocol.errors] == [OSError]
    assert protocol.errors[0].errno == 90  # EMSGSIZE
    assert served.data == [b"next"]
    assert not client.is_closing()
    await closed(server, client)


async def test_a_refused_datagram_is_an_error_of_the_protocol(loop: Any) -> None:
    server, _ = await bound(loop)
    client, protocol = await connected(loop, server)
    await closed(server)
    client.sendto(b"to nobody")
    await until(lambda: protocol.errors)
    assert isinstance(protocol.errors[0], ConnectionRefusedError)
    assert not client.is_closing()
    # It goes on: somebody else may come to listen there.
    name = server.get_extra_info("sockname")
    again, served = await loop.create_datagram_endpoint(Recorder, local_addr=name)
    client.sendto(b"to somebody")
    await until(lambda: served.data)
    assert served.data == [b"to somebody"]
    await closed(client, again)


async def test_errors_after_error_received_has_closed_the_transport(loop: Any) -> None:
    class Closing(Recorder):
        def error_received(self, exc: Exception) -> None:
            super().error_received(exc)
            self.transport.close()

    transport, protocol = await loop.create_datagram_endpoint(Closing, local_addr=("127.0.0.1", 0))
    name = transport.get_extra_info("sockname")
    for _ in range(2):
        transport.sendto(bytes(70_000), name)  # more than a datagram holds
    await protocol.lost
    assert [exc.errno for exc in protocol.errors] == [errno.EMSGSIZE] * 2


async def test_sends_between_close_and_connection_lost(loop: Any) -> None:
    """They still leave, as on asyncio, when the transport has no peer of its own."""
    server, served = await bound(loop, "127.0.0.1")
    name = server.get_extra_info("sockname")
    transport, protocol = await bound(loop, "127.0.0.1")
    transport.close()
    transport.sendto(b"late", name)
    transport.sendto(bytes(70_000), name)
    assert [exc.errno for exc in protocol.errors] == [errno.EMSGSIZE]
    assert protocol.events[-1][0] != "lost"
    await protocol.lost
    await until(lambda: served.data)
    assert served.data == [b"late"]
    await closed(server)


async def test_what_error_received_raises_goes_to_the_exception_handler(
    loop: Any, errors: list[dict[str, Any]]
) -> None:
    class Failing(Recorder):
        def error_received(self, exc: Exception) -> None:
            super().error_received(exc)
            raise LookupError("in error_received")

    server, _ = await bound(loop)
    name = server.get_extra_info("sockname")
    client, protocol = await loop.create_datagram_endpoint(Failing, remote_addr=name)
    await closed(server)
    client.sendto(b"to nobody")
    await until(lambda: protocol.errors)
    assert not client.is_closing()
    await closed(client)
    assert [type(context["exception"]) for context in errors] == [LookupError]
    errors.clear()


async def test_an_exception_in_datagram_received_concerns_one_datagram(
    loop: Any, errors: list[dict[str, Any]]
) -> None:
    def fail(protocol: Recorder, data: bytes, addr: Any) -> None:
        if data == b"bad":
            raise LookupError("in datagram_received")

    server, served = await bound(loop, on_datagram=fail)
    client, _ = await connected(loop, server)
    for data in (b"1", b"bad", b"2"):
        client.sendto(data)
    await until(lambda: len(served.data) == 3)
    assert served.data == [b"1", b"bad", b"2"]
    assert not server.is_closing()
    await closed(server, client)
    assert [type(context["exception"]) for context in errors] == [LookupError]
    errors.clear()


async def test_close_sends_what_was_written(loop: Any) -> None:
    server, served = await bound(loop)
    client, protocol = await connected(loop, server)
    client.sendto(b"1")
    client.sendto(b"2")
    client.close()
    assert client.is_closing()
    assert await protocol.lost is None
    await until(lambda: len(served.data) == 2)
    assert served.data == [b"1", b"2"]
    await closed(server)


async def test_abort_keeps_what_the_socket_has_taken(loop: Any) -> None:
    server, served = await bound(loop)
    client, protocol = await connected(loop, server)
    client.sendto(b"1")
    client.abort()
    client.abort()
    assert await protocol.lost is None
    await until(lambda: served.data)
    assert protocol.count("lost") == 1
    await closed(server)


async def test_close_in_the_middle_of_a_burst_ends_delivery(loop: Any) -> None:
    def close_at_once(protocol: Recorder, data: bytes, addr: Any) -> None:
        protocol.transport.close()

    server, served = await bound(loop, on_datagram=close_at_once)
    client, _ = await connected(loop, server)
    for i in range(5):
        client.sendto(b"%d" % i)
    assert await served.lost is None
    assert served.data == [b"0"]
    assert served.events[-1] == ("lost", None)
    await closed(client)


async def test_after_the_end_sendto_does_nothing(loop: Any) -> None:
    server, served = await bound(loop)
    client, protocol = await connected(loop, server)
    await closed(client)
    client.sendto(b"late")
    server.sendto(b"also", client.get_extra_info("sockname"))
    await asyncio.sleep(0.01)
    assert served.data == []
    assert protocol.data == []
    await closed(server)


async def test_a_datagram_before_the_loop_runs_leaves_at_once(loop: Any) -> None:
    """Programs send from outside of the loop, between two run_until_complete."""

    def outside() -> None:
        taker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        taker.bind(("127.0.0.1", 0))
        taker.settimeout(10)
        other = type(loop)()
        other_loop_transport, protocol = other.run_until_complete(bound(other))
        other_loop_transport.sendto(b"now", taker.getsockname())
        assert taker.recv(100) == b"now"
        taker.close()
        other_loop_transport.close()
        other.run_until_complete(asyncio.wait([protocol.lost]))
        other.close()

    await loop.run_in_executor(None, outside)


@pytest.mark.control_since((3, 11, 7))
async def test_pause_and_resume_reading(loop: Any) -> None:
    def pause(protocol: Recorder, data: bytes, addr: Any) -> None:
        if data == b"3":
            protocol.transport.pause_reading()

    server, served = await bound(loop, on_datagram=pause)
    client, _ = await connected(loop, server)
    for i in range(10):
        client.sendto(b"%d" % i)
    await until(lambda: len(served.data) == 4)
    await asyncio.sleep(0.02)
    assert served.data == [b"0", b"1", b"2", b"3"]
    assert not server.is_reading()
    server.resume_reading()
    assert server.is_reading()
    await until(lambda: len(served.data) == 10)
    assert served.data == [b"%d" % i for i in range(10)]
    await closed(server, client)


@pytest.mark.control_since((3, 11, 7))
async def test_a_paused_transport_closes(loop: Any) -> None:
    server, served = await bound(loop)
    server.pause_reading()
    client, _ = await connected(loop, server)
    client.sendto(b"never seen")
    await asyncio.sleep(0.01)
    await closed(server, client)
    assert served.events == [("made",), ("lost", None)]


async def test_set_protocol_takes_over(loop: Any) -> None:
    server, served = await bound(loop)
    client, _ = await connected(loop, server)
    client.sendto(b"old")
    await until(lambda: served.data)
    other = Recorder()
    server.set_protocol(other)
    assert server.get_protocol() is other
    client.sendto(b"new")
    await until(lambda: other.data)
    assert (served.data, other.data) == ([b"old"], [b"new"])
    await closed(server, client)
    assert served.count("lost") == 0


async def test_what_is_known_about_a_transport(loop: Any) -> None:
    server, _ = await bound(loop)
    client, _ = await connected(loop, server)
    name = server.get_extra_info("sockname")
    assert name[0] == "127.0.0.1"
    assert server.get_extra_info("peername") is None
    assert client.get_extra_info("peername") == name
    assert client.get_extra_info("sockname")[0] == "127.0.0.1"
    sock = server.get_extra_info("socket")
    assert (sock.type, sock.getsockname()) == (socket.SOCK_DGRAM, name)
    assert server.get_extra_info("nothing", 5) == 5
    assert f"fd={sock.fileno()}" in repr(server)
    assert client.get_write_buffer_size() == 0
    await closed(server, client)
    assert "closed" in repr(server)
    assert server.get_extra_info("sockname") == name


@pytest.mark.netpoll_only
async def test_it_is_a_datagram_transport(loop: Any) -> None:
    """asyncio's own are, from Python 3.12 on."""
    server, _ = await bound(loop)
    assert isinstance(server, asyncio.DatagramTransport)
    await closed(server)


async def test_the_context_is_that_of_the_maker(loop: Any) -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen = []
    variable.set("maker's")
    server, _ = await bound(loop, on_datagram=lambda *_: seen.append(variable.get()))
    variable.set("later")
    client, _ = await connected(loop, server)
    client.sendto(b"x")
    await until(lambda: seen)
    assert seen == ["maker's"]
    await closed(server, client)


# ---- kinds of sockets -------------------------------------------------------------------------


async def test_unix_datagrams(loop: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory, "server"))
        server, served = await loop.create_datagram_endpoint(
            lambda: Recorder(echo), local_addr=path, family=socket.AF_UNIX
        )
        own = str(Path(directory, "client"))
        client, protocol = await loop.create_datagram_endpoint(
            Recorder, local_addr=own, remote_addr=path, family=socket.AF_UNIX
        )
        client.sendto(b"x" * 100_000)  # longer than any of UDP
        await until(lambda: protocol.data)
        assert protocol.events == [("made",), ("got", b"x" * 100_000, path)]
        assert served.events[1][2] == own
        await closed(server, client)


async def test_abstract_and_nameless_unix_senders(loop: Any) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind(b"")  # Linux finds a name
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
            taker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            taker.bind(b"")
            server, served = await loop.create_datagram_endpoint(
                lambda: Recorder(lambda p, d, a: a and echo(p, d, a)), sock=taker
            )
            abstract.sendto(b"1", taker.getsockname())
            nameless.sendto(b"2", taker.getsockname())
            await until(lambda: len(served.data) == 2)
            assert [event[1:] for event in served.events[1:]] == [
                (b"1", abstract.getsockname()),
                (b"2", None),
            ]
            abstract.settimeout(10)
            assert await loop.run_in_executor(None, abstract.recv, 10) == b"1"
            await closed(server)


async def test_a_full_unix_peer_is_waited_for(loop: Any) -> None:
    """The sender's own socket says that it is writable all the time."""
    taker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    taker.bind(b"")
    taker.setblocking(False)
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    client, protocol = await loop.create_datagram_endpoint(Recorder, sock=sender)
    sent = [b"%d" % i for i in range(300)]  # a Unix socket's queue holds some ten
    for data in sent:
        client.sendto(data, taker.getsockname())
    await asyncio.sleep(0.01)
    assert client.get_write_buffer_size() > 0
    client.close()  # what is written still leaves
    got = []

    def take() -> bool:
        while len(got) < 300:
            try:
                got.append(taker.recv(100))
            except BlockingIOError:
                return False
        return True

    await until(take)
    assert got == sent
    assert await protocol.lost is None
    taker.close()


async def test_netlink(loop: Any) -> None:
    """RTM_GETLINK for all interfaces: the answer comes from the kernel, whose address is (0, 0)."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
    sock.bind((0, 0))
    transport, protocol = await loop.create_datagram_endpoint(Recorder, sock=sock)
    header = (32).to_bytes(4, "little") + (18).to_bytes(2, "little") + (0x301).to_bytes(2, "little")
    transport.sendto(header + (7).to_bytes(4, "little") + bytes(4) + bytes(16), (0, 0))
    await until(lambda: protocol.data)
    assert protocol.events[1][2] == (0, 0)
    assert protocol.data[0][8:12] == (7).to_bytes(4, "little")
    assert b"lo\0" in b"".join(protocol.data)
    await closed(transport)


@pytest.mark.netpoll_only
async def test_netlink_to_somebody_else(loop: Any) -> None:
    """asyncio takes every netlink socket for one that is connected to the kernel."""
    one, two = (socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 2) for _ in range(2))
    for sock in (one, two):  # NETLINK_USERSOCK
        sock.bind((0, 0))
    taker, taken = await loop.create_datagram_endpoint(Recorder, sock=one)
    sender, _ = await loop.create_datagram_endpoint(Recorder, sock=two)
    sender.sendto(b"x" * 20, taker.get_extra_info("sockname"))
    await until(lambda: taken.data)
    assert taken.events[1] == ("got", b"x" * 20, sender.get_extra_info("sockname"))
    await closed(taker, sender)


async def test_the_ends_of_a_socket_pair(loop: Any) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    transport, protocol = await loop.create_datagram_endpoint(Recorder, sock=left)
    right.send(b"in")
    await until(lambda: protocol.data)
    assert protocol.data == [b"in"]
    await closed(transport)
    right.close()


async def test_broadcast_has_to_be_allowed(loop: Any) -> None:
    plain, refused = await loop.create_datagram_endpoint(Recorder, local_addr=("0.0.0.0", 0))
    plain.sendto(b"x", ("127.255.255.255", 9))
    await until(lambda: refused.errors)
    assert isinstance(refused.errors[0], PermissionError)
    allowed, protocol = await loop.create_datagram_endpoint(
        Recorder, local_addr=("0.0.0.0", 0), allow_broadcast=True
    )
    port = allowed.get_extra_info("sockname")[1]
    allowed.sendto(b"to all", ("127.255.255.255", port))
    await until(lambda: protocol.data)
    assert protocol.data == [b"to all"]
    assert protocol.errors == []
    await closed(plain, allowed)


async def test_a_broadcast_remote_address_is_not_connected_to(loop: Any) -> None:
    server, served = await bound(loop, "0.0.0.0")
    port = server.get_extra_info("sockname")[1]
    client, _ = await loop.create_datagram_endpoint(
        Recorder, remote_addr=("127.255.255.255", port), allow_broadcast=True
    )
    assert client.get_extra_info("peername") is None
    client.sendto(b"x")
    await until(lambda: served.data)
    await closed(server, client)


async def test_multicast(loop: Any) -> None:
    group = "239.255.77.7"
    taker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taker.bind((group, 0))
    membership = socket.inet_aton(group) + socket.inet_aton("127.0.0.1")
    taker.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    server, served = await loop.create_datagram_endpoint(Recorder, sock=taker)
    client, _ = await bound(loop)
    client.get_extra_info("socket").setsockopt(
        socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
    )
    client.sendto(b"x", server.get_extra_info("sockname"))
    await until(lambda: served.data)
    assert served.data == [b"x"]
    await closed(server, client)


async def test_reuse_port_shares_an_address(loop: Any) -> None:
    first, one = await bound(loop, reuse_port=True)
    name = first.get_extra_info("sockname")
    second, two = await loop.create_datagram_endpoint(Recorder, local_addr=name, reuse_port=True)
    with pytest.raises(OSError, match="Address already in use"):
        await loop.create_datagram_endpoint(Recorder, local_addr=name)
    senders = [(await connected(loop, first))[0] for _ in range(32)]
    for sender in senders:
        sender.sendto(b"x")
    await until(lambda: len(one.data) + len(two.data) == 32)
    assert one.data, "the kernel shares them out by the senders' ports"
    assert two.data
    await closed(first, second, *senders)


@pytest.mark.netpoll_only
async def test_a_raw_socket(loop: Any) -> None:
    """asyncio takes them from Python 3.12 on."""
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except PermissionError:
        pytest.skip("raw sockets are for root")
    transport, protocol = await loop.create_datagram_endpoint(Recorder, sock=sock)
    transport.sendto(bytes([8, 0, 0xE5, 0xCA, 0x12, 0x34, 0, 1]), ("127.0.0.1", 0))
    await until(lambda: any(data[20] == 0 for data in protocol.data))  # the echo reply
    assert protocol.events[1][2] == ("127.0.0.1", 0)
    await closed(transport)


async def test_what_is_not_a_datagram_socket_is_refused(loop: Any) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock,
        pytest.raises(ValueError, match="was expected, got"),
    ):
        await loop.create_datagram_endpoint(Recorder, sock=sock)
    with pytest.raises(ValueError, match="unexpected address family"):
        await loop.create_datagram_endpoint(Recorder)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(ValueError, match="can not be used"),
    ):
        await loop.create_datagram_endpoint(Recorder, sock=sock, reuse_port=True)


async def test_a_descriptor_in_use_is_refused(loop: Any) -> None:
    server, _ = await bound(loop)
    fd = server.get_extra_info("socket").fileno()
    with pytest.raises(RuntimeError, match="is used by transport"):
        loop.add_reader(fd, print)
    await closed(server)
