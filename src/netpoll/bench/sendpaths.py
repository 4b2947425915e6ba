"""Three paths that a sent byte can take, and one round of sends on one of them.

Whether a zero-copy send really copies nothing depends on where the packets go, and the kernel
reports it for each send (IORING_NOTIF_USAGE_ZC_COPIED). The paths that a machine has:

    loopback   to another process of this machine
    veth       to another network namespace, over a pair of virtual devices (needs root)
    device     to a device that swallows packets, as a network card does once it has sent them
               (needs root): the only one of the three where nobody on this machine reads the bytes

and `network`, to another machine, where an agent reads (`agent.py`).

The peer behind that device (dummy, or else ifb) does not exist. The connection is put into the
established state with TCP_REPAIR, and a thread sends the acknowledgements that the peer would send;
so the sender runs the whole of the kernel's TCP, with segmentation offload, as it would in front of
a card.

A round runs in a child of this module; veth and device in network namespaces that end with it. The
cost is the CPU time of the sending thread; the peer's is told beside it, because on a path that
copies the kernel makes the copy in either of the two. What the acknowledgements of the device cost
is in neither.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from netpoll.bench import _native
from netpoll.bench.clocks import cpu_time
from netpoll.bench.errors import ServerError
from netpoll.bench.records import Row
from netpoll.bench.rounds import rotated
from netpoll.bench.tcp import tune

__all__ = [
    "NETWORK",
    "PATHS",
    "TOTAL_MAX_BYTES",
    "WAYS",
    "listening_sink",
    "measure",
    "measure_to",
    "sink_address",
    "why_not",
]

NETWORK = "network"
PATHS = ("loopback", "veth", "device", NETWORK)
# name: (the number of _native.send_stream, plain pages instead of huge ones)
WAYS = {
    "plain": (0, False),
    "pinned": (1, False),
    "registered": (2, False),
    "registered, 4K": (2, True),
}
TOTAL_MIN_BYTES, TOTAL_MAX_BYTES = 16 << 20, 160 << 20
SENDS_COUNT = 16384  # per run, between those bounds

CHILD = ("-m", "netpoll.bench.sendpaths")
CHILD_TIMEOUT_S = 200.0
START_TIMEOUT_S = 10.0
OUR_ADDRESS, PEER_ADDRESS, PREFIX = "10.117.0.1", "10.117.0.2", 24

# <linux/tcp.h>, <linux/sockios.h>
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
TCP_REPAIR_OPTIONS, TCP_REPAIR_WINDOW = 22, 29
TCP_RECV_QUEUE, TCP_SEND_QUEUE = 1, 2
TCPOPT_MSS, TCPOPT_WINDOW, TCPOPT_SACK_PERM = 2, 3, 4
REPAIR_OFF_NO_PROBE = -1
SIOCOUTQ, SIOCOUTQNSD = 0x5411, 0x894B
TCP_INFO_BYTES, TCPI_BYTES_ACKED_OFFSET = 128, 120
WINDOW_SCALE = 14
OUR_SEQUENCE, PEER_SEQUENCE = 1_000_000, 2_000_000
ACK_PAUSE_S = 20e-6

Connect = Callable[[], AbstractContextManager[socket.socket]]


def why_not(path: str) -> str | None:
    """None when `path` can be measured here, else the reason."""
    if path == "loopback":
        return None
    if os.geteuid() != 0:
        return f"the path {path} needs a network namespace, and that needs root"
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            return f"the path {path} needs the program {program!r}, which is not installed"
    check = subprocess.run(["unshare", "-n", "true"], capture_output=True, text=True)
    if check.returncode:
        return f"no network namespace can be made here: {check.stderr.strip()}"
    return None


# ---- the parent --------------------------------------------------------------------------------


def measure(
    path: str, sizes_bytes: Sequence[int], round_number: int, max_bytes: int, cpus: tuple[int, int]
) -> list[Row]:
    """One round: every size in every way, each begun elsewhere than in the round before. `cpus`:
    the cores of the sender and of the peer. Raises ServerError when it cannot be measured."""
    words = [path, str(round_number), str(max_bytes), *map(str, cpus), *map(str, sizes_bytes)]
    command = [sys.executable, *CHILD, *words]
    if path in ("veth", "device"):
        command = ["unshare", "-n", "--", *command]
    return _rows_of(command)


def measure_to(
    address: tuple[str, int],
    sizes_bytes: Sequence[int],
    round_number: int,
    max_bytes: int,
    cpus: tuple[int, int],
) -> list[Row]:
    """One round of sends to a sink on another machine, whose CPU time is not known here."""
    numbers = [str(round_number), str(max_bytes), *map(str, cpus), *map(str, sizes_bytes)]
    path = "{}={}:{}".format(NETWORK, *address)
    return _rows_of([sys.executable, *CHILD, path, *numbers])


def _rows_of(command: list[str]) -> list[Row]:
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, process_group=0
        )
    except subprocess.TimeoutExpired:
        raise ServerError(f"it did not end within {CHILD_TIMEOUT_S:g} s") from None
    if child.returncode:
        lines = child.stderr.strip().splitlines()
        raise ServerError(lines[-1] if lines else f"exit code {child.returncode}")
    return [json.loads(line) for line in child.stdout.splitlines()]


# ---- the child: the three paths ----------------------------------------------------------------


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _add_swallowing_device(name: str) -> None:
    """Both drop what is sent to them, and take segments as large as a card with offload does."""
    for kind in ("dummy", "ifb"):
        command = ["ip", "link", "add", name, "type", kind]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return
    raise ServerError(f"this kernel has neither dummy nor ifb devices: {done.stderr.strip()}")


def _sink(address: str, is_there: bool) -> None:
    """Reads all that its connections send; with the path "veth" the device is not there yet."""
    if not is_there:
        sys.stdin.readline()
        _ip("addr", "add", f"{address}/{PREFIX}", "dev", "peer")
        _ip("link", "set", "peer", "up")
    buffer = bytearray(1 << 18)
    with socket.create_server((address, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                while connection.recv_into(buffer):
                    pass


def listening_sink(host: str) -> subprocess.Popen[str]:
    """A process that reads what other machines send to this address."""
    command = [sys.executable, *CHILD, "sink", host, "here"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def sink_address(sink: subprocess.Popen[str], host: str) -> tuple[str, int]:
    """Where it listens. Raises ServerError when it has ended."""
    assert sink.stdout
    port = sink.stdout.readline()
    if not port:
        raise ServerError(f"nobody can listen on {host}")
    return host, int(port)


@contextmanager
def _sink_process(address: str) -> Iterator[tuple[int, tuple[str, int]]]:
    command = [sys.executable, *CHILD, "sink", address]
    if address != "127.0.0.1":
        command = ["unshare", "-n", "--", *command]
    sink = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert sink.stdin
    assert sink.stdout
    try:
        if address != "127.0.0.1":
            ours = os.stat("/proc/self/ns/net").st_ino
            deadline_s = time.monotonic() + START_TIMEOUT_S
            while os.stat(f"/proc/{sink.pid}/ns/net").st_ino == ours:
                if time.monotonic() > deadline_s:
                    raise ServerError("the peer's network namespace was not made")
                time.sleep(0.01)
            _ip(
                "link",
                "add",
                "ours",
                "type",
                "veth",
                "peer",
                "name",
                "peer",
                "netns",
                str(sink.pid),
            )
            _ip("addr", "add", f"{OUR_ADDRESS}/{PREFIX}", "dev", "ours")
            _ip("link", "set", "ours", "up")
        sink.stdin.write("go\n")
        sink.stdin.flush()
        yield sink.pid, (address, int(sink.stdout.readline()))
    finally:
        sink.kill()
        sink.communicate()


@contextmanager
def _connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=START_TIMEOUT_S) as sock:
        tune(sock)
        sock.setblocking(False)
        yield sock


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _acknowledgement(port: int, number: int) -> bytes:
    """An IPv4 packet by which the peer that does not exist acknowledges up to `number`."""
    ends = socket.inet_aton(PEER_ADDRESS) + socket.inet_aton(OUR_ADDRESS)
    head = struct.pack(
        "!HHIIBBH", port, port, PEER_SEQUENCE, number & 0xFFFFFFFF, 5 << 4, 0x10, 0xFFFF
    )
    pseudo = ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, 20)
    tcp = head + struct.pack("!HH", _checksum(pseudo + head + bytes(4)), 0)
    # The kernel fills in the length and the checksum of the IP header.
    return struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0) + ends + tcp


def _queued(sock: socket.socket, what: int) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(sock, what, bytes(4)))
    return int(count)


def _acknowledge(sock: socket.socket, port: int, cpu: int, stop: threading.Event) -> None:
    """Acknowledges whatever the sender has sent, as soon as it is noticed."""
    os.sched_setaffinity(0, {cpu})
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        while not stop.is_set():
            # In this order, so that the sum is never more than was sent.
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
            (acknowledged,) = struct.unpack_from("Q", info, TCPI_BYTES_ACKED_OFFSET)
            queued = _queued(sock, SIOCOUTQ)
            sent = queued - _queued(sock, SIOCOUTQNSD)
            if sent > 0:
                number = OUR_SEQUENCE + acknowledged + sent
                raw.sendto(_acknowledgement(port, number), (OUR_ADDRESS, 0))
            else:
                time.sleep(ACK_PAUSE_S)


def _establish(sock: socket.socket, port: int) -> None:
    """A connection without a handshake (CRIU's way: TCP_REPAIR, needs CAP_NET_ADMIN)."""

    def set_option(name: int, *values: int) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, name, struct.pack(f"{len(values)}I", *values))

    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    sock.bind((OUR_ADDRESS, port))
    for queue, number in (TCP_SEND_QUEUE, OUR_SEQUENCE), (TCP_RECV_QUEUE, PEER_SEQUENCE):
        set_option(TCP_REPAIR_QUEUE, queue)
        set_option(TCP_QUEUE_SEQ, number)
    sock.connect((PEER_ADDRESS, port))
    set_option(
        TCP_REPAIR_OPTIONS,
        *(TCPOPT_MSS, 1460),
        *(TCPOPT_WINDOW, WINDOW_SCALE | WINDOW_SCALE << 16),
        *(TCPOPT_SACK_PERM, 0),
    )
    window_bytes = 0xFFFF << WINDOW_SCALE
    set_option(TCP_REPAIR_WINDOW, PEER_SEQUENCE, window_bytes, window_bytes, 65535, PEER_SEQUENCE)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF_NO_PROBE)
    sock.setblocking(False)


