"""``netpoll bench agent``: the other machine of a benchmark.

It starts servers, or makes the load, for a harness on another machine that has the same token
(`wire.py`). It runs the harness's own arms, by their names, and nothing else: no command, no path
and no module comes from the other end. One harness at a time; what a session has started ends with
it. Everything that can be asked for is bounded.
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Container, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from netpoll.bench import sendpaths, tls
from netpoll.bench._native import Load, LoadStopped
from netpoll.bench.arguments import number_in
from netpoll.bench.arms import ARMS
from netpoll.bench.cells import MALLOC_CHOICES, MAX_CONNECTIONS, MAX_SIZE_BYTES
from netpoll.bench.cores import Pinning, choose_pinning, on_cpu
from netpoll.bench.environment import describe
from netpoll.bench.errors import ServerError, UsageError
from netpoll.bench.process import Server, check_arms, raise_fd_limit
from netpoll.bench.rounds import no_garbage_collection
from netpoll.bench.wire import AGENT, Channel, Refused, greet, parse_address, read_token

__all__ = ["add_options", "run_agent"]

BACKLOG = 4
IDLE_S = 600.0  # a session in which nothing is asked for so long has lost its harness
KEEP_ALIVE_S = 10
SERVERS_MAX, LOADS_MAX = 64, 4
DURATION_MAX_S, RATE_MAX, STALL_MAX_S, PATIENCE_MAX_S = 3600.0, 1e8, 60.0, 10.0
SIZES_MAX = 32
SPARE_FDS = 200

Request = Mapping[str, Any]


# ---- what may be asked for --------------------------------------------------------------------


def _number(request: Request, key: str, low: float, high: float) -> float:
    value = request.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise Refused(f"{key} has to be a number from {low:g} to {high:g}")
    return value


def _whole(request: Request, key: str, low: int, high: int) -> int:
    value = _number(request, key, low, high)
    if value != int(value):
        raise Refused(f"{key} has to be a whole number")
    return int(value)


def _word(request: Request, key: str, words: Container[str]) -> str:
    value = request.get(key)
    if not isinstance(value, str) or value not in words:
        raise Refused(f"{value!r} is no {key} here")
    return value


def _address(request: Request) -> tuple[str, int]:
    value = request.get("address")
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
        raise Refused("an address has a host and a port")
    return value[0], _whole({"port": value[1]}, "port", 1, 65535)


# ---- a session --------------------------------------------------------------------------------


class Session:
    """What one harness has asked for. A context manager, which ends all of it."""

    def __init__(self, channel: Channel, pinning: Pinning) -> None:
        self.channel = channel
        self.pinning = pinning
        self.host = channel.sock.getsockname()[0]
        self.servers: dict[int, Server] = {}
        self.loads: dict[int, Load] = {}
        self.sink: subprocess.Popen[str] | None = None
        self.made = 0

    def _new_number(self) -> int:
        self.made += 1
        return self.made

    def _server(self, request: Request) -> Server:
        found = self.servers.get(_whole(request, "server", 0, 1 << 53))
        if found is None:
            raise Refused("there is no such server")
        return found

    # ---- servers

    def environment(self, request: Request) -> Any:
        return describe(self.pinning)

    def check(self, request: Request) -> Any:
        names = request.get("arms")
        if not isinstance(names, list) or len(names) > len(ARMS):
            raise Refused("arms has to be a list of names")
        return check_arms(ARMS[_word({"arm": name}, "arm", ARMS)] for name in names)

    def start(self, request: Request) -> Any:
        arm = ARMS[_word(request, "arm", ARMS)]
        if len(self.servers) >= SERVERS_MAX:
            raise Refused(f"there are {SERVERS_MAX} servers already")
        server = Server(
            arm,
            _word(request, "mode", arm.modes),
            cpu=self.pinning.server_cpu,
            bulk=request.get("bulk") is True,
            listen=f"tcp:{self.host}",
            malloc=_word(request, "malloc", MALLOC_CHOICES),
        )
        number = self._new_number()
        self.servers[number] = server
        return {"server": number, "address": server.address}

    def cpu(self, request: Request) -> Any:
        server = self._server(request)
        delay_ns, used = server.run_delay_ns(), server.cpu_time()
        return vars(used) | {"run_delay_ns": delay_ns}

    def ended(self, request: Request) -> Any:
        """Its last words; None when it is alive."""
        server = self._server(request)
        has_ended = server.has_ended(_number(request, "within_s", 0, PATIENCE_MAX_S))
        return server.last_words() if has_ended else None

    def kill(self, request: Request) -> Any:
        self._server(request).kill()
        del self.servers[request["server"]]

    # ---- loads

    def load(self, request: Request) -> Any:
        connections = _whole(request, "connections", 1, MAX_CONNECTIONS)
        if len(self.loads) >= LOADS_MAX:
            raise Refused(f"there are {LOADS_MAX} loads already")
        raise_fd_limit(connections + SPARE_FDS)
        number = self._new_number()
        self.loads[number] = Load(
            _address(request),
            connections,
            _whole(request, "size_bytes", 1, MAX_SIZE_BYTES),
            # Within a window nothing is asked, so what comes then is the harness's end.
            stop_fd=self.channel.sock.fileno(),
            stall_s=_number(request, "stall_s", 0.1, STALL_MAX_S),
            datagrams=request.get("datagrams") is True,
            tls_library=tls.openssl_path() if request.get("tls") is True else None,
        )
        return number

    def _load(self, request: Request) -> Load:
        found = self.loads.get(_whole(request, "load", 0, 1 << 53))
        if found is None:
            raise Refused("there is no such load")
        return found

    def run(self, request: Request) -> Any:
        duration_s = _number(request, "duration_s", 0, DURATION_MAX_S)
        rate_per_s = _number(request, "rate_per_s", 0, RATE_MAX)
        load = self._load(request)
        with no_garbage_collection(), on_cpu(self.pinning.load_cpu):
            before_ns = time.thread_time_ns()
            result = load.run(duration_s, rate_per_s)
            return result | {"load_cpu_ns": time.thread_time_ns() - before_ns}

    def close(self, request: Request) -> Any:
        self._load(request).close()
        del self.loads[request["load"]]

    # ---- sends

    def receive(self, request: Request) -> Any:
        """Where to send to: somebody there reads all of it."""
        self._end_sink()
        self.sink = sendpaths.listening_sink(self.host)
        return sendpaths.sink_address(self.sink, self.host)

    def send(self, request: Request) -> Any:
        sizes = request.get("sizes_bytes")
        if not isinstance(sizes, list) or not 0 < len(sizes) <= SIZES_MAX:
            raise Refused(f"sizes_bytes has to be a list of up to {SIZES_MAX} numbers")
        return sendpaths.measure_to(
            _address(request),
            [_whole({"size": size}, "size", 1, MAX_SIZE_BYTES) for size in sizes],
            _whole(request, "round", 0, 1000),
            _whole(request, "max_bytes", 1, sendpaths.TOTAL_MAX_BYTES),
            (self.pinning.server_cpu, self.pinning.load_cpu),
        )

    def _end_sink(self) -> None:
        if self.sink is not None:
            self.sink.kill()
            self.sink.communicate()

    # ---- all of it

    def answer(self, request: Any) -> Any:
        """What is sent back: {"result"}, or {"fault", "of"} with a sentence, and whose it is."""
        known = self.known()
        try:
            if not isinstance(request, dict):
                raise Refused("a request is an object")
            return {"result": known[_word(request, "do", known)](request)}
        except ServerError as error:
            return {"fault": str(error), "of": "server"}
        except OSError as error:
            return {"fault": str(error), "of": "load"}
        except Refused as error:
            return {"fault": str(error), "of": "request"}

    def known(self) -> dict[str, Callable[[Request], Any]]:
        return {
            "environment": self.environment,
            "check": self.check,
            "start": self.start,
            "cpu": self.cpu,
            "ended": self.ended,
            "kill": self.kill,
            "load": self.load,
            "run": self.run,
            "close": self.close,
            "receive": self.receive,
            "send": self.send,
        }

    def serve(self) -> None:
        """Answers until the harness goes away. Raises EOFError, Refused, OSError, LoadStopped."""
        while True:
            self.channel.send(self.answer(self.channel.receive(IDLE_S)))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        with ExitStack() as stack:
            stack.callback(self._end_sink)
            for server in self.servers.values():
                stack.callback(server.kill)
            for load in self.loads.values():
                stack.callback(load.close)


# ---- the command ------------------------------------------------------------------------------


def _say(text: str) -> None:
    print(f"netpoll bench agent: {text}", flush=True)


def _keep_alive(sock: socket.socket) -> None:
    """A machine that is gone is noticed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
        sock.setsockopt(socket.IPPROTO_TCP, option, KEEP_ALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def serve_one(sock: socket.socket, token: bytes, pinning: Pinning) -> str:
    """One caller, to its end; returns how that came."""
    try:
        _keep_alive(sock)
        channel = greet(sock, token, AGENT)
        with Session(channel, pinning) as session:
            session.serve()
    except (Refused, OSError) as error:
        return f"refused: {error}"
    except (EOFError, LoadStopped):
        return "done"
    raise AssertionError("a session ends by an exception")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen", required=True, metavar="HOST:PORT", help="where harnesses are waited for"
    )
    parser.add_argument(
        "--token-file",
        required=True,
        type=Path,
        metavar="F",
        help="the secret that both machines have, 16 bytes at least; nobody else may read it",
    )
    cpu = number_in(0, 4095)
    parser.add_argument("--server-cpu", type=cpu, metavar="N", help="the core of the servers")
    parser.add_argument("--load-cpu", type=cpu, metavar="N", help="the core of the load")


def run_agent(options: argparse.Namespace) -> int:
    """``bench agent``: one harness after the other, until SIGINT or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    address = parse_address(options.listen)
    token = read_token(options.token_file)
    pinning = choose_pinning(options.server_cpu, options.load_cpu)
    try:
        listener = socket.create_server(address, backlog=BACKLOG)
    except OSError as error:
        raise UsageError(f"cannot listen on {options.listen}: {error.strerror}") from None
    with listener:
        _say("listening on {}:{}".format(*listener.getsockname()))
        try:
            while True:
                sock, peer = listener.accept()
                with sock:
                    _say(f"{peer[0]}: {serve_one(sock, token, pinning)}")
        except KeyboardInterrupt:
            sys.stdout.flush()
    return 0
