"""`netpoll serve`: opens the sockets, then serves, alone or through workers."""

from __future__ import annotations

import argparse
import contextlib
import logging
import logging.handlers
import os
import re
import socket
import sys
from collections.abc import Sequence

from netpoll._native.server.seats import Seats
from netpoll._serve import options as _options
from netpoll._serve import process, systemd
from netpoll._serve.application import AppError, load_app, make_server
from netpoll._serve.supervisor import Supervisor
from netpoll._server.listening import UnixFile, inet_sockets, inherited_socket, unix_socket
from netpoll._telemetry.shown import VARIABLE

__all__ = ["main"]

PORT_DEFAULT = 8000
LOG_FORMAT = "%(asctime)s [%(process)d] %(levelname)s %(name)s: %(message)s"


def main(argv: Sequence[str]) -> int:
    """The exit status: 1 when it cannot serve, 2 for options that make no sense."""
    options = _options.parse(argv)
    with contextlib.ExitStack() as ends:
        try:
            prepare(options)
            if options.check_config:
                make_server(load_app(options), options, [])
                return 0
            open_log(options)
            sockets = open_sockets(options, ends)
            if options.pid is not None:
                ends.callback(remove, write_pid(options.pid), os.getpid())
            return serve(options, process.Place(sockets, lambda: None))
        except AppError as exc:
            print(f"netpoll: {exc}", file=sys.stderr)
            return exc.code
        except OSError as exc:
            where = f"{exc.filename}: " if exc.filename is not None else ""
            print(f"netpoll: {where}{exc.strerror or exc}", file=sys.stderr)
            return 1
        except ValueError as exc:
            print(f"netpoll: {exc}", file=sys.stderr)
            return 1


def prepare(options: argparse.Namespace) -> None:
    """The process, as the application is to find it."""
    if options.chdir is not None:
        os.chdir(options.chdir)
    if options.umask is not None:
        os.umask(options.umask)
    if options.env_file is not None:
        os.environ.update(_options.read_env_file(options.env_file))
    for setting in options.env or ():
        name, _, value = setting.partition("=")
        os.environ[name] = value
    if options.top:
        os.environ[VARIABLE] = "1"


def open_log(options: argparse.Namespace) -> None:
    handler: logging.Handler = logging.StreamHandler()
    if options.log_file is not None:  # opened again when it has been moved
        handler = logging.handlers.WatchedFileHandler(options.log_file)
    logging.basicConfig(level=options.log_level.upper(), format=LOG_FORMAT, handlers=[handler])


def serve(options: argparse.Namespace, place: process.Place) -> int:
    for sock in place.sockets:
        sock.listen(options.backlog)  # who comes before the workers are ready waits
    where = dict.fromkeys(map(name_of, place.sockets))

    def ready() -> None:
        for name in where:
            print(f"listening on {name}", flush=True)
        systemd.notify("READY=1")

    if options.workers is None and not options.reload:
        place.ready = ready
        return process.run(options, place)

    def work(channel: socket.socket, seats: Seats) -> int:
        place.channel, place.seats = channel, seats
        return process.run(options, place)

    return Supervisor(options, work, ready).run()


# ---- where to listen ----------------------------------------------------------------------------


def open_sockets(options: argparse.Namespace, ends: contextlib.ExitStack) -> list[socket.socket]:
    """Bound sockets; `ends` removes their files. Sockets of systemd come before --host."""
    inherited = systemd.inherited_sockets()
    if inherited and options.bind is None and options.uds is None and options.fd is None:
        return inherited
    if options.uds is not None:
        ways = [f"unix:{options.uds}"]
    elif options.fd is not None:
        ways = [f"fd://{options.fd}"]
    elif options.bind is not None:
        ways = options.bind
    else:
        return inet_sockets(options.host, options.port, options.reuse_port)
    sockets: list[socket.socket] = []
    for way in ways:
        made, file = open_way(way, options.reuse_port)
        sockets += made
        if file is not None:
            ends.callback(file.remove)
    return sockets


def open_way(way: str, reuse_port: bool) -> tuple[list[socket.socket], UnixFile | None]:
    """HOST:PORT, HOST, :PORT, [HOST]:PORT, unix:PATH or fd://N."""
    if way.startswith("unix:"):
        sock, file = unix_socket(way.removeprefix("unix:").removeprefix("//"))
        return [sock], file
    if match := re.fullmatch(r"fd://([0-9]+)", way):
        return [inherited_socket(int(match[1]))], None
    match = re.fullmatch(r"(\[[^]]*\]|[^]:[]*)(?::([0-9]{1,5}))?", way)
    if match is None or int(match[2] or 0) > 65535:
        raise ValueError(f"--bind is HOST:PORT, [HOST]:PORT, unix:PATH or fd://N, not {way!r}")
    port = PORT_DEFAULT if match[2] is None else int(match[2])
    return inet_sockets(match[1].strip("[]"), port, reuse_port), None


def name_of(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        return os.fsdecode(sock.getsockname())
    return f"port {sock.getsockname()[1]}"


# ---- the file with the process's number ---------------------------------------------------------


def write_pid(path: str) -> str:
    path = os.path.abspath(path)
    with open(path, "w") as file:
        file.write(f"{os.getpid()}\n")
    return path


def remove(path: str, pid: int) -> None:
    """Of the process that has written it."""
    if os.getpid() == pid:
        with contextlib.suppress(OSError):
            os.unlink(path)
