"""Options of uvicorn and gunicorn that are not here, and what to do instead."""

from __future__ import annotations

__all__ = ["FOREIGN"]

_LOOP = "the event loop is netpoll's, leave it out; --backend chooses between io_uring and epoll"
_PARSER = "there is one HTTP parser, leave it out"
_WEBSOCKETS = "there is one implementation of WebSocket, leave it out"
_LOGGING = "configure Python's logging in your application: the logger is 'netpoll'"
_USER = "start it as that user: User= of systemd, or setpriv"
_STATSD = "leave it out; there are no metrics yet"

FOREIGN = {
    "--loop": _LOOP,
    "--worker-class": "leave it out: a worker serves ASGI and WSGI as they come; "
    "--worker-kind chooses between processes and threads",
    "-k": "leave it out: a worker serves ASGI and WSGI as they come",
    "--http": _PARSER,
    **dict.fromkeys(
        ("--ws", "--ws-max-size", "--ws-max-queue", "--ws-ping-interval", "--ws-ping-timeout"),
        _WEBSOCKETS,
    ),
    "--ws-per-message-deflate": _WEBSOCKETS,
    "--log-config": _LOGGING,
    "--logger-class": _LOGGING,
    "--log-config-dict": _LOGGING,
    "--use-colors": "leave it out: the log has no colours",
    "--no-use-colors": "leave it out: the log has no colours",
    "--date-header": "leave it out: HTTP asks for the date in each answer",
    "--no-date-header": "leave it out: HTTP asks for the date in each answer",
    "--reload-delay": "leave it out: a change is seen at once",
    "--reload-engine": "leave it out: watchfiles is used when it is installed",
    "--reload-extra-file": "use --reload-dir and --reload-include",
    "--preload": "leave it out: each worker loads the application, so that SIGHUP loads it anew",
    "--daemon": "leave it out: systemd, or a container, keeps it running",
    "-D": "leave it out: systemd, or a container, keeps it running",
    **dict.fromkeys(("--user", "-u", "--group", "-g", "--initgroups"), _USER),
    "--worker-tmp-dir": "leave it out: workers and supervisor share memory, not files",
    "--no-sendfile": "leave it out",
    "--capture-output": "leave it out: what is printed goes where the command's output goes",
    "--access-logformat": "use --access-log-format",
    "--name": "leave it out: the command line is the name",
    "-n": "leave it out: the command line is the name",
    "--paste": "use --factory with a function that loads the application",
    "--print-config": "use --check-config",
    "--ssl-version": "leave it out: TLS 1.2 and newer are spoken",
    "--limit-request-field_size": "use --limit-request-head",
    **dict.fromkeys(
        ("--statsd-host", "--statsd-prefix", "--dogstatsd-tags", "--enable-stdio-inheritance"),
        _STATSD,
    ),
}