@contextmanager
def _unreal_peer(port: int, peer_cpu: int) -> Iterator[socket.socket]:
    stop = threading.Event()
    with socket.socket() as sock:
        _establish(sock, port)
        tune(sock)
        # Nobody will answer our end of stream: it is not waited for.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        thread = threading.Thread(target=_acknowledge, args=(sock, port, peer_cpu, stop))
        thread.start()
        try:
            yield sock
        finally:
            stop.set()
            thread.join()


def _peer_cpu_ns(pid: int | None) -> int:
    return cpu_time(pid).total_ns if pid else 0


@dataclass(frozen=True)
class Round:
    """What the child was told."""

    path: str
    number: int
    max_bytes: int
    cpu: int
    peer_cpu: int
    sizes_bytes: tuple[int, ...]

    @classmethod
    def parse(cls, words: list[str]) -> Round:
        path, *numbers = words
        number, max_bytes, cpu, peer_cpu, *sizes_bytes = map(int, numbers)
        return cls(path, number, max_bytes, cpu, peer_cpu, tuple(sizes_bytes))


def _sends(told: Round, connect: Connect, peer: int | None) -> None:
    """Prints one JSON line per size and way. `peer` is the process that reads the bytes, if there
    is one."""
    for size in told.sizes_bytes:
        total = min(max(size * SENDS_COUNT, TOTAL_MIN_BYTES), TOTAL_MAX_BYTES, told.max_bytes)
        for way, (how, plain_pages) in rotated(list(WAYS.items()), told.number):
            peer_ns = _peer_cpu_ns(peer)
            with connect() as sock:
                result = _native.send_stream(
                    sock.fileno(), size, total, how, plain_pages=plain_pages
                )
            facts = {
                "path": told.path,
                "size_bytes": size,
                "way": way,
                "round": told.number,
                "peer_cpu_ns": _peer_cpu_ns(peer) - peer_ns,
            }
            print(json.dumps(facts | result), flush=True)


