"""Between a harness and an agent on another machine: who they are, and what they say.

Both have the same token, and each proves it to the other without sending it: with a code (HMAC of
SHA-256) over two numbers that are drawn for this connection alone. Out of these comes the key of
the session. Each message is a line of JSON with a code over it, its sender and its place in the
order, so that nothing can be put in, left out, repeated or turned around. What is said is not
hidden: it is names of arms and figures.

Lines are bounded, and so is the time that an unknown caller may take.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from netpoll.bench.errors import UsageError
from netpoll.bench.process import readable

__all__ = [
    "AGENT",
    "HARNESS",
    "Channel",
    "Refused",
    "Stopped",
    "greet",
    "parse_address",
    "read_token",
]

AGENT, HARNESS = b"agent", b"harness"
GREETING = b"netpoll-bench-agent/1"
NONCE_BYTES = 32
CODE_DIGITS = 2 * hashlib.sha256().digest_size
GREETING_MAX_BYTES = 256
GREETING_TIMEOUT_S = 5.0
MESSAGE_MAX_BYTES = 8 << 20  # a histogram has some thousand buckets
TOKEN_MIN_BYTES, TOKEN_MAX_BYTES = 16, 4096
OTHERS_MASK = 0o077
RECEIVE_BYTES = 1 << 16


class Refused(Exception):
    """The other end is not who it has to be, or does not keep to the protocol."""


class Stopped(Exception):
    """Something else is readable, which was to end the wait."""


def parse_address(text: str) -> tuple[str, int]:
    """Parses "HOST:PORT". Raises ValueError with a sentence."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is no address: write HOST:PORT")
    return host, int(port)


def read_token(path: Path) -> bytes:
    """The secret of both ends. Raises UsageError when there is none, it is too short, or others may
    read it."""
    try:
        with path.open("rb") as file:
            is_open = os.fstat(file.fileno()).st_mode & OTHERS_MASK
            token = file.read(TOKEN_MAX_BYTES + 1).strip()
    except OSError as error:
        raise UsageError(f"cannot read the token: {path}: {error.strerror}") from None
    if is_open:
        raise UsageError(f"others can read the token: chmod 600 {path}")
    if not TOKEN_MIN_BYTES <= len(token) <= TOKEN_MAX_BYTES:
        raise UsageError(
            f"the token in {path} has {len(token)} bytes; it needs {TOKEN_MIN_BYTES} to "
            f"{TOKEN_MAX_BYTES} (openssl rand -hex 32 > {path})"
        )
    return token


def _code(key: bytes, *parts: bytes) -> bytes:
    """Over parts whose lengths cannot be taken for one another."""
    made = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        made.update(len(part).to_bytes(8, "big") + part)
    return made.hexdigest().encode()


class Lines:
    """Reads lines from a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""

    def line(self, max_bytes: int, timeout_s: float, stop_fd: int = -1) -> bytes:
        """The next one, without its end. Raises Refused when it is too long or does not come in
        time, EOFError when there is none, Stopped when `stop_fd` is readable before it."""
        deadline_s = time.monotonic() + timeout_s
        fds = [self.sock.fileno(), *([stop_fd] if stop_fd >= 0 else [])]
        while b"\n" not in self.rest:
            if len(self.rest) > max_bytes:
                raise Refused("a line is too long")
            ready = readable(fds, deadline_s - time.monotonic())
            if stop_fd in ready:
                raise Stopped
            if not ready:
                raise Refused(f"nothing was said within {timeout_s:g} s")
            part = self.sock.recv(RECEIVE_BYTES)
            if not part:
                raise EOFError("the other end has closed the connection")
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\n")
        if len(line) > max_bytes:
            raise Refused("a line is too long")
        return line


class Channel:
    """A connection to somebody who has the token. `role`: which of the two this end is."""

    def __init__(self, lines: Lines, key: bytes, role: bytes) -> None:
        self.lines = lines
        self.key = key
        self.role = role
        self.other = HARNESS if role == AGENT else AGENT
        self.sent = self.received = 0

    @property
    def sock(self) -> socket.socket:
        return self.lines.sock

    def send(self, message: Any) -> None:
        """Raises OSError."""
        text = json.dumps(message, separators=(",", ":")).encode()
        code = _code(self.key, self.role, self.sent.to_bytes(8, "big"), text)
        self.sent += 1
        self.sock.sendall(code + b" " + text + b"\n")

    def receive(self, timeout_s: float, stop_fd: int = -1) -> Any:
        """The next message. Raises Refused when it is not the other end's, and what
        `Lines.line` raises."""
        line = self.lines.line(MESSAGE_MAX_BYTES, timeout_s, stop_fd)
        code, text = line[:CODE_DIGITS], line[CODE_DIGITS + 1 :]
        expected = _code(self.key, self.other, self.received.to_bytes(8, "big"), text)
        if not hmac.compare_digest(code, expected):
            raise Refused("a message is not the other end's")
        self.received += 1
        return json.loads(text)


def _parts(line: bytes, count: int) -> list[bytes]:
    parts = line.split(b" ")
    if len(parts) != count:
        raise Refused("the other end speaks something else")
    return parts


def greet(sock: socket.socket, token: bytes, role: bytes) -> Channel:
    """Proves to the other end that this one has the token, and has it proved. Raises Refused when
    the other end has not, EOFError when it went away, and OSError."""
    lines = Lines(sock)
    deadline_s = time.monotonic() + GREETING_TIMEOUT_S

    def told(count: int) -> list[bytes]:
        left_s = max(deadline_s - time.monotonic(), 0)
        return _parts(lines.line(GREETING_MAX_BYTES, left_s), count)

    def check(code: bytes, of: bytes) -> None:
        if not hmac.compare_digest(code, _code(token, of, *nonces)):
            raise Refused("the other end does not have this token")

    mine = secrets.token_hex(NONCE_BYTES).encode()
    if role == AGENT:
        sock.sendall(GREETING + b" " + mine + b"\n")
        theirs, code = told(2)
        nonces = mine, theirs
        check(code, HARNESS)
        sock.sendall(_code(token, AGENT, *nonces) + b"\n")
    else:
        greeting, theirs = told(2)
        if greeting != GREETING:
            raise Refused("there is no agent of this version of netpoll bench")
        nonces = theirs, mine
        sock.sendall(mine + b" " + _code(token, HARNESS, *nonces) + b"\n")
        check(told(1)[0], AGENT)
    return Channel(lines, _code(token, b"session", *nonces), role)
