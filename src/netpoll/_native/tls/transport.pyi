"""Types of the TLS layer; not for programs, which meet it as an asyncio.Transport."""

import asyncio
import ssl

from netpoll._native.tls.layer import TlsLayer

class TlsTransport(asyncio.Transport):
    def get_read_buffer_size(self) -> int: ...
    def get_read_buffer_limits(self) -> tuple[int, int]: ...
    def set_read_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

def make_layer(
    loop: asyncio.AbstractEventLoop,
    protocol: asyncio.BaseProtocol,
    sslcontext: ssl.SSLContext | None,
    waiter: asyncio.Future[None] | None,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    call_connection_made: bool = True,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> TlsLayer: ...
