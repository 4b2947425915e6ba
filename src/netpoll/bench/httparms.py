"""The servers that `bench http` compares: netpoll's own, and those that people deploy."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from netpoll.bench import _native
from netpoll.bench.answers import FOLDER_VARIABLE
from netpoll.bench.arms import CommandArm
from netpoll.bench.errors import ArmUnavailable
from netpoll.bench.httpworks import Work
from netpoll.bench.records import Facts

__all__ = [
    "CERTIFICATE",
    "HTTP_ARMS",
    "INTERFACE_TITLES",
    "KEY",
    "PEERS",
    "UVICORN_AGAIN",
    "HttpArm",
    "loop_guest",
    "server_guest",
]

PROGRAMS = "netpoll.bench.programs"
CERTIFICATE, KEY = "certificate.pem", "key.pem"  # in the folder of the run

INTERFACE_TITLES = {
    "own": "an interface of its own",
    "asgi": "ASGI",
    "wsgi": "WSGI",
    "-": "no Python",
}


@dataclass(frozen=True)
class HttpArm(CommandArm):
    """A server of HTTP. In its command "{app}" stands for the application that it runs, and
    "{folder}" for what is there for it to read.

    interface: how it calls the application, see INTERFACE_TITLES.
    tls: the words that make it speak TLS; none: it cannot.
    has_websockets: whether it can be asked for one.
    needs: what has to be installed beside its module.
    """

    interface: str = field(kw_only=True)
    tls: tuple[str, ...] = field(default=(), kw_only=True)
    needs: tuple[str, ...] = field(default=(), kw_only=True)
    has_websockets: bool = field(default=True, kw_only=True)

    def can(self, work: Work) -> bool:
        """Whether it can be asked for this."""
        if (work.is_tls and not self.tls) or (work.upgrade and not self.has_websockets):
            return False
        return self.interface in work.interfaces

    def serving(self, work: Work, folder: Path) -> CommandArm:
        """What runs to be asked for this work."""
        app = {"asgi": f"{work.app}:app", "wsgi": "wsgi:app"}.get(self.interface)
        if self.interface == "own":
            app = work.own_app
        places = {"{app}": f"{PROGRAMS}.{app}" if app else "-", "{folder}": str(folder)}
        words = self.command + (self.tls if work.is_tls else ())
        for place, word in places.items():
            words = tuple(each.replace(place, word) for each in words)
        environment = {**self.environment, FOLDER_VARIABLE: str(folder)}
        return replace(self, command=words, environment=environment)

    def check(self) -> Facts:
        if self.environment.get("NETPOLL_BACKEND") == "uring":
            reason = _native.floor_uring_probe()
            if reason is not None:
                raise ArmUnavailable(f"io_uring is not to be had here: {reason}")
        facts = super().check()
        for module in self.needs:
            if importlib.util.find_spec(module) is None:
                raise ArmUnavailable(f"{module} is not installed (pip install {module})")
        return facts


# ---- netpoll ----------------------------------------------------------------------------------

BACKENDS = {"uring": "io_uring", "epoll": "epoll"}


def _tls_words(certificate: str, key: str) -> tuple[str, ...]:
    """The two options of a command line."""
    return (certificate, "{folder}/" + CERTIFICATE, key, "{folder}/" + KEY)


def _own(interface: str, word: str, backend: str) -> HttpArm:
    return HttpArm(
        f"netpoll-{word}-{backend}",
        "program",
        f"netpoll.http, {word}, on {BACKENDS[backend]}",
        distribution="netpoll",
        module="netpoll.http",
        command=("{python}", "-m", f"{PROGRAMS}.netpoll_http", "{port}", word, "{app}"),
        environment={"NETPOLL_BACKEND": backend},
        interface=interface,
        tls=_tls_words("--certificate", "--key"),
    )


# ---- uvicorn ----------------------------------------------------------------------------------

UVICORN = (
    *("{python}", "-m", "uvicorn", "{app}", "--port", "{port}", "--http", "httptools"),
    *("--ws", "websockets", "--no-access-log", "--log-level", "warning"),
    *("--timeout-keep-alive", "75", "--loop"),
)


UVICORN_AGAIN = "uvicorn-asyncio-again"


def _uvicorn(
    name: str, loop: str, on: str, needs: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> HttpArm:
    return HttpArm(
        name,
        "program",
        f"uvicorn with httptools on {on}",
        distribution="uvicorn",
        module="uvicorn",
        command=(*UVICORN, loop),
        environment=env or {},
        interface="asgi",
        tls=_tls_words("--ssl-certfile", "--ssl-keyfile"),
        needs=("httptools", "websockets", *needs),
    )


def loop_guest(name: str, factory: str, distribution: str = "") -> HttpArm:
    """uvicorn on any event loop, "module:factory"."""
    arm = _uvicorn(name, factory, f"the event loop of {factory}")
    if distribution:
        return replace(arm, needs=(*arm.needs, distribution))
    return arm


def server_guest(name: str, command: tuple[str, ...]) -> HttpArm:
    """Any server. What its command says of the application is the interface that it calls."""
    text = " ".join(command)
    interface = next((each for each in ("asgi", "wsgi") if f"{{{each}}}" in text), "own")
    words = tuple(word.replace(f"{{{interface}}}", "{app}") for word in command)
    return HttpArm(name, "program", text, command=words, interface=interface)


# ---- others -----------------------------------------------------------------------------------


def _peer(
    name: str,
    distribution: str,
    interface: str,
    summary: str,
    words: str,
    tls: tuple[str, ...],
    has_websockets: bool = True,
) -> HttpArm:
    """A server whose command is "python `words`"."""
    return HttpArm(
        name,
        "program",
        summary,
        distribution=distribution,
        module=distribution,
        command=("{python}", *words.split(" ")),
        interface=interface,
        tls=tls,
        has_websockets=has_websockets,
    )


GRANIAN = (
    "-m granian {app} --host 127.0.0.1 --port {port} --workers 1 --http 1 --log-level warning "
    "--interface "
)
GUNICORN = (
    "-m gunicorn {app} --bind 127.0.0.1:{port} --workers 1 --keep-alive 75 --log-level error "
    "--worker-class "
)
FASTPYSGI = f"-m {PROGRAMS}.fastpysgi_cli {{app}} --host 127.0.0.1 --port {{port}} --loglevel 0"
CERTFILE = _tls_words("--certfile", "--keyfile")

# uvicorn on other event loops.
PEER_LOOPS = (
    loop_guest("uvicorn-rloop", "rloop:new_event_loop", "rloop"),
    loop_guest("uvicorn-rsloop", "rsloop:new_event_loop", "rsloop"),
    loop_guest("uvicorn-zuvloop", "zuvloop:new_event_loop", "zuvloop"),
    loop_guest("uvicorn-aiofastnet", f"{PROGRAMS}.aiofastnet_loop:new_event_loop", "aiofastnet"),
)

HTTP_ARMS: dict[str, HttpArm] = {
    arm.name: arm
    for arm in (
        _own("own", "raw", "uring"),
        _own("own", "raw", "epoll"),
        _own("asgi", "asgi", "uring"),
        _own("asgi", "asgi", "epoll"),
        _own("wsgi", "wsgi", "uring"),
        _own("wsgi", "wsgi", "epoll"),
        _own("wsgi", "wsgi-inline", "uring"),
        _own("wsgi", "wsgi-inline", "epoll"),
        *(
            _uvicorn(
                f"netpoll-loop-{backend}",
                "netpoll:new_event_loop",
                f"netpoll's loop, {interface}",
                env={"NETPOLL_BACKEND": backend},
            )
            for backend, interface in BACKENDS.items()
        ),
        _uvicorn("uvicorn-asyncio", "asyncio", "asyncio"),
        _uvicorn(UVICORN_AGAIN, "asyncio", "asyncio a second time: the control"),
        _uvicorn("uvicorn-uvloop", "uvloop", "uvloop", ("uvloop",)),
        _peer(
            "granian-asgi",
            "granian",
            "asgi",
            "granian, one worker; on uvloop if that is installed",
            GRANIAN + "asgi",
            _tls_words("--ssl-certificate", "--ssl-keyfile"),
        ),
        _peer(
            "granian-wsgi",
            "granian",
            "wsgi",
            "granian, one worker",
            GRANIAN + "wsgi",
            _tls_words("--ssl-certificate", "--ssl-keyfile"),
        ),
        _peer(
            "hypercorn",
            "hypercorn",
            "asgi",
            "hypercorn, one worker, on asyncio",
            "-m hypercorn {app} --bind 127.0.0.1:{port} --keep-alive 75 --log-level error",
            CERTFILE,
        ),
        _peer(
            "gunicorn-asgi",
            "gunicorn",
            "asgi",
            "gunicorn, one worker of its class asgi",
            GUNICORN + "asgi",
            CERTFILE,
        ),
        _peer(
            "gunicorn-gthread",
            "gunicorn",
            "wsgi",
            "gunicorn, one worker of its class gthread with four threads",
            GUNICORN + "gthread --threads 4",
            (),  # a thread waits for the first request of a TLS connection, so 64 idle ones stop it
        ),
        _peer(
            "fastpysgi-asgi",
            "fastpysgi",
            "asgi",
            "fastpysgi with ASGI",
            FASTPYSGI,
            CERTFILE,
            has_websockets=False,
        ),
        _peer("fastpysgi-wsgi", "fastpysgi", "wsgi", "fastpysgi with WSGI", FASTPYSGI, CERTFILE),
        _peer(
            "socketify",
            "socketify",
            "asgi",
            "socketify with ASGI",
            "-m socketify {app} --host 127.0.0.1 --port {port} --workers 1",
            (),
        ),
        HttpArm(
            "node",
            "program",
            "the http module of Node.js",
            command=("node", str(Path(__file__).parent / "programs" / "node_http.js"), "{port}"),
            interface="own",
            tls=("{folder}/" + CERTIFICATE, "{folder}/" + KEY),
            has_websockets=False,
        ),
        HttpArm(
            "floor",
            "floor",
            "a server of HTTP/1.1 in C on epoll, which knows its answers",
            command=("{python}", "-m", f"{PROGRAMS}.floor_http", "{port}"),
            interface="-",
        ),
        *PEER_LOOPS,
    )
}
PEERS = tuple(arm.name for arm in PEER_LOOPS)
