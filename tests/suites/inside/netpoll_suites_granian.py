"""A pytest plugin for granian's tests of its server, with `netpoll serve` in its place.

The tests start a server in a process of its own, which calls granian.Granian. Here that process
runs the command of netpoll with the options of the same meaning. The tests and their applications
are as they are. On asyncio's loop nothing is replaced: granian is the control.
"""

import multiprocessing
import os
from typing import Any


def command(given: dict[str, Any]) -> list[str]:
    """Of `netpoll`, for the arguments of granian.Granian.

    Of the versions of TLS only the highest is tested, which is the client's to choose.
    """
    interface = given["interface"]
    words = ["serve", f"tests.apps.{interface}:app", "--interface", interface]
    if "uds" in given:
        words += ["--uds", str(given["uds"])]
        if "uds_permissions" in given:
            words += ["--umask", f"{0o777 & ~given['uds_permissions']:o}"]
    else:
        words += ["--host", "127.0.0.1", "--port", str(given["port"])]
    if interface == "wsgi":
        words += ["--threads", str(given["blocking_threads"])]
    if "ssl_cert" in given:
        words += ["--ssl-certfile", str(given["ssl_cert"])]
        words += ["--ssl-keyfile", str(given["ssl_key"])]
    if "ssl_key_password" in given:
        words += ["--ssl-keyfile-password", given["ssl_key_password"]]
    return [*words, "--graceful-timeout", "1", "--backend", os.environ["NETPOLL_SUITES_LOOP"]]


def serve(**given: Any) -> None:
    from netpoll.cli import main

    raise SystemExit(main(command(given)))


class Context:
    """multiprocessing's, with another target for the processes of the tests."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def Process(self, target: Any, kwargs: dict[str, Any]) -> Any:
        return self._context.Process(target=serve, kwargs=kwargs)


_get_context = multiprocessing.get_context


def get_context(method: str | None = None) -> Any:
    return Context(_get_context(method))


if os.environ.get("NETPOLL_SUITES_LOOP") in ("uring", "epoll"):
    multiprocessing.get_context = get_context  # type: ignore[assignment]
