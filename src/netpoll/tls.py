"""Upgrading a connection to TLS, and which engine does the work. See docs/tls.md."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from netpoll._native.tls.engine import engine
from netpoll._native.tls.transport import make_layer

__all__ = ["engine", "ktls", "start_tls"]


async def start_tls(
    loop: Any,
    transport: Any,
    protocol: asyncio.BaseProtocol,
    sslcontext: ssl.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> asyncio.Transport:
    """Upgrades a connection to TLS; loop.start_tls.

    protocol stays the protocol; its connection_made is not called again. The time-outs are in
    seconds. Returns the transport to be used from now on, once the handshake is done. Raises
    TypeError for a context or transport that cannot do it, and what ends the handshake:
    ssl.SSLError and its subclasses, ConnectionError, or ConnectionAbortedError after
    ssl_handshake_timeout.
    """
    if not isinstance(sslcontext, ssl.SSLContext):
        raise TypeError(
            f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}"
        )
    if not getattr(transport, "_start_tls_compatible", False):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")
    waiter = loop.create_future()
    layer = make_layer(
        loop,
        protocol,
        sslcontext,
        waiter,
        server_side=server_side,
        server_hostname=server_hostname,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
        call_connection_made=False,
    )
    # Nothing arrives between the old protocol and the layer's connection_made.
    transport.pause_reading()
    transport.set_protocol(layer)
    layer.feed_early(_buffered(protocol))
    made = loop.call_soon(layer.connection_made, transport)
    resumed = loop.call_soon(transport.resume_reading)
    try:
        await waiter
    except BaseException:
        transport.close()
        made.cancel()
        resumed.cancel()
        del waiter  # it holds the exception, whose traceback holds this frame
        raise
    return layer._app_transport


def _buffered(protocol: asyncio.BaseProtocol) -> bytes:
    """Takes what the connection's StreamReader holds already.

    The peer may have sent its first handshake message together with its last plaintext. Whatever
    else it is, it came unprotected and must not be read as if it had come through TLS.
    """
    reader = getattr(protocol, "_stream_reader", None)
    if not isinstance(protocol, asyncio.StreamReaderProtocol) or reader is None:
        return b""
    data = bytes(reader._buffer)
    reader._buffer.clear()
    return data


def ktls() -> tuple[bool, str]:
    """Whether this machine could encrypt in the kernel, and what is missing if not.

    netpoll encrypts in the process either way; get_extra_info("ktls") of a connection says so.
    Reads /proc/sys/net/ipv4/tcp_available_ulp (the kernel's list of upper layer protocols); a
    kernel that loads its module "tls" on demand may not show it before the first use.
    """
    if not hasattr(ssl, "OP_ENABLE_KTLS"):
        return False, "this Python's ssl module has no OP_ENABLE_KTLS (new in Python 3.12)"
    try:
        with open("/proc/sys/net/ipv4/tcp_available_ulp", encoding="ascii") as file:
            offered = file.read().split()
    except OSError as error:
        return False, f"the kernel does not say what it has: {error.strerror}"
    if "tls" not in offered:
        return False, f"the kernel offers {', '.join(offered) or 'nothing'} over TCP, and no tls"
    return True, "the kernel offers tls over TCP"