def _child(told: Round) -> None:
    os.sched_setaffinity(0, {told.cpu})
    if told.path == "device":
        _ip("link", "set", "lo", "up")
        _add_swallowing_device("np0")
        _ip("addr", "add", f"{OUR_ADDRESS}/{PREFIX}", "dev", "np0")
        _ip("link", "set", "np0", "up")
        ports = iter(range(20000, 60000))
        _sends(told, lambda: _unreal_peer(next(ports), told.peer_cpu), None)
        return
    if told.path.startswith(NETWORK):
        host, _, port = told.path.removeprefix(NETWORK + "=").rpartition(":")
        _sends(replace(told, path=NETWORK), lambda: _connected((host, int(port))), None)
        return
    with _sink_process("127.0.0.1" if told.path == "loopback" else PEER_ADDRESS) as (peer, address):
        os.sched_setaffinity(peer, {told.peer_cpu})
        _sends(told, lambda: _connected(address), peer)


def main(argv: list[str]) -> int:
    """The child's entry: "sink ADDRESS [here]", or PATH ROUND MAX_BYTES CPU PEER_CPU SIZE..."""
    _native.die_with_parent(signal.SIGTERM)
    if argv[0] == "sink":
        _sink(argv[1], is_there=argv[1] == "127.0.0.1" or argv[2:] == ["here"])
        return 0
    try:
        _child(Round.parse(argv))
    except ServerError as reason:
        print(reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
