"""The options of `netpoll serve`, as its help shows them.

An option has the name that uvicorn or gunicorn has for it, and the other's name as well.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from netpoll._serve.foreign import FOREIGN

__all__ = ["LOG_LEVELS", "Parser", "make_parser"]

LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

# Its epilog in the help.
SOURCES = """\
Each option can also stand in the environment and in a file: --root-path is NETPOLL_ROOT_PATH, and
root-path in a TOML file for --config, or in the table [tool.netpoll.serve] of ./pyproject.toml.
The command line counts before the environment, and that before the file.

Signals: SIGTERM and SIGINT stop with grace, a second one at once, SIGQUIT at once; SIGUSR1 opens
the log files again. With --workers: SIGHUP loads the application anew without losing a request,
SIGTTIN and SIGTTOU start and stop one worker.
"""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """An option's value stands once behind all its names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, action.dest.upper())
        return ", ".join(action.option_strings) + " " + value


class Parser(argparse.ArgumentParser):
    """Says what to do about what it does not understand; ends the process with status 2."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument (\S+?)(/\S+)*: ", r"\1: ", message)
        self.exit(2, f"netpoll: {message} ('netpoll serve --help' has the options)\n")

    def parse_all(self, argv: Sequence[str]) -> argparse.Namespace:
        options, unknown = self.parse_known_args(argv)
        for word in unknown:
            self.error(self._about_unknown(word.partition("=")[0]))
        return options

    def _about_unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"{word!r} is one word too many: there is one MODULE:APP"
        if word in FOREIGN:
            return f"{word} is not here: {FOREIGN[word]}"
        near = difflib.get_close_matches(word, self._option_string_actions, 1)
        return f"there is no option {word}" + (f": is it {near[0]}?" if near else "")


# ---- values -------------------------------------------------------------------------------------


def number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"a number of {least} or more, not {text!r}")
        return int(text)

    return parse


def port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port from 0 to 65535, not {text!r}")
    return int(text)


def seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise argparse.ArgumentTypeError(f"seconds as 30 or 0.5, not {text!r}")
    return float(text)


def size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15})\s*([KMG]?)i?B?", text, re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"bytes as 65536, 64K, 512M or 2G, not {text!r}")
    return int(match[1]) * SIZE_UNITS[match[2].upper()]


def octal(text: str) -> int:
    if not re.fullmatch(r"(0o)?[0-7]{1,4}", text):
        raise argparse.ArgumentTypeError(f"permissions as 027, not {text!r}")
    return int(text, 8)


def one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"one of {', '.join(words)}, not {text!r}")
        return text

    return parse


def header(text: str) -> str:
    if not re.fullmatch(r"[^\s:]+:[^\r\n\0]*", text):
        raise argparse.ArgumentTypeError(f"NAME:VALUE, not {text!r}")
    return text


def setting(text: str) -> str:
    if not re.fullmatch(r"[^\s=]+=.*", text):
        raise argparse.ArgumentTypeError(f"NAME=VALUE, not {text!r}")
    return text


# ---- the options --------------------------------------------------------------------------------


def make_parser() -> Parser:
    parser = Parser(
        prog="netpoll serve",
        usage="netpoll serve MODULE:APP [options]",
        description="Serves an ASGI or WSGI application, or a function, until Ctrl-C or SIGTERM.",
        epilog=SOURCES,
        allow_abbrev=False,
        formatter_class=Formatter,
    )
    parser.add_argument("app", nargs="?", metavar="MODULE:APP", help="what to serve")
    for title, add in (
        ("application", _add_application),
        ("where to listen", _add_address),
        ("workers", _add_workers),
        ("reload", _add_reload),
        ("time-outs, in seconds; 0: none", _add_timeouts),
        ("limits", _add_limits),
        ("answers", _add_answers),
        ("proxies in front", _add_proxies),
        ("TLS", _add_tls),
        ("logs", _add_logs),
        ("options", _add_sources),
    ):
        add(parser.add_argument_group(title))
    return parser


Group = argparse._ArgumentGroup


def _switch(group: Group, *names: str, default: bool = False, help: str) -> None:
    group.add_argument(*names, action=argparse.BooleanOptionalAction, default=default, help=help)


def _option(group: Group, *names: str, type: Callable[[str], Any] = str, **rest: Any) -> None:
    group.add_argument(*names, type=type, **rest)


def _list(group: Group, *names: str, **rest: Any) -> None:
    group.add_argument(*names, action="append", **rest)


def _add_application(group: Group) -> None:
    _option(
        group,
        "--interface",
        type=one_of("auto", "asgi", "wsgi", "raw", "stream"),
        default="auto",
        metavar="KIND",
        help="asgi: APP(scope, receive, send); wsgi: APP(environ, start_response); raw: a function "
        "of an HTTP request; stream: a handler of connections; auto: asgi, wsgi or stream, by the "
        "number of arguments (default auto)",
    )
    _switch(group, "--factory", help="APP() returns the application")
    _option(
        group, "--app-dir", "--pythonpath", default="", metavar="DIR", help="look here for MODULE"
    )
    _option(group, "--chdir", metavar="DIR", help="go there first")
    _list(group, "--env", "-e", type=setting, metavar="NAME=VALUE", help="for the environment")
    _option(group, "--env-file", metavar="FILE", help="lines NAME=VALUE, for the environment")
    _option(group, "--root-path", default="", metavar="PATH", help="where a proxy mounts it")
    _option(
        group,
        "--lifespan",
        type=one_of("auto", "on", "off"),
        default="auto",
        metavar="auto|on|off",
        help="of ASGI: on insists, auto goes on without one (default auto)",
    )
    _option(
        group,
        "--threads",
        type=number(0),
        default=8,
        metavar="N",
        help="of a WSGI application in each worker, at most; 0: it does not block (default 8)",
    )


def _add_address(group: Group) -> None:
    _option(group, "--host", default="127.0.0.1", help="'' for all (default 127.0.0.1)")
    _option(group, "--port", type=port, default=8000, help="0: a free one (default 8000)")
    _list(
        group,
        "--bind",
        "-b",
        metavar="WHERE",
        help="instead: HOST:PORT, HOST, unix:PATH or fd://N; may be repeated",
    )
    _option(group, "--uds", "--unix", metavar="PATH", help="instead: a Unix socket")
    _option(
        group, "--fd", type=number(0), metavar="N", help="instead: an inherited listening socket"
    )
    _option(group, "--umask", "-m", type=octal, metavar="MODE", help="of a Unix socket, and all")
    _option(group, "--backlog", type=number(1), default=4096, metavar="N", help="(default 4096)")
    _switch(group, "--reuse-port", help="share the port with another `netpoll serve`")


def _add_workers(group: Group) -> None:
    _option(
        group,
        "--workers",
        "-w",
        type=number(1),
        metavar="N",
        help="so many, under a supervisor; without it the command itself serves",
    )
    _option(
        group,
        "--worker-kind",
        type=one_of("auto", "process", "thread"),
        default="auto",
        metavar="KIND",
        help="auto: threads on a free-threaded Python, else processes (default auto)",
    )
    _option(
        group,
        "--max-requests",
        "--limit-max-requests",
        type=number(0),
        default=0,
        metavar="N",
        help="another worker takes its place after so many (default 0: never)",
    )
    _option(
        group,
        "--max-requests-jitter",
        "--limit-max-requests-jitter",
        type=number(0),
        default=0,
        metavar="N",
        help="up to so many more, by chance",
    )
    _option(
        group,
        "--max-memory",
        type=size,
        default=0,
        metavar="BYTES",
        help="another worker takes its place when it has so much: 512M (default 0: any)",
    )
    _option(group, "--pid", "-p", metavar="FILE", help="write the number of the process there")
    _option(
        group,
        "--backend",
        type=one_of("auto", "uring", "epoll"),
        default="auto",
        metavar="auto|uring|epoll",
        help="of the event loops (default auto)",
    )


def _add_reload(group: Group) -> None:
    _switch(group, "--reload", help="load the application anew when a file has changed")
    _list(group, "--reload-dir", metavar="DIR", help="watch this; may be repeated (default .)")
    _list(group, "--reload-include", metavar="GLOB", help="beside *.py; may be repeated")
    _list(group, "--reload-exclude", metavar="GLOB", help="not these; may be repeated")


def _add_timeouts(group: Group) -> None:
    for names, default, told in (
        (
            ("--timeout-keep-alive", "--keep-alive"),
            75.0,
            "between two requests; longer than that of a proxy in front",
        ),
        (("--timeout-head",), 15.0, "for the head of a request"),
        (("--timeout-stall",), 60.0, "without a byte of a body or of an answer taken"),
        (
            ("--timeout", "-t", "--timeout-worker-healthcheck"),
            30.0,
            "a worker whose event loop has not run for so long is killed and replaced; 0: never",
        ),
        (
            ("--timeout-graceful-shutdown", "--graceful-timeout"),
            30.0,
            "for requests in progress when it stops",
        ),
        (
            ("--timeout-drain",),
            5.0,
            "at a reload, for idle connections: each closes with its next answer",
        ),
    ):
        told = f"{told} (default {default:g})"
        _option(group, *names, type=seconds, default=default, metavar="S", help=told)


def _add_limits(group: Group) -> None:
    _option(
        group,
        "--limit-concurrency",
        type=number(1),
        metavar="N",
        help="connections of a worker; more get 503 and are closed",
    )
    _option(
        group,
        "--worker-connections",
        type=number(1),
        metavar="N",
        help="connections of a worker; accepting pauses while there are so many",
    )
    _option(
        group,
        "--limit-request-line",
        type=size,
        default=16 << 10,
        metavar="BYTES",
        help="of a request's first line: 414 (default 16K)",
    )
    _option(
        group,
        "--limit-request-head",
        "--h11-max-incomplete-event-size",
        type=size,
        default=64 << 10,
        metavar="BYTES",
        help="of its head: 431 (default 64K)",
    )
    _option(
        group,
        "--limit-request-fields",
        type=number(1),
        default=100,
        metavar="N",
        help="fields in its head: 431 (default 100)",
    )
    _option(
        group,
        "--limit-request-body",
        type=size,
        metavar="BYTES",
        help="of its body: 413 (default any)",
    )


def _add_answers(group: Group) -> None:
    _list(group, "--header", type=header, metavar="NAME:VALUE", help="of each; may be repeated")
    _switch(group, "--server-header", default=True, help="say 'server: netpoll'")


def _add_proxies(group: Group) -> None:
    _switch(
        group,
        "--proxy-headers",
        help="X-Forwarded-For and -Proto say who the client is, from --forwarded-allow-ips",
    )
    _option(
        group,
        "--forwarded-allow-ips",
        default="127.0.0.1,::1",
        metavar="LIST",
        help="addresses and networks, or * (default 127.0.0.1,::1)",
    )
    _switch(
        group,
        "--proxy-protocol",
        help="each connection begins with a header of the PROXY protocol, version 1 or 2, from "
        "--proxy-allow-from; others are refused",
    )
    _option(
        group,
        "--proxy-allow-from",
        default="127.0.0.1,::1",
        metavar="LIST",
        help="addresses and networks, or * (default 127.0.0.1,::1)",
    )


def _add_tls(group: Group) -> None:
    _option(group, "--ssl-certfile", "--certfile", metavar="FILE", help="certificate chain, PEM")
    _option(
        group, "--ssl-keyfile", "--keyfile", metavar="FILE", help="its key, unless in the same file"
    )
    _option(group, "--ssl-keyfile-password", metavar="WORD", help="of the key")
    _option(
        group,
        "--ssl-ca-certs",
        "--ca-certs",
        metavar="FILE",
        help="clients must show a certificate of these",
    )
    _option(
        group,
        "--ssl-cert-reqs",
        "--cert-reqs",
        type=one_of("0", "1", "2"),
        metavar="0|1|2",
        help="0: clients show none, 1: they may, 2: they must (default 2 with --ssl-ca-certs)",
    )
    _option(group, "--ssl-ciphers", "--ciphers", metavar="LIST", help="of TLS 1.2, for OpenSSL")


def _add_logs(group: Group) -> None:
    _switch(group, "--access-log", help="a line for each answer, to standard output")
    _option(group, "--access-logfile", metavar="FILE", help="to this file instead")
    _option(
        group,
        "--access-log-format",
        type=one_of("common", "combined", "json"),
        default="common",
        metavar="FORM",
        help="common, combined or json (default common)",
    )
    _option(
        group, "--log-file", "--error-logfile", metavar="FILE", help="instead of standard error"
    )
    _option(
        group,
        "--log-level",
        type=one_of(*LOG_LEVELS),
        default="info",
        metavar="LEVEL",
        help=", ".join(LOG_LEVELS) + " (default info)",
    )
    _switch(group, "--top", help="let `netpoll top PID` of the same user look at the loops")


def _add_sources(group: Group) -> None:
    _option(group, "--config", "-c", metavar="FILE", help="TOML: these options, or a table [serve]")
    group.add_argument(
        "--check-config", action="store_true", help="load the application and end; 0: it can be"
    )
