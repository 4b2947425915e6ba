"""The application that MODULE:APP names, and the server for it."""

from __future__ import annotations

import argparse
import importlib
import os
import ssl
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from netpoll import http
from netpoll._native.server.networks import Networks
from netpoll._native.server.seats import Seats
from netpoll.config import ServerLimits
from netpoll.server import Server

__all__ = ["AppError", "load_app", "make_server", "runs_threads"]

# What a proxy has to say whose a connection is, when nothing else bounds a head.
PROXY_TIMEOUT_S = 15.0


class AppError(Exception):
    """It cannot be served: why, for whoever has started the command. code: the exit status."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def load_app(options: argparse.Namespace) -> Callable[..., Any]:
    module, _, names = options.app.partition(":")
    folder = os.path.abspath(options.app_dir)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        app: Any = importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{module}.".startswith(f"{exc.name}."):
            raise AppError(
                f"{options.app}: there is no module {exc.name!r} in {folder} and in Python's "
                "path; --app-dir names another folder"
            ) from None
        raise AppError(_story(f"{options.app}: importing it has failed", exc)) from exc
    except Exception as exc:
        raise AppError(_story(f"{options.app}: importing it has failed", exc)) from exc
    for name in names.split("."):
        if not hasattr(app, name):
            raise AppError(f"{options.app}: there is no {name!r} in {app!r}")
        app = getattr(app, name)
    if options.factory:
        try:
            app = app()
        except Exception as exc:
            raise AppError(_story(f"{options.app}() has failed", exc)) from exc
    if not callable(app):
        raise AppError(f"{options.app} is not an application: it cannot be called")
    return app  # type: ignore[no-any-return]  # callable() has seen to it


def _story(message: str, exc: Exception) -> str:
    """With the traceback, from the application's own code on."""
    at: TracebackType | None = exc.__traceback__
    while at is not None and at.tb_frame.f_code.co_filename in (
        *(__file__, importlib.__file__, "<frozen importlib._bootstrap>"),
        "<frozen importlib._bootstrap_external>",
    ):
        at = at.tb_next
    told = traceback.format_exception(exc.with_traceback(at))
    return f"{message}\n{''.join(told).rstrip()}"


def interface_of(app: Callable[..., Any], options: argparse.Namespace) -> str:
    if options.interface != "auto":
        return str(options.interface)
    found = http.interface_of(app)
    return "stream" if found == "raw" else found


def make_server(
    app: Callable[..., Any],
    options: argparse.Namespace,
    sockets: list[Any],
    seats: Seats | None = None,
) -> Server:
    """seats: of the processes that have the same sockets."""
    common: dict[str, Any] = {
        "sockets": sockets,
        "ssl": make_context(options),
        "backend": options.backend,
        "workers": threads_count(options),
    }
    interface = interface_of(app, options)
    if interface == "stream":
        if options.max_requests:
            raise AppError("--max-requests is for HTTP: a handler of connections has none", 2)
        if options.limit_concurrency:
            raise AppError(
                "--limit-concurrency is for HTTP, which has an answer for those beyond it: "
                "--worker-connections pauses accepting",
                2,
            )
        limits = ServerLimits(
            connections_max_count=options.worker_connections, backlog_max_count=options.backlog
        )
        return share(Server(app, limits=limits, **common), options, seats)
    server = http.Server(
        app,
        interface=interface,
        limits=make_limits(options),
        lifespan=options.lifespan,
        root_path=options.root_path,
        forwarded_from=options.forwarded_allow_ips if options.proxy_headers else None,
        threads=options.threads,
        server_header="netpoll" if options.server_header else "",
        headers=[split_header(header) for header in options.header or ()],
        access_log=where_to_log(options),
        access_log_format=options.access_log_format,
        **common,
    )
    server._multiprocess = seats is not None
    return share(server, options, seats)


def share(server: Server, options: argparse.Namespace, seats: Seats | None) -> Server:
    """With the other processes, and with a proxy."""
    server._seats = seats
    if options.proxy_protocol:
        networks = Networks(options.proxy_allow_from)
        server._options["proxies"] = (networks, options.timeout_head or PROXY_TIMEOUT_S)
    return server


def runs_threads(options: argparse.Namespace) -> bool:
    """The workers are threads of one process."""
    if options.worker_kind != "auto":
        return bool(options.worker_kind == "thread")
    return not getattr(sys, "_is_gil_enabled", lambda: True)()


def threads_count(options: argparse.Namespace) -> int:
    """Of each process: event loops with a thread of their own."""
    return (options.workers or 1) if runs_threads(options) else 1


def where_to_log(options: argparse.Namespace) -> str | TextIO | None:
    if options.access_logfile not in (None, "-"):
        return str(options.access_logfile)
    return sys.stdout if options.access_log or options.access_logfile == "-" else None


def make_limits(options: argparse.Namespace) -> http.HttpLimits:
    return http.HttpLimits(
        line_max_bytes=options.limit_request_line,
        head_max_bytes=options.limit_request_head,
        fields_max_count=options.limit_request_fields,
        body_max_bytes=options.limit_request_body,
        head_timeout_s=options.timeout_head or None,
        keep_alive_timeout_s=options.timeout_keep_alive or None,
        stall_timeout_s=options.timeout_stall or None,
        connections_served_max_count=options.limit_concurrency,
        connections_max_count=options.worker_connections,
        backlog_max_count=options.backlog,
    )


def split_header(header: str) -> tuple[str, str]:
    name, _, value = header.partition(":")
    return name, value.strip()


def make_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.ssl_certfile is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(
            options.ssl_certfile, options.ssl_keyfile, options.ssl_keyfile_password or ""
        )
        if options.ssl_ca_certs is not None:
            context.load_verify_locations(options.ssl_ca_certs)
            context.verify_mode = ssl.CERT_REQUIRED
        if options.ssl_cert_reqs is not None:
            context.verify_mode = ssl.VerifyMode(int(options.ssl_cert_reqs))
        if options.ssl_ciphers is not None:
            context.set_ciphers(options.ssl_ciphers)
    except OSError as exc:  # ssl.SSLError is one
        raise AppError(f"TLS: a certificate, key or cipher cannot be used: {exc}") from exc
    return context
